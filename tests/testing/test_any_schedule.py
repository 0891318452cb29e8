"""Whatever the schedule, the faults and the settings, each public function keeps its guarantees.

`expected` says what a run has to deliver, item by item and without any concurrency; `check` goes through the events and
holds each of them against the guarantees. Both are meant to be seen to be right.
"""

import asyncio
import itertools
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functions_for_workers import Oops
from inturn import (
    SKIP,
    Failure,
    Retry,
    ordered_aflat_map,
    ordered_amap,
    ordered_flat_map,
    ordered_gather,
    ordered_map,
    retry,
    sentinel,
)
from inturn.testing import Dies, Fails, Hangs, Schedule

many = settings(max_examples=4 * settings().max_examples)  # an example takes about ten milliseconds

ITEMS = 10
TIMEOUT = 5
DEADLINE = 1000


def own(failure):
    return Retry(after=1) if failure.attempt < 3 else "own"


POLICIES = {  # how many attempts an item has, and what then takes its place
    "raise": (1, "raise", "raise"),
    "skip": (1, SKIP, "skip"),
    "return": (1, Failure, "return"),
    "sentinel": (1, "gone", sentinel("gone")),
    "retry": (3, "raise", retry(attempts=3, backoff=1, jitter=False)),
    "retry at once": (2, SKIP, retry(attempts=2, backoff=0, then="skip")),
    "retry, return": (2, Failure, retry(attempts=2, backoff=1, jitter=False, then="return")),
    "own": (3, "own", own),
}


@dataclass
class Case:
    """A run, as far as what it delivers does not depend on it: the rest is in `settings`."""

    policy: str
    items: int
    lengths: list[int] = field(repr=False)  # flat: how many elements each item has
    faults: list[Any]
    limit: str  # "timeout" or "deadline": what ends calls that hang
    settings: dict[str, Any]
    order: list[int]
    flat: bool
    pauses: list[int]  # how long each item of an async function sleeps, in seconds

    @property
    def attempts(self):
        return POLICIES[self.policy][0]

    def schedule(self):
        return Schedule(self.order, faults=self.faults)

    def options(self):
        limit = {"timeout": TIMEOUT} if self.limit == "timeout" else {"deadline": DEADLINE}
        return {"on_error": POLICIES[self.policy][2], **limit, **self.settings}

    def results_of(self, i):
        return [(i, j) for j in range(self.lengths[i])] if self.flat else [2 * i]

    def fault(self, i, attempt):
        """What goes wrong with this attempt, and after how many elements."""
        for fault in self.faults:
            if fault.meets(i, attempt) and (not self.flat or fault.after <= self.lengths[i]):
                return fault, fault.after if self.flat else 0
        return None, 0


@st.composite
def cases(draw, flat=False, live=False, chunks=False):
    items = draw(st.integers(0, ITEMS) | st.just(ITEMS))
    limit = draw(st.sampled_from(["timeout", "deadline"]))
    policies = [name for name, (attempts, _, _) in POLICIES.items() if limit == "timeout" or attempts == 1]
    kinds = [Fails, Dies, Hangs]
    faults = []
    for i in draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=4)):
        for attempt in range(1, draw(st.integers(1, 3)) + 1):
            kind = draw(st.sampled_from(kinds))
            after = draw(st.integers(0, 3)) if flat else 0
            faults.append(kind(i, Oops, attempt, after=after) if kind is Fails else kind(i, attempt, after=after))
    options = {"concurrency": draw(st.integers(1, 5)), "indexed": draw(st.booleans())}
    if chunks:
        options["chunksize"] = draw(st.none() | st.integers(1, 3))
    options["window"] = draw(st.none() | st.integers(options.get("chunksize") or 1, 8))
    if not options.get("chunksize"):
        options["limit"] = draw(st.sampled_from([None, None, 2]))
    if flat:
        options["buffer"] = draw(st.integers(1, 4))
    if live:
        options["live"] = draw(st.booleans())
    return Case(
        policy=draw(st.just("raise") | st.sampled_from(policies)),
        items=items,
        lengths=draw(st.lists(st.integers(0, 3), min_size=ITEMS, max_size=ITEMS)) if flat else [],
        faults=faults,
        limit=limit,
        settings=options,
        order=draw(st.permutations(range(ITEMS)) | st.lists(st.integers(0, ITEMS - 1), max_size=20)),
        flat=flat,
        pauses=draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=ITEMS, max_size=ITEMS)),
    )


ERRORS = {"Fails": "Oops", "Dies": "WorkerDied", "Hangs": "TimeoutError"}


def expected(case):
    """What the run delivers, as (index, result), and the type of the error that ends it."""
    attempts, instead, _ = POLICIES[case.policy]
    delivered = []
    for i in range(case.items):
        for attempt in itertools.count(1):
            fault, after = case.fault(i, attempt)
            if fault is None:
                delivered += [(i, result) for result in case.results_of(i)]
                break
            made = case.results_of(i)[:after]
            error = ERRORS[type(fault).__name__]
            if error == "TimeoutError" and case.limit == "deadline":
                return delivered + [(i, result) for result in made], error
            if attempt < attempts and not made:
                continue
            delivered += [(i, result) for result in made]
            if instead == "raise" or attempt < attempts:
                return delivered, error
            if instead is Failure:
                delivered.append((i, f"failure {i} {attempt} {error}"))
            elif instead is not SKIP:
                delivered.append((i, instead))
            break
    return delivered, None


def told(result):
    """A result in words that can be compared."""
    if type(result) is Failure:
        return f"failure {result.index} {result.attempt} {type(result.error).__name__}"
    return result


def plain(case, results):
    if case.settings["indexed"]:
        return [(index, told(result)) for index, result in results]
    return [told(result) for result in results]


def wanted(case):
    delivered, error = expected(case)
    return (delivered if case.settings["indexed"] else [result for _, result in delivered]), error


def check(case, schedule, calls, *, tasks=False, feeder=False):
    """Hold every event against the guarantees; returns what was pulled, and what is still under way."""
    window = case.settings["window"] or max(2 * case.settings["concurrency"] * (case.settings.get("chunksize") or 1), 2)
    over = {"done", "raised"} if case.flat else {"delivered", "left out", "raised"}
    pulled, gone, under_way, started, made = [], [], set(), [], Counter()
    ending = None
    starts = [event.time for event in schedule.events if event.what == "started"]
    if case.settings.get("limit"):
        assert all(later - earlier >= 0.5 - 1e-9 for earlier, later in itertools.pairwise(starts))  # 34
    for event in schedule.events:
        key = event.index, event.attempt
        if event.what == "pulled":
            assert ending is None or tasks or feeder  # 9; a feeder may be inside a pull
            pulled.append(event.index)
        elif event.what == "started":
            assert ending is None or event.index < ending or tasks  # 9
            started.append(key)
            under_way.add(event.index)
        elif event.what == "made":
            made[event.index] += 1
            assert made[event.index] <= case.settings["buffer"] + (event.index in gone)
        elif event.what == "delivered" and case.flat:
            made[event.index] -= 1
        elif event.what in {"ended", "failed", "given up", "closed"}:
            assert tasks or event.index in under_way
            under_way.discard(event.index)
            final = event.attempt >= case.attempts
            if (
                event.what not in {"ended", "closed"}
                and final
                and POLICIES[case.policy][1] == "raise"
                and case.policy != "own"
            ):
                ending = min(event.index, ITEMS if ending is None else ending)
        if event.what in over:
            gone.append(event.index)
        assert len(pulled) - len(set(gone)) <= window  # 3
        assert len(under_way) <= case.settings["concurrency"]  # 5
    assert pulled == list(range(len(pulled)))  # 1
    assert len(started) == len(set(started))  # no attempt is started twice
    first = [index for index, attempt in started if attempt == 1]
    if (case.settings.get("chunksize") or 1) == 1:
        assert first == list(range(len(first)))  # the oldest is started first
    assert gone == sorted(gone)  # 1
    for index, count in calls.items():  # every call was an attempt that nothing was wrong with
        sound = sum(key[0] == index and (case.fault(*key)[0] is None or case.fault(*key)[1] > 0) for key in started)
        assert count <= sound if case.flat or tasks else count == sound
    return pulled, under_way


class Function:
    """What the runs call."""

    def __init__(self, case):
        self.case = case
        self.calls = Counter()
        self.open = Counter()

    def plain(self, i):
        self.calls[i] += 1
        return 2 * i

    def elements(self, i):
        self.calls[i] += 1
        self.open[i] += 1
        try:
            yield from self.case.results_of(i)
        finally:
            self.open[i] -= 1

    async def coroutine(self, i):
        self.calls[i] += 1
        await asyncio.sleep(self.case.pauses[i])
        return 2 * i

    async def async_elements(self, i):
        self.calls[i] += 1
        self.open[i] += 1
        try:
            for each in self.case.results_of(i):
                await asyncio.sleep(self.case.pauses[i] / 3)
                yield each
        finally:
            self.open[i] -= 1


def finish(case, schedule, function, run, results, error, *, tasks=False, feeder=False):
    """After a run that was consumed to its end."""
    assert (plain(case, results), error) == wanted(case)
    pulled, under_way = check(case, schedule, function.calls, tasks=tasks, feeder=feeder)
    stats = run.stats
    assert stats.waiting == 0
    assert stats.running == len(under_way)  # those that hang, if the deadline has ended the run
    assert stats.pulled == len(pulled)
    assert set(+function.open) <= under_way
    if error is None:
        assert len(pulled) == case.items
        assert not under_way
        attempts = Counter(event.index for event in schedule.events if event.what == "started")
        assert stats.retried == sum(attempts.values()) - case.items
        if not case.flat:
            assert stats.delivered == len(results)
            assert stats.skipped == case.items - len(results)


def consume(run):
    results = []
    try:
        for result in run:
            results.append(result)
    except Exception as error:
        assert next(run, "over") == "over"
        return results, type(error).__name__
    assert next(run, "over") == "over"
    return results, None


async def consume_async(run):
    results, error = [], None
    try:
        async for result in run:
            results.append(result)
    except Exception as caught:
        error = type(caught).__name__
    assert await anext(run, "over") == "over"
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return results, error


@many
@given(cases(live=True, chunks=True))
def test_g01_g09_ordered_map(case):
    before = threading.active_count()
    schedule, function = case.schedule(), Function(case)
    run = ordered_map(function.plain, iter(range(case.items)), executor=schedule, **case.options())
    results, error = consume(run)
    finish(case, schedule, function, run, results, error)
    assert threading.active_count() == before


@many
@given(cases(flat=True, live=True))
def test_g01_g09_ordered_flat_map(case):
    schedule, function = case.schedule(), Function(case)
    run = ordered_flat_map(function.elements, iter(range(case.items)), executor=schedule, **case.options())
    results, error = consume(run)
    finish(case, schedule, function, run, results, error)


async def stream(items):
    for i in range(items):
        await asyncio.sleep(0)
        yield i


ASYNC = [
    pytest.param(ordered_amap, "coroutine", False, id="ordered_amap"),
    pytest.param(ordered_amap, "plain", False, id="ordered_amap-executor"),
    pytest.param(ordered_aflat_map, "async_elements", True, id="ordered_aflat_map"),
    pytest.param(ordered_aflat_map, "elements", True, id="ordered_aflat_map-executor"),
]


@pytest.mark.parametrize(("function_of", "name", "flat"), ASYNC)
@given(data=st.data(), source=st.sampled_from([range, stream]))
def test_g01_g09_of_async_runs(function_of, name, flat, data, source):
    case = data.draw(cases(flat=flat))
    schedule, function = case.schedule(), Function(case)
    tasks = name in {"coroutine", "async_elements"}

    async def main():
        executor = {} if tasks else {"executor": schedule}
        items = source(case.items)
        run = function_of(getattr(function, name), items, **executor, **case.options())
        return run, *(await consume_async(run))

    run, results, error = schedule.run(main())
    finish(case, schedule, function, run, results, error, tasks=tasks, feeder=source is stream)


LEAVINGS = ["close", "drop", "error"]


@given(cases(live=True, chunks=True), st.integers(0, ITEMS), st.sampled_from(LEAVINGS))
def test_g13_ordered_map_is_left_early(case, taken, how):
    left_early(case, ordered_map, Function(case), "plain", taken, how)


@given(cases(flat=True, live=True), st.integers(0, 2 * ITEMS), st.sampled_from(LEAVINGS))
def test_g13_ordered_flat_map_is_left_early(case, taken, how):
    left_early(case, ordered_flat_map, Function(case), "elements", taken, how)


def left_early(case, function_of, function, name, taken, how):
    schedule, source = case.schedule(), iter(range(case.items))
    run = function_of(getattr(function, name), source, executor=schedule, **case.options())
    results = []
    try:
        if how == "drop":
            results.extend(itertools.islice(run, taken))
            del run
        else:
            with run:
                results.extend(itertools.islice(run, taken))
                if how == "error":
                    raise Oops
    except Exception as error:
        run = None
        known = {*ERRORS.values(), "RuntimeError" if case.limit == "deadline" and how == "close" else "Oops"}
        assert type(error).__name__ in known
    want, _ = wanted(case)
    assert plain(case, results) == want[: len(results)]
    pulled, under_way = check(case, schedule, function.calls)
    assert set(+function.open) <= under_way  # those that hang
    assert next(source, case.items) == len(pulled)


@given(cases(), st.none() | st.integers(1, 4), st.sampled_from([range, stream]))
def test_g33_ordered_gather(case, batch_size, source):
    schedule, function = case.schedule(), Function(case)
    case.limit, options = "timeout", {"timeout": TIMEOUT, "on_error": POLICIES[case.policy][2]}
    options["limit"] = case.settings["limit"]

    async def main():
        return await ordered_gather(
            function.coroutine,
            source(case.items),
            concurrency=case.settings["concurrency"],
            batch_size=batch_size,
            **options,
        )

    case.settings["indexed"] = False
    want, error = wanted(case)
    try:
        results = schedule.run(main())
    except Exception as caught:
        assert error is not None
        assert type(caught).__name__ in ERRORS.values()
        failed = [
            event
            for event in schedule.events
            if event.what in {"failed", "given up"} and event.attempt >= case.attempts
        ]
        assert f"item {failed[0].index}: " in "".join(caught.__notes__)  # the first in time
    else:
        assert (plain(case, results), None) == (want, error)
