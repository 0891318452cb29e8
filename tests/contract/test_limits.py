"""Guarantee 34: `limit`, on every driver. What the limiter allows is tested in `model/test_limit.py`, in virtual time."""

import asyncio
import itertools
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coroutines import double as double_async
from functions_for_workers import double, fail_at
from inturn import (
    Limiter,
    Retry,
    ordered_aflat_map,
    ordered_amap,
    ordered_flat_map,
    ordered_gather,
    ordered_map,
    retry,
)
from inturn._base.atomic import GIL
from inturn._model.limit import Turn
from inturn.testing import schedules
from waiting import HOUR, SHORT, Background, Gate, Source, Tally, Watch, assert_waiting_costs_nothing, wait_until

RATE = 100
ONCE_AN_HOUR = 1 / HOUR


def paused(seconds: float = HOUR) -> Limiter:
    limiter = Limiter(1000)
    limiter.pause(seconds)
    return limiter


# 34: how many start


@pytest.mark.parametrize("limit", [RATE, Limiter(RATE), np.float64(RATE)], ids=["number", "Limiter", "numpy"])
def test_g34_calls_start_at_the_rate_and_results_stay_in_order(driver, limit):
    with Watch() as watch:
        assert list(driver.map(double, range(12), limit=limit)) == [2 * i for i in range(12)]
    assert watch.seconds >= 11 / RATE


def test_g34_a_burst_starts_at_once_and_then_nothing(driver):
    run = driver.map(double, itertools.count(), limit=Limiter(ONCE_AN_HOUR, burst=3))
    assert [next(run) for _ in range(3)] == [0, 2, 4]
    consumer = Background(next, run, "over")
    wait_until(lambda: run.stats.running == 0 and run.stats.throttled)
    assert run.stats.delivered == 3
    run.close()
    assert consumer.result() == "over"


def test_g34_nothing_starts_in_a_pause(inside):
    limiter, ends, starts = Limiter(1000), [], []

    def call(i):
        starts.append(time.perf_counter())
        if i == 2:
            ends.append(time.perf_counter() + SHORT / 3)  # at the earliest
            limiter.pause(SHORT / 3)
        return i

    assert list(inside.map(call, range(6), concurrency=1, limit=limiter)) == list(range(6))
    assert starts[3] >= ends[0] - 1e-6  # rounding


def test_g34_further_attempts_count(driver):
    policy = retry(attempts=4, backoff=0, then="skip")
    with Watch() as watch:
        run = driver.map(partial(fail_at, frozenset({0, 1})), range(4), on_error=policy, limit=RATE)
        assert list(run) == [4, 6]
    assert watch.seconds >= (4 + 6 - 1) / RATE
    assert run.stats.retried == 6


def test_g34_attempts_that_a_policy_asks_for_count(driver):
    with Watch() as watch:
        policy = lambda failure: Retry() if failure.attempt < 8 else "enough"
        assert list(driver.map(partial(fail_at, frozenset({0})), [0], on_error=policy, limit=RATE)) == ["enough"]
    assert watch.seconds >= 7 / RATE


# 34: what a call that waits for the limit is


def test_g34_a_call_that_waits_counts_in_window_but_occupies_no_worker(driver):
    source = Source(itertools.count())
    run = driver.map(double, source, window=7, limit=paused())
    consumer = Background(next, run, "over")
    if driver.driver.concurrent and not driver.live:
        source.begun.wait(7)
    wait_until(lambda: run.stats.throttled)
    assert run.stats.running == 0
    assert source.pulls <= 7
    run.close()
    assert consumer.result() == "over"


def test_g34_its_timeout_has_not_begun(refilling):
    assert list(refilling.map(double, range(3), timeout=SHORT, limit=paused(1.5 * SHORT))) == [0, 2, 4]


def test_g34_the_deadline_has_begun(kinds):
    run = kinds.map(double, range(3), deadline=SHORT / 3, limit=paused())
    with pytest.raises(TimeoutError, match="deadline"):
        next(run)


def test_g34_a_call_that_waits_costs_no_cpu(kinds):
    run = kinds.map(double, itertools.count(), limit=paused())
    consumer = Background(next, run, "over")
    wait_until(lambda: run.stats.throttled)
    assert_waiting_costs_nothing()
    run.close()
    assert consumer.result() == "over"


def test_g34_what_has_started_is_delivered_while_the_rest_waits(overlapping):
    limiter, stuck, started = Limiter(1000), Gate(), Tally()

    def call(i):
        started.add(i)
        if i == 0:
            stuck.wait()
        if i == 2:
            limiter.pause(HOUR)
        return i

    run = overlapping.map(call, itertools.count(), window=10, limit=limiter)
    consumer = Background(next, run)
    started.wait(3)
    stuck.open()
    assert [consumer.result(), next(run)] == [0, 1]
    run.close()


def test_g34_work_goes_on_while_the_consumer_is_away(overlapping):
    started = Tally()
    run = overlapping.map(started.add, range(8), window=8, limit=RATE)
    assert next(run) == 0
    started.wait(8)
    assert list(run) == list(range(1, 8))


def test_g34_a_dropped_run_leaves_the_queue_of_its_limiter(apart):
    limiter = paused()
    run = apart.map(double, itertools.count(), limit=limiter)
    consumer = Background(next, run, "over")
    wait_until(lambda: limiter._books.queue)
    run.close()
    consumer.result()
    assert not limiter._books.queue


# 34: shared limiters


def test_g34_runs_in_several_threads_and_loops_share_a_limiter():
    limiter = Limiter(RATE)

    def threads():
        return list(ordered_map(double, range(8), limit=limiter))

    def tasks():
        return asyncio.run(ordered_gather(double_async, range(8), limit=limiter))

    with Watch() as watch:
        consumers = [Background(each) for each in (threads, tasks, threads, tasks)]
        assert all(each.result() == [2 * i for i in range(8)] for each in consumers)
    assert watch.seconds >= 31 / RATE


def test_g34_a_run_may_use_the_limiter_of_the_run_around_it(overlapping):
    limiter = Limiter(10 * RATE)

    def outer(i):
        return sum(ordered_map(double, range(i), limit=limiter))

    assert list(overlapping.map(outer, range(5), limit=limiter)) == [0, 0, 2, 6, 12]


# 34: flat maps


FLAT = ["thread", "serial", "process"]


@pytest.mark.parametrize("executor", FLAT)
def test_g34_items_of_a_flat_map_start_at_the_rate(executor):
    with Watch() as watch:
        run = ordered_flat_map(range, [2] * 12, executor=executor, concurrency=4, limit=RATE)
        assert list(run) == [0, 1] * 12
    assert watch.seconds >= 11 / RATE


def fails_three_times(seen, item):
    seen.append(item)
    if seen.count(item) <= 3:
        raise OSError(item)
    yield item


@pytest.mark.parametrize("executor", ["thread", "serial"])
@pytest.mark.parametrize("policy", [retry(attempts=4, backoff=0), lambda failure: Retry()], ids=["retry", "policy"])
def test_g34_further_attempts_of_a_flat_map_count(executor, policy):
    with Watch() as watch:
        run = ordered_flat_map(
            partial(fails_three_times, []), range(2), executor=executor, on_error=policy, limit=RATE, concurrency=2
        )
        assert list(run) == [0, 1]
    assert watch.seconds >= 7 / RATE


def test_g34_an_async_flat_map_has_a_limit():
    attempts = []

    async def elements(item):
        attempts.append(item)
        if attempts.count(item) <= 3:
            raise OSError(item)
        yield item

    async def main():
        async with ordered_aflat_map(elements, range(2), on_error=retry(attempts=4, backoff=0), limit=RATE) as run:
            return [each async for each in run]

    with Watch() as watch:
        assert asyncio.run(main()) == [0, 1]
    assert watch.seconds >= 7 / RATE


@pytest.mark.parametrize("executor", ["thread", "serial"])
def test_g34_a_flat_map_that_waits_for_its_limit_closes_at_once(executor):
    run = ordered_flat_map(range, [2] * 12, executor=executor, limit=paused())
    consumer = Background(next, run, "over")
    wait_until(lambda: run.stats.throttled)
    run.close()
    assert consumer.result() == "over"


# 34: asyncio


def test_g34_an_async_run_that_waits_for_its_limit_ends_at_once():
    async def main():
        async with ordered_amap(double_async, itertools.count(), limit=paused()) as run:
            waiting = asyncio.create_task(anext(run, "over"))
            while not run.stats.throttled:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0)
            await run.aclose()
            assert await waiting == "over"
        other = ordered_amap(double_async, itertools.count(), limit=paused())
        waiting = asyncio.create_task(anext(other))
        while not other.stats.throttled:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())


# 34: what is told of it


def test_g34_stats_tell_how_long_the_limit_has_held_up_the_run(kinds):
    limiter = Limiter(1000)

    def source():
        limiter.pause(SHORT)  # only now: a busy machine may take long to begin
        yield from range(4)

    run = kinds.map(double, source(), limit=limiter)
    with Watch() as watch:
        assert list(run) == [0, 2, 4, 6]
    assert 0 < run.stats.throttled <= watch.seconds
    free = kinds.map(double, range(4), limit=Limiter(ONCE_AN_HOUR, burst=4))
    assert list(free) == [0, 2, 4, 6]
    assert free.stats.throttled <= (0 if GIL else run.stats.throttled / 2)  # without it, two threads may ask at once
    assert kinds.map(double, range(4)).stats.throttled == 0


class Bar:
    def __init__(self):
        self.postfix = []

    def update(self, n):
        pass

    def set_postfix(self, counts, refresh):
        self.postfix.append(counts)


def test_g34_the_progress_bar_shows_the_time():
    bar = Bar()
    assert list(ordered_map(double, range(4), limit=paused(SHORT / 2), progress=bar)) == [0, 2, 4, 6]
    assert bar.postfix[-1]["throttled"].endswith("s")
    assert "throttled" not in bar.postfix[0] or len(bar.postfix) > 1


# 34: bad input


@pytest.mark.parametrize(
    ("limit", "error", "words"),
    [
        (0, ValueError, "limit must be above 0"),
        (-1, ValueError, "limit must be a finite number"),
        (float("nan"), ValueError, "limit must be a finite number"),
        (True, TypeError, "limit must be a number of calls per second, a Limiter or None, got bool"),
        ("5", TypeError, "limit must be a number of calls per second, a Limiter or None, got str"),
        (Limiter, TypeError, "call it"),
    ],
)
def test_g34_a_limit_is_checked_at_the_call(limit, error, words):
    for function in (ordered_map, ordered_flat_map, ordered_amap, ordered_aflat_map):
        with pytest.raises(error, match=words):
            function(double_async if "_a" in function.__name__ else range, [1], limit=limit)
    with pytest.raises(error, match=words):
        asyncio.run(ordered_gather(double_async, [1], limit=limit))


def test_g34_chunks_cannot_be_combined_with_a_limit():
    with pytest.raises(ValueError, match="chunksize must be 1 or None with limit"):
        ordered_map(double, [1], limit=5, chunksize=2)
    assert list(ordered_map(double, [1], limit=5, chunksize=1)) == [2]


# 34: interrupts


class Interrupt(Exception):
    pass


@pytest.mark.parametrize("act", ["ask", "pause", "leave"])
def test_g34_a_signal_handler_that_raises_anywhere_in_it_leaves_a_limiter_that_works(act):
    """As if the handler raised at each line in turn."""
    for nth in itertools.count():
        limiter, turn, left = Limiter(1000, burst=50), Turn(), nth
        other = Turn()
        limiter._ask(other, time.perf_counter)

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_globals.get("__name__") in {"inturn._model.limit", "inturn._base.atomic"} and event == "line":
                left -= 1
                if left < 0:
                    raise Interrupt
            return trace

        calls = {
            "ask": lambda: limiter._ask(turn, time.perf_counter),
            "pause": lambda: limiter.pause(0),
            "leave": lambda: limiter._leave(turn),
        }
        before = sys.gettrace()
        try:
            sys.settrace(trace)
            calls[act]()
        except Interrupt:
            pass
        else:
            break
        finally:
            sys.settrace(before)
        done = threading.Event()
        taker = Background(lambda: [limiter._ask(other, time.perf_counter) for _ in range(40)] and done.set())
        taker.result()
        assert done.is_set()
        assert limiter._ask(turn, time.perf_counter) is None or act == "ask"
    assert nth > 1


# 34: in virtual time, whatever the order in which calls end


@given(schedules(), st.floats(0.5, 50), st.integers(1, 5), st.integers(1, 6))
def test_g34_a_schedule_keeps_to_the_limit_in_virtual_time(schedule, rate, burst, concurrency):
    limiter = Limiter(rate, burst=burst)
    run = ordered_map(double, range(12), executor=schedule, limit=limiter, concurrency=concurrency)
    assert list(run) == [2 * i for i in range(12)]
    starts = [event.time for event in schedule.events if event.what == "started"]
    gap = 1 / limiter.rate
    assert all(b - a >= gap * (1 - 1e-9) for a, b in zip(starts, starts[burst:], strict=False))
    assert starts[-1] <= (12 - burst) * gap * 1.03 + 1e-9 or burst >= 12  # nothing takes time but the limit
