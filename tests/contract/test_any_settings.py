"""Whatever the settings, a run delivers what `map` would: with any window, concurrency, chunks, failures, policies.

Here real workers run the calls. What does not depend on them is in `testing/test_any_schedule`, over any completion order.
"""

import itertools
from collections import Counter
from contextlib import ExitStack
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import DRIVERS, DuckExecutor, Runner
from functions_for_workers import Oops
from inturn import SKIP, Failure, Retry, ordered_map, retry, sentinel
from waiting import Source, spend

SAME = {"Threads", "callable", "duck"}  # their runs take the same ways as those of "thread" and "borrowed"
each_driver = pytest.mark.parametrize(
    "driver",
    [pytest.param(d, marks=d.marks, id=d.name) for d in DRIVERS if d.in_process and d.most > 1 and d.name not in SAME],
)


half_as_often = settings(max_examples=settings.default.max_examples // 2)  # eight drivers run them, with real pauses


@st.composite
def shapes(draw):
    """Settings that decide how a run is carried out, and must not be seen in what it delivers."""
    chunksize = draw(st.none() | st.integers(1, 5))
    window = draw(st.none() | st.integers(chunksize or 1, 12))
    return {"concurrency": draw(st.integers(1, 5)), "window": window, "chunksize": chunksize}


def had(driver, shape):
    """Those of the settings that the driver's runs have."""
    return {option: value for option, value in shape.items() if option not in driver.lacks}


ERRORS = st.dictionaries(st.integers(0, 24), st.integers(1, 4), max_size=6)  # item: how many attempts fail
LENGTHS = st.integers(0, 25)
PAUSES = st.lists(st.sampled_from([0, 0, 0, 0.0002, 0.001]), min_size=25, max_size=25)


class Call:
    """Doubles; an item fails in its first so many attempts, and takes its time."""

    def __init__(self, errors, pauses):
        self.errors, self.pauses, self.attempts = errors, pauses, Counter()

    def __call__(self, i):
        self.attempts[i] += 1
        if pause := self.pauses[i]:
            spend(pause)
        if self.attempts[i] <= self.errors.get(i, 0):
            raise Oops(i, self.attempts[i])
        return 2 * i


def own(failure):
    if failure.index % 3 == 0:
        return SKIP
    if failure.index % 3 == 1 and failure.attempt < 3:
        return Retry(after=0)
    return ("own", failure.index, failure.attempt)


POLICIES = {
    "raise": ("raise", 1, None),
    "skip": ("skip", 1, lambda i, n: SKIP),
    "return": ("return", 1, lambda i, n: ("failure", i, n)),
    "sentinel": (sentinel("gone"), 1, lambda i, n: "gone"),
    "retry": (retry(attempts=3, backoff=0), 3, None),
    "patient": (retry(attempts=2, backoff=0.0005, then="skip"), 2, lambda i, n: SKIP),
    "own": (own, None, lambda i, n: SKIP if i % 3 == 0 else ("own", i, n)),
}


def model(length, errors, policy):
    """What a run delivers, and the item whose error ends it."""
    _, attempts, instead = POLICIES[policy]
    delivered = []
    for i in range(length):
        allowed = attempts or (3 if i % 3 == 1 else 1)
        if errors.get(i, 0) < allowed:
            delivered.append((i, 2 * i))
        elif instead is None:
            return delivered, i
        elif (value := instead(i, allowed)) is not SKIP:
            delivered.append((i, value))
    return delivered, None


@each_driver
@half_as_often
@given(
    length=LENGTHS,
    errors=ERRORS,
    pauses=PAUSES,
    shape=shapes(),
    policy=st.sampled_from(sorted(POLICIES)),
    strict=st.booleans(),
    known=st.booleans(),
)
def test_g01_g09_a_run_delivers_what_map_would(driver, length, errors, pauses, shape, policy, strict, known):
    runner = Runner(driver)
    call = Call(errors, pauses)
    source = Source(range(length))
    settings = {**had(driver, shape), "on_error": POLICIES[policy][0], "indexed": True, "strict": strict}
    run = runner.map(call, range(length) if known else source, **settings)
    delivered, ended = [], None
    try:
        for index, value in source.watch(run):
            delivered.append((index, ("failure", value.index, value.attempt) if type(value) is Failure else value))
    except Oops as error:
        ended = error.args[0]
    expected, ends = model(length, errors, policy)
    assert (delivered, ended) == (expected, ends)
    if shape["window"] and not known and policy in {"raise", "return", "sentinel", "retry"}:
        # every item is delivered, so the consumer's count is right
        assert max(source.held_or_asked if runner.live else source.held, default=0) <= shape["window"]
    stats = run.stats
    assert stats.delivered == len(expected)
    if ends is None:
        assert stats.pulled == length
        assert stats.skipped == length - len(expected)
        assert stats.retried == sum(call.attempts.values()) - length
        assert set(call.attempts) == set(range(length))
    assert next(run, "over") == "over"
    runner.end()


@each_driver
@half_as_often
@given(length=LENGTHS, taken=st.integers(0, 25), shape=shapes(), pauses=PAUSES, how=st.sampled_from(["close", "drop"]))
def test_g13_a_run_that_is_left_early_calls_nothing_twice_and_leaves_the_source_open(
    driver, length, taken, shape, pauses, how
):
    runner = Runner(driver)
    call, source = Call({}, pauses), iter(range(length))
    run = runner.map(call, source, **had(driver, shape))
    assert list(itertools.islice(run, taken)) == list(range(0, 2 * min(taken, length), 2))
    if how == "close":
        run.close()
        pulled = run.stats.pulled
        called = dict(call.attempts)
        assert set(called.values()) <= {1}
        assert min(taken, length) <= len(called) <= pulled
        assert next(source, length) == pulled
        assert dict(call.attempts) == called
    else:
        del run
    runner.end()
    assert set(call.attempts.values()) <= {1}


@given(
    length=st.integers(0, 60),
    shape=shapes(),
    workers=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    policy=st.sampled_from(["skip", "return"]),
    errors=st.sets(st.integers(0, 60), max_size=8),
)
def test_g01_calls_may_be_taken_from_the_queue_in_any_order(length, shape, workers, seed, policy, errors):
    def call(i):
        if i in errors:
            raise Oops(i)
        return 2 * i

    with ExitStack() as stack:
        executor = DuckExecutor(stack, workers, seed)
        run = ordered_map(call, range(length), executor=executor, on_error=policy, **shape)
        results = [f"failure {result.index}" if type(result) is Failure else result for result in run]
    expected = [f"failure {i}" if i in errors else 2 * i for i in range(length)]
    assert results == [value for value in expected if policy == "return" or type(value) is int]


@given(lengths=st.lists(st.integers(0, 12), min_size=1, max_size=5), shape=shapes(), strict=st.booleans())
def test_g01_several_sources_are_zipped_as_zip_does(lengths, shape, strict):
    def collected(pairs):
        results = []
        try:
            for pair in pairs:
                results.append(pair)
        except ValueError as error:
            return results, str(error).split("argument")[1:]
        return results, None

    run = ordered_map(lambda *args: args, *map(range, lengths), strict=strict, **shape)
    assert collected(run) == collected(zip(*map(range, lengths), strict=strict))


@given(
    outer=st.integers(1, 6),
    inner=st.integers(0, 12),
    workers=st.integers(1, 2),
    shape=shapes(),
    other=shapes(),
)
def test_g22_nested_runs_deliver_what_nested_maps_would(outer, inner, workers, shape, other):
    with ExitStack() as stack:
        executor = DuckExecutor(stack, workers)

        def call(i):
            return list(ordered_map(partial(max, i), range(inner), executor=executor, **other))

        run = ordered_map(call, range(outer), executor=executor, **shape)
        assert list(run) == [[max(i, j) for j in range(inner)] for i in range(outer)]
