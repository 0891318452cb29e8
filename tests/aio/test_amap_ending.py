"""How an `ordered_amap` ends: every call is cancelled and awaited, its cleanup included, whoever ends the run."""

import asyncio
import gc
import signal
import sys

import pytest

from coroutines import Calls
from event_loops import Steps, settled, virtual
from functions_for_workers import Oops
from inturn import ordered_amap, retry
from virtual_time import virtual as virtual_run


async def begun(calls, results, count=3):
    """A task that awaits the first result, once so many calls have begun."""
    head = asyncio.create_task(anext(results))
    await calls.steps.wait(count)
    return head


# ---- who ends it ---------------------------------------------------------------------------------


def test_g30_aclose_cancels_and_awaits_every_call_with_its_cleanup(run):
    async def main():
        calls = Calls()
        results = ordered_amap(calls, range(10), concurrency=3)
        head = await begun(calls, results)
        await results.aclose()
        assert calls.ended == 3
        with pytest.raises(StopAsyncIteration):
            await head
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        assert len(calls.steps.seen) == 6

    run(main)


def test_g13_nothing_runs_after_aclose_though_a_call_ended_just_before_it(run):
    """A task that has ended calls back a turn of the loop later."""

    async def main():
        future = asyncio.get_running_loop().create_future()
        results = ordered_amap(lambda x: asyncio.shield(future), [0])
        head = asyncio.create_task(anext(results))
        await settled()
        future.set_result(None)
        for _ in range(4):
            await asyncio.sleep(0)
            if results.stats.running == 0 or all(task.done() for task in results._tasks()):
                break
        await results.aclose()
        assert results.stats.running == 0
        await asyncio.wait([head])
        head.exception()

    run(main)


@pytest.mark.parametrize("how", ["error in the body", "break", "return"])
def test_g30_leaving_async_with_cancels_and_awaits(run, how):
    async def main():
        calls = Calls()

        async def fn(x):
            return x if x == 0 else await calls(x)

        async def body():
            async with ordered_amap(fn, range(10), concurrency=3) as results:
                async for _ in results:
                    await calls.steps.wait(2)
                    if how == "error in the body":
                        raise Oops
                    if how == "return":
                        return
                    break

        try:
            await body()
        except Oops:
            assert how == "error in the body"
        assert calls.ended >= 2
        assert calls.ended * 2 == len(calls.steps.seen)

    run(main)


def test_g30_cancelling_the_consumer_cancels_and_awaits(run):
    async def main():
        calls = Calls()
        results = ordered_amap(calls, range(10), concurrency=3)
        head = await begun(calls, results)
        head.cancel()
        with pytest.raises(asyncio.CancelledError):
            await head
        assert calls.ended == 3
        with pytest.raises(StopAsyncIteration):
            await anext(results)

    run(main)


def test_g30_a_time_limit_around_the_loop_is_told_from_others(run):
    async def main():
        calls = Calls()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:

                async def expire():
                    await calls.steps.wait(3)
                    limit.reschedule(0.0)

                expiring = asyncio.create_task(expire())
                async for _ in ordered_amap(calls, range(10), concurrency=3):
                    pass
        await expiring
        assert calls.ended == 3
        assert not asyncio.current_task().cancelling()

    run(main)


def test_g30_an_error_cancels_and_awaits_before_it_is_raised(run):
    async def main():
        calls = Calls()

        async def fn(x):
            if x == 0:
                await calls.steps.wait(2)
                raise Oops
            await calls(x)

        results = ordered_amap(fn, range(10), concurrency=3)
        with pytest.raises(Oops):
            await anext(results)
        assert calls.ended == 2

    run(main)


def test_g18_the_deadline_cancels_and_awaits_before_it_is_raised(run):
    async def main():
        calls = Calls()
        results = ordered_amap(calls, range(10), concurrency=3, deadline=0.02)
        with pytest.raises(TimeoutError, match="deadline=0.02"):
            await anext(results)
        assert calls.ended * 2 == len(calls.steps.seen)  # of those that had begun

    run(main)


def test_g18_the_deadline_ends_as_many_calls_as_have_begun_in_virtual_time():
    async def main():
        calls = Calls()
        with pytest.raises(TimeoutError, match="deadline"):
            await anext(ordered_amap(calls, range(10), concurrency=3, deadline=1))
        assert calls.ended == 3

    virtual(main)


def test_g18_results_that_are_ready_are_delivered_after_the_deadline():
    async def main():
        async def fn(x):
            if x == 3:
                await asyncio.Event().wait()
            return x

        results = virtual_run(ordered_amap(fn, range(4), deadline=2))
        assert await anext(results) == 0
        await asyncio.sleep(5)
        assert [await anext(results), await anext(results)] == [1, 2]
        with pytest.raises(TimeoutError):
            await anext(results)

    virtual(main)


def test_g16_aclose_may_be_called_twice_and_by_two_tasks_at_once(run):
    async def main():
        calls = Calls(cleanup=5)
        results = ordered_amap(calls, range(10), concurrency=3)
        head = await begun(calls, results)
        await asyncio.gather(results.aclose(), results.aclose())
        assert calls.ended == 3
        await results.aclose()
        await asyncio.wait([head])
        assert isinstance(head.exception(), StopAsyncIteration)

    run(main)


def test_g16_aclose_before_the_first_anext(run):
    async def main():
        results = ordered_amap(Calls(), iter([1]))
        await results.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(results)

    run(main)


@pytest.mark.parametrize("wait", [False, True])
def test_g16_aclose_from_fn_does_not_wait_for_itself(run, wait):
    async def main():
        ended = []

        async def fn(x):
            try:
                if x == 1:
                    if wait:
                        await asyncio.sleep(0)
                    await results.aclose()
                await asyncio.Event().wait()
            finally:
                ended.append(x)

        results = ordered_amap(fn, range(10), concurrency=3)
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        assert 1 in ended
        assert len(ended) <= 3

    run(main)


def test_g16_aclose_from_a_child_task_of_fn_and_from_the_source(run):
    async def main():
        async def fn(x):
            await asyncio.create_task(results.aclose())
            await asyncio.Event().wait()

        results = ordered_amap(fn, range(3))
        with pytest.raises(StopAsyncIteration):
            await anext(results)

        async def items():
            yield 1
            await others.aclose()
            yield 2

        others = ordered_amap(Calls(), items())
        with pytest.raises(StopAsyncIteration):
            await anext(others)

    run(main)


def test_g13_items_not_started_never_start(run):
    async def main():
        calls = Calls()
        async with ordered_amap(calls, range(100), concurrency=3, window=50) as results:
            head = await begun(calls, results)
        assert [x for name, x in calls.steps.seen if name == "began"] == [0, 1, 2]
        await asyncio.wait([head])
        head.exception()

    run(main)


# ---- cancelling again, and what cleanup may do ---------------------------------------------------


@pytest.mark.parametrize("how", ["anext", "aclose"])
def test_g30_further_cancellations_leave_every_cleanup_to_its_end_and_are_raised_then(run, how):
    async def main():
        calls = Calls(cleanup=1000)
        results = ordered_amap(calls, range(10), concurrency=3)
        head = await begun(calls, results)
        waiting = head if how == "anext" else asyncio.create_task(results.aclose())
        await settled()
        for _ in range(3):
            waiting.cancel()
            await settled()
            assert not waiting.done()
            assert calls.ended == 0
        await asyncio.wait([waiting, head])
        assert waiting.cancelled()
        assert calls.ended == 3
        assert not calls.cut_short
        if how == "aclose":
            assert isinstance(head.exception(), StopAsyncIteration)

    run(main)


@pytest.mark.parametrize("how", ["aclose twice", "error and aclose", "dropped"])
def test_g30_calls_and_an_async_source_are_cancelled_once(run, how):
    async def main():
        calls, ended, fail = Calls(cleanup=100), [], asyncio.Event()

        async def items():
            try:
                yield 0
                yield 1
                yield 2
                await asyncio.Event().wait()
            finally:
                for _ in range(100):
                    await asyncio.sleep(0)
                ended.append("source")

        async def fn(x):
            if x == 0:
                await fail.wait()
                raise Oops
            await calls(x)

        results = ordered_amap(fn, items(), concurrency=3)
        head = await begun(calls, results, 2)
        await settled()
        if how == "aclose twice":
            await asyncio.gather(results.aclose(), results.aclose())
        elif how == "error and aclose":
            fail.set()
            await settled()  # the cleanup has begun
            await results.aclose()
        else:
            head.cancel()
            with pytest.raises(asyncio.CancelledError):
                await head
            del results, head
            gc.collect()
        assert ended == ["source"]
        assert not calls.cut_short
        assert calls.ended == 2
        if how != "dropped":
            await asyncio.wait([head])
            head.exception()

    run(main)


def test_g30_a_call_that_drops_its_own_run_is_cancelled_once(run):
    async def main():
        calls, runs = Calls(cleanup=100), []

        async def fn(x):
            if x == 2:
                runs.clear()
            return x if x == 0 else await calls(x)

        async def source():
            yield 0
            yield 1
            await calls.steps.wait(1)
            yield 2

        runs.append(ordered_amap(fn, source(), concurrency=3))
        assert await anext(runs[0]) == 0
        with pytest.warns(ResourceWarning, match="unclosed"):
            await calls.steps.wait(2)
        await calls.steps.wait(4)
        assert not calls.cut_short
        await settled()

    run(main)


@pytest.mark.parametrize("error", [Oops, SystemExit, KeyboardInterrupt])
def test_g30_what_a_call_raises_while_it_is_cancelled_is_dropped(run, error):
    async def main():
        steps = Steps()

        async def fn(x):
            try:
                steps.add(x)
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                raise error

        async with ordered_amap(fn, range(10), concurrency=3) as results:
            head = asyncio.create_task(anext(results))
            await steps.wait(3)
        await asyncio.wait([head])
        assert isinstance(head.exception(), StopAsyncIteration)

    run(main)


def test_g30_a_call_that_swallows_the_cancellation_is_awaited_to_its_end(run):
    async def main():
        steps, gate = Steps(), asyncio.Event()

        async def fn(x):
            steps.add(x)
            while not gate.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    steps.add("swallowed")
            steps.add("ended")
            return x

        results = ordered_amap(fn, range(10), concurrency=2)
        head = asyncio.create_task(anext(results))
        await steps.wait(2)
        closing = asyncio.create_task(results.aclose())
        await steps.wait(4)
        await settled()
        assert not closing.done()
        gate.set()
        await closing
        assert steps.seen.count("ended") == 2
        with pytest.raises(StopAsyncIteration):
            await head

    run(main)


def test_g30_a_pause_before_a_retry_ends_with_the_run(run):
    async def main():
        began = Steps()

        async def fn(x):
            began.add(x)
            raise Oops

        async with ordered_amap(fn, range(3), on_error=retry(attempts=2, backoff=1000)) as results:
            head = asyncio.create_task(anext(results))
            await began.wait(3)
            await settled()
            assert results.stats.running == 0
        with pytest.raises(StopAsyncIteration):
            await head

    run(main)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="later Pythons start tasks eagerly")
@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal")
def test_g16_a_handler_that_raises_in_a_turn_of_the_pump_ends_the_run():
    def interrupt(frame, event, called):
        if event == "c_return" and called.__name__ == "remove_done_callback" and frame.f_code.co_name == "_turn":
            sys.setprofile(None)
            signal.raise_signal(signal.SIGUSR1)

    def handler(*_):
        raise Oops

    async def call(x):
        await asyncio.sleep(0)
        return x

    async def main():
        run = ordered_amap(call, range(40), concurrency=4)
        sys.setprofile(interrupt)
        with pytest.raises(Oops):
            async for _ in run:
                pass
        await run.aclose()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        asyncio.run(main())
    finally:
        sys.setprofile(None)
        signal.signal(signal.SIGUSR1, before)
