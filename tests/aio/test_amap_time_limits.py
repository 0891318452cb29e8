"""`ordered_amap`: `timeout` and `deadline`."""

import asyncio
import itertools

import pytest

from event_loops import Steps, collect, settled, virtual
from functions_for_workers import Oops
from inturn import Failure, ordered_amap, retry
from inturn._aio.events import LoopEvent
from virtual_time import virtual as virtual_run
from waiting import SHORT, Watch

# ---- time limits ---------------------------------------------------------------------------------


def test_g17_a_call_that_takes_too_long_is_cancelled_and_fails_in_its_turn():
    async def main():
        loop, ended = asyncio.get_running_loop(), []

        async def fn(x):
            try:
                await asyncio.sleep(100 if x == 1 else 1)
            finally:
                ended.append((x, loop.time()))
            return x

        got = await collect(ordered_amap(fn, range(4), concurrency=2, timeout=5, on_error="return"))
        assert [x if isinstance(x, int) else type(x.error) for x in got] == [0, TimeoutError, 2, 3]
        assert str(got[1].error) == "the call took longer than timeout=5 s"
        assert isinstance(got[1].error.__cause__, asyncio.CancelledError)
        assert (1, pytest.approx(5, abs=0.5)) in ended

    virtual(main)


def test_g17_the_clock_starts_when_the_call_starts():
    async def main():
        async def fn(x):
            await asyncio.sleep(2)
            return x

        results = ordered_amap(fn, range(5), concurrency=1, timeout=3)
        got = []
        async with results:
            async for result in results:
                await asyncio.sleep(10)
                got.append(result)
        assert got == [*range(5)]

    virtual(main)


WEEKS = 3e6  # seconds; longer than an event loop is asked to wait at once


def test_g17_a_limit_of_weeks_is_not_over_before():
    async def main():
        async def fn(x):
            await asyncio.sleep(WEEKS)
            return x

        assert await collect(ordered_amap(fn, range(3), timeout=WEEKS + 1)) == [0, 1, 2]
        got = await collect(ordered_amap(fn, range(1), timeout=WEEKS - 1, on_error="return"))
        assert isinstance(got[0].error, TimeoutError)

    virtual(main)


def test_g17_a_pause_of_weeks_is_not_over_before():
    async def main():
        begun = []

        async def fn(x):
            begun.append(asyncio.get_running_loop().time())
            raise Oops(x)

        policy = retry(2, backoff=WEEKS, max_backoff=WEEKS, jitter=False, then="skip")
        assert await collect(ordered_amap(fn, range(1), on_error=policy)) == []
        assert begun[1] - begun[0] >= WEEKS

    virtual(main)


def test_an_event_waits_for_weeks():
    async def main():
        loop = asyncio.get_running_loop()
        event, begun = LoopEvent(), loop.time()
        assert not await event.wait(WEEKS)
        assert loop.time() - begun >= WEEKS
        loop.call_later(WEEKS, event.set)
        assert await event.wait(2 * WEEKS)

    virtual(main)


def test_g17_its_own_time_limit_is_told_from_one_that_fn_raises(run):
    async def main():
        async def fn(x):
            raise TimeoutError("fn's own")

        (failure,) = await collect(ordered_amap(fn, [1], timeout=1000, on_error="return"))
        assert str(failure.error) == "fn's own"

    run(main)


@pytest.mark.parametrize("then", ["returns", "raises", "returns at once"])
def test_g17_it_fails_whatever_the_call_makes_of_its_cancellation(then):
    async def main():
        async def fn(x):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                if then != "returns at once":
                    await asyncio.sleep(0.1)
                if then == "raises":
                    raise Oops from None
                return x

        (failure,) = await collect(ordered_amap(fn, [1], timeout=5, on_error="return"))
        assert type(failure.error) is TimeoutError
        assert type(failure.error.__cause__) is (Oops if then == "raises" else type(None))

    virtual(main)


def test_g17_a_call_that_does_not_heed_its_cancellation_is_given_up_and_still_awaited_in_the_end():
    async def main():
        loop, steps = asyncio.get_running_loop(), Steps()

        async def fn(x):
            if x != 1:
                await asyncio.sleep(1)
                return x
            for _ in range(2):
                try:
                    await asyncio.sleep(50)
                except asyncio.CancelledError:
                    steps.add("swallowed")
            steps.add("ended")

        async with ordered_amap(fn, range(10), concurrency=2, timeout=5, on_error="skip") as results:
            assert [x async for x in results] == [0, 2, 3, 4, 5, 6, 7, 8, 9]
            assert results.stats.abandoned == 1
            assert results.stats.failed == 1
        assert steps.seen == ["swallowed", "swallowed", "ended"]  # by the time limit, and by the end of the run
        assert loop.time() < 20

    virtual(main)


@pytest.mark.parametrize("heeds", [True, False])
def test_g17_g30_a_call_that_its_time_limit_has_cancelled_has_its_grace_period_when_the_run_ends(heeds):
    async def main():
        steps = Steps()

        async def fn(x):
            steps.add("began")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                steps.add("cancelled")
                try:
                    await asyncio.sleep(0.25 if heeds else 100)  # half a second is granted
                except asyncio.CancelledError:
                    steps.add("cut short")
                    raise
                steps.add("cleaned up")

        results = ordered_amap(fn, [1], timeout=5)
        head = asyncio.create_task(anext(results))
        await steps.wait(2)
        await results.aclose()
        assert steps.seen == ["began", "cancelled", "cleaned up" if heeds else "cut short"]
        await asyncio.wait([head])
        assert isinstance(head.exception(), StopAsyncIteration)

    virtual(main)


def test_g17_a_time_limit_and_retries():
    async def main():
        attempts = []

        async def fn(x):
            attempts.append(x)
            await asyncio.sleep(100 if len(attempts) < 3 else 1)
            return x

        policy = retry(attempts=3, on=TimeoutError, backoff=1)
        assert await collect(ordered_amap(fn, [7], timeout=5, on_error=policy)) == [7]
        assert len(attempts) == 3

    virtual(main)


def test_g17_calls_that_return_at_once_under_a_time_limit(run):
    async def main():
        async def fn(x):
            return x

        assert await collect(ordered_amap(fn, range(200), timeout=1000)) == [*range(200)]

    run(main)


def test_g18_a_deadline_in_virtual_time():
    async def main():
        async def fn(x):
            await asyncio.sleep(x)
            return x

        got = []
        with pytest.raises(TimeoutError, match="deadline"):
            async with virtual_run(ordered_amap(fn, itertools.count(), concurrency=1, deadline=8)) as results:
                async for result in results:
                    got.append(result)
        assert got == [0, 1, 2, 3]  # after six seconds; the fifth takes four

    virtual(main)


def test_g18_nothing_is_started_after_the_deadline_while_the_consumer_is_away(run):
    async def main():
        begun, gates = Steps(), [asyncio.Event() for _ in range(3)]

        async def fn(x):
            begun.add(x)
            await gates[x].wait()
            return x

        gates[0].set()
        async with ordered_amap(fn, range(3), concurrency=1, window=3, deadline=SHORT) as results:
            assert await anext(results) == 0
            await begun.wait(2)
            await asyncio.sleep(SHORT)  # past the deadline
            gates[1].set()
            await settled()
            assert begun.seen == [0, 1]
            gates[2].set()
            with pytest.raises(TimeoutError, match="deadline"):
                assert await anext(results) == 1
                await anext(results)
        assert begun.seen == [0, 1]

    run(main)


def test_a_failure_from_a_time_limit_carries_the_seconds(run):
    async def main():
        async def fn(x):
            await asyncio.Event().wait()

        with Watch() as watch:
            (failure,) = await collect(ordered_amap(fn, [1], timeout=0.02, on_error="return"))
        assert isinstance(failure, Failure)
        assert 0.0198 <= failure.elapsed <= watch.seconds

    run(main)
