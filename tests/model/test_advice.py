"""`Stats.advice`: each piece on a run that deserves it and on one that does not; and that following it gains what it says.

The runs are real ones, in virtual time: asyncio runs whose sleeps cost nothing and are exact. So a gain is one number
divided by another, the same on every machine.
"""

import asyncio
import pickle
import random
import re

import pytest

from inturn import Stats, ordered_amap, ordered_map
from inturn._model.advice import Advice, pieces
from virtual_time import run_virtually, virtual


def trial(count=200, call=0.1, body=0.0, source=0.0, blocking=0.0, **options):
    """The stats of a run of so many items.

    `call`, `body` (of the loop) and `source` are seconds per item; `blocking` is a source that is not async, which
    holds up the loop. `call` may be a function of the item.
    """

    async def fn(i):
        await asyncio.sleep(call(i) if callable(call) else call)

    async def slowly():
        for i in range(count):
            await asyncio.sleep(source)
            yield i

    def blocks():
        for i in range(count):
            asyncio.get_running_loop()._virtual.now += blocking
            yield i

    async def main():
        items = slowly() if source else blocks() if blocking else range(count)
        async with virtual(ordered_amap(fn, items, **options)) as run:
            async for _ in run:
                await asyncio.sleep(body)
        return run.stats

    return run_virtually(main())


def first(stats):
    found = pieces(stats)
    return found[0] if found else None


def about(stats):
    return {piece.about for piece in pieces(stats)}


def numbers(piece):
    """What it says to set: ``{"window": 46}``."""
    return {name: int(value) for name, value in re.findall(r"(?:use|and) (\w+)=(\d+)", piece.text)}


def gains(before, after, piece):
    """Whether following the advice gains what it said, within a fifth."""
    gain = before.elapsed / after.elapsed
    assert 0.8 * piece.gain <= gain <= 1.2 * piece.gain, (gain, piece, before, after)


def now_and_then(every, long, short=0.1):
    return lambda i: long if i % every == 0 else short


def spread(seed, mean=0.1):
    return lambda i: random.Random(seed * 10_000 + i).expovariate(1 / mean)


# ---- window --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("concurrency", "call"),
    [
        (4, now_and_then(20, 2.0)),
        (4, now_and_then(25, 1.0)),
        (8, now_and_then(60, 3.0)),
        (8, spread(1)),
        (16, spread(2)),
    ],
    ids=["20", "25", "60", "spread-8", "spread-16"],
)
def test_a_window_that_is_full_behind_slow_items(concurrency, call):
    settings = {"concurrency": concurrency, "call": call, "count": 600}
    before = trial(**settings)
    piece = first(before)
    assert piece.about == "window"
    after = trial(**settings, **numbers(piece))
    gains(before, after, piece)
    assert "window" not in about(after)


def test_a_window_is_wide_enough_where_calls_take_equally_long():
    assert "window" not in about(trial(concurrency=4, window=8))
    assert "window" not in about(trial(concurrency=4, window=64, call=now_and_then(20, 2.0)))


# ---- workers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [0.1, spread(3)], ids=["equal", "spread"])
def test_workers_that_are_always_busy(call):
    settings = {"call": call, "count": 600}
    before = trial(**settings, concurrency=4, window=100)
    piece = first(before)
    assert piece.about == "workers"
    gains(before, trial(**settings, **{"window": 200, **numbers(piece)}), piece)


def test_workers_that_are_not_always_busy_need_no_company():
    assert "workers" not in about(trial(concurrency=4, body=0.1))
    assert "workers" not in about(trial(concurrency=4, source=0.1))
    assert "workers" not in about(trial(concurrency=4, call=now_and_then(20, 2.0)))


# ---- consumer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "body"), [(0.1, 0.1), (0.1, 0.05), (0.02, 0.1)])
def test_a_body_of_the_loop_that_takes_longer_than_everything_else(call, body):
    before = trial(concurrency=4, call=call, body=body)
    piece = first(before)
    assert piece.about == "consumer"
    gains(before, trial(concurrency=4, call=call + body), piece)


def test_a_body_of_the_loop_that_the_workers_keep_up_with():
    assert "consumer" not in about(trial(concurrency=4, call=0.1, body=0.01))
    assert "consumer" not in about(trial(concurrency=4, call=0.1))


def test_what_next_takes_is_no_work_of_the_consumers():
    """Handing over tiny items takes time, too: else it would be told to have less in its body."""
    now = [0.0]

    def ticks():  # each time somebody looks
        now[0] += 1.0
        return now[0]

    run = ordered_map(abs, range(50), executor="serial")
    run._run.job.clock = ticks
    for _ in run:
        now[0] += 100.0
    body = run.stats._measured["body"]
    assert 50 * 100 <= body <= 50 * 102
    assert body < run.stats.elapsed - 50


# ---- source --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "body"), [(0.1, 0.0), (0.1, 0.02), (0.01, 0.0)])
def test_a_source_that_takes_longer_than_everything_else(call, body):
    before = trial(concurrency=4, call=call, body=body, source=0.1)
    piece = first(before)
    assert piece.about == "source"
    assert "move what it does for each item into fn" in piece.text
    gains(before, trial(concurrency=4, call=call, body=body), piece)


@pytest.mark.parametrize(("call", "body"), [(0.1, 0.05), (0.2, 0.1), (0.1, 0.1)])
def test_a_source_that_is_read_while_nothing_is_delivered(call, body):
    before = trial(concurrency=4, call=call, body=body, blocking=0.05)
    piece = next(piece for piece in pieces(before) if piece.about == "source")
    assert "use live=True" in piece.text
    gains(before, trial(concurrency=4, call=call, body=body, source=0.05), piece)


def test_a_source_that_is_read_while_others_work():
    assert "source" not in about(trial(concurrency=4, source=0.02))
    assert "source" not in about(trial(concurrency=4))
    assert "source" not in about(trial(concurrency=4, blocking=0.001))


# ---- batching, limit: from numbers ---------------------------------------------------------------


def stats_of(*, elapsed=10.0, work=10.0, calls=1000, throttled=0.0, head=None, source=0.0, consumer=0.0, **measured):
    known = {
        "title": "work", "kind": "thread", "concurrency": 4, "window": 8, "chunksize": None, "ahead": False, "body": 0.0,
        "pulling": source, "idle_behind_head": 0.0, "longest": work / calls, "computed": 0.0, "cpus": 2, "gil": True,
        "above": None,
    }  # fmt: skip
    seen = {**known, **measured}
    values = dict.fromkeys(
        ("total", "pulled", "running", "waiting", "delivered", "failed", "skipped", "retried", "abandoned"), 0
    )
    stats = Stats(
        **values,
        elapsed=elapsed,
        busy=work / (elapsed * seen["concurrency"]),
        blocked_on_head=elapsed - source if head is None else head,
        blocked_on_source=source,
        blocked_on_consumer=consumer,
        throttled=throttled,
        measured=seen,
    )
    stats.delivered = calls
    return stats


def test_calls_that_take_less_than_handing_them_over():
    tiny = stats_of(elapsed=2.0, work=0.2, calls=100_000)
    [piece] = pieces(tiny)
    assert piece.about == "batching"
    assert "a call takes 2 µs" in piece.text
    assert "use a plain map" in piece.text
    assert piece.gain == pytest.approx(10)
    [piece] = pieces(stats_of(elapsed=2.0, work=0.2, calls=100_000, chunksize=1))
    assert "leave out chunksize=1" in piece.text


def test_calls_that_take_long_enough():
    assert "batching" not in about(stats_of(elapsed=2.0, work=7.0, calls=100))
    assert "batching" not in about(trial(concurrency=4))


@pytest.mark.parametrize(("limit", "call"), [(10.0, 0.1), (30.0, 0.1), (10.0, 0.3)])
def test_a_rate_limit_that_is_lifted_gains_what_was_said(limit, call):
    before = trial(concurrency=4, limit=limit, call=call)
    piece = first(before)
    assert piece.about == "limit"
    gains(before, trial(concurrency=4, call=call), piece)
    assert "window" not in about(before)


def test_a_rate_limit_that_calls_hardly_meet():
    assert "limit" not in about(trial(concurrency=4, limit=1000.0))


def test_a_rate_limit_that_holds_calls_back():
    limited = stats_of(elapsed=10.0, work=4.0, throttled=8.0)
    piece = first(limited)
    assert piece.about == "limit"
    assert piece.gain == pytest.approx(5)
    assert "waited 8 s of 10 s" in piece.text
    assert "limit" not in about(stats_of(elapsed=10.0, work=39.0, throttled=0.5))
    assert "workers" not in about(stats_of(elapsed=10.0, work=39.0, throttled=5.0))


def test_threads_that_compute_are_told_of_processes():
    piece = first(stats_of(elapsed=10.0, work=39.0, computed=9.8))
    assert 'use executor="process", concurrency=2' in piece.text
    assert piece.gain == pytest.approx(10 / 4.95)  # a twentieth of a second for the start of processes
    assert "process" not in first(stats_of(elapsed=10.0, work=39.0, computed=2.0)).text
    assert "process" not in first(stats_of(elapsed=10.0, work=39.0, computed=9.8, gil=False)).text


def test_processes_are_never_more_than_there_are_processors():
    piece = first(stats_of(elapsed=10.0, work=19.0, kind="process", concurrency=2, cpus=3))
    assert numbers(piece)["concurrency"] == 3
    assert pieces(stats_of(elapsed=10.0, work=19.0, kind="process", concurrency=2, cpus=2)) == []


def test_calls_that_run_one_at_a_time_are_told_of_threads():
    clock = [0.0]

    def call(i):
        clock[0] += 0.1

    run = ordered_map(call, range(50), executor="serial")
    run._run.job.clock = lambda: clock[0]
    for _ in run:
        pass
    piece = first(run.stats)
    assert 'use executor="thread", concurrency=4' in piece.text
    assert piece.gain == pytest.approx(4)


# ---- chains --------------------------------------------------------------------------------------


def chain(one, two, **options):
    def stage(seconds):
        async def fn(i):
            await asyncio.sleep(seconds)
            return i

        return fn

    async def main():
        fetched = virtual(ordered_amap(stage(one), range(200), concurrency=4, name="fetch", **options))
        parsed = virtual(ordered_amap(stage(two), fetched, concurrency=4, name="parse"))
        async with fetched, parsed:
            async for _ in parsed:
                pass
        return parsed.stats

    return run_virtually(main())


def test_the_stage_that_holds_the_others_back_is_named():
    first_is_slow = chain(0.4, 0.1)
    piece = first(first_is_slow)
    assert (piece.about, piece.stage) == ("workers", "fetch")
    assert first_is_slow.advice.startswith("workers: stage 'fetch' holds the others back: they were busy")
    gain = first_is_slow.elapsed / chain(0.2, 0.1).elapsed  # as twice as many workers
    assert 0.8 * piece.gain <= gain <= 1.2 * piece.gain
    second = first(chain(0.1, 0.4))
    assert (second.about, second.stage) == ("workers", None)


def test_a_stage_that_has_ended_can_be_asked_by_the_next():
    two = ordered_map(abs, ordered_map(abs, range(9)))
    assert list(two) == [*range(9)]
    assert two.stats._measured["above"].delivered == 9


# ---- as text -------------------------------------------------------------------------------------


def test_advice_is_a_line_for_each_thing_with_the_greatest_gain_first():
    stats = trial(concurrency=4, call=now_and_then(20, 2.0))
    lines = stats.advice.splitlines()
    assert len(lines) == len(pieces(stats))
    assert re.fullmatch(
        r"window: it was full \(window=8\) behind a slow item, and workers were idle, \d+% of their time; use "
        r"window=\d+\. Expect about [\d.]+ times the speed \([\d.]+ s instead of [\d.]+ s\)\.",
        lines[0],
    )
    found = [piece.gain for piece in pieces(stats)]
    assert found == sorted(found, reverse=True)


def test_nothing_is_said_of_a_run_that_has_not_begun_or_hardly():
    run = ordered_map(abs, range(9))
    assert run.stats.advice == "Nothing to say: the run has not begun."
    next(run)
    run.close()
    assert "too few to tell" in run.stats.advice or "batching" in run.stats.advice
    assert "Nothing to say" in trial(count=3, concurrency=4).advice


def test_a_run_that_is_as_fast_as_can_be_is_told_so():
    stats = trial(concurrency=4, source=0.026)
    assert pieces(stats) == []
    assert stats.advice.startswith("Nothing to change: no single change makes this run a tenth faster")


def test_advice_survives_a_pickle():
    stats = trial(concurrency=4)
    copy = pickle.loads(pickle.dumps(stats))
    assert copy.advice == stats.advice
    assert type(pieces(copy)[0]) is Advice
