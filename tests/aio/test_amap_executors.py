"""`ordered_amap` with an executor: plain functions run elsewhere, and the loop is never blocked."""

import asyncio
import contextvars
import gc
import itertools
import sys
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

import inturn
from event_loops import Steps, collect, run_in, settled, stream
from functions_for_workers import Oops, double
from inturn import Failure, Threads, ordered_amap, retry
from programs import COVERED
from waiting import HOUR, SHORT, Gate, Tally, Thing, farewell, wait_until

EXECUTORS = {
    "thread": lambda: "thread",
    "Threads": lambda: Threads(name="mine"),
    "callable": lambda: ThreadPoolExecutor,
    "serial": lambda: "serial",
}


@pytest.fixture(params=[*EXECUTORS, "borrowed"])
def executor(request):
    if request.param == "borrowed":
        with ThreadPoolExecutor(4) as pool:
            yield pool
    else:
        yield EXECUTORS[request.param]()


def processes():
    """`"process"`, where the library has it."""
    try:
        ordered_amap(double, [], executor="process")
    except ValueError:
        pytest.skip('executor="process" is not there yet')
    return "process"


async def beat(steps):
    while True:
        await asyncio.sleep(0)
        steps.add("beat")


@pytest.mark.parametrize("window", [1, 5, 100, None])
@pytest.mark.parametrize("source", [list, iter, stream])
def test_g32_results_come_in_input_order(run, executor, source, window):
    async def main():
        assert await collect(ordered_amap(double, source(range(100)), executor=executor, window=window)) == [
            *range(0, 200, 2)
        ]

    run(main)


def test_g32_tiny_calls_by_the_thousand(run, executor):
    async def main():
        assert await collect(ordered_amap(double, range(20_000), executor=executor)) == [*range(0, 40_000, 2)]

    run(main)


@pytest.mark.parametrize("name", ["thread", "Threads", "callable", "borrowed"])
def test_g32_the_loop_goes_on_while_calls_run_and_while_they_are_waited_for(run, name):
    async def main():
        gate, tally, steps = Gate(), Tally(), Steps()

        def fn(x):
            tally.add(x)
            if x:
                gate.wait()
            return x

        with ThreadPoolExecutor(4) as pool:
            results = ordered_amap(fn, range(10), executor=EXECUTORS.get(name, lambda: pool)(), concurrency=3)
            heart = asyncio.create_task(beat(steps))
            assert await anext(results) == 0
            head = asyncio.create_task(anext(results))
            await asyncio.to_thread(tally.wait, 3)
            await steps.wait(len(steps.seen) + 100)
            assert not head.done()
            closing = asyncio.create_task(results.aclose())
            await steps.wait(len(steps.seen) + 100)
            assert not closing.done()
            gate.open()
            await closing
            with pytest.raises(StopAsyncIteration):
                await head
            heart.cancel()
            await asyncio.wait([heart])

    run(main)


def test_g8_an_error_comes_in_its_turn_with_a_note(run, executor):
    def fn(x):
        if x == 5:
            raise Oops(x)
        return x

    async def main():
        got = []
        with pytest.raises(Oops) as caught:
            async with ordered_amap(fn, range(10), executor=executor) as results:
                async for result in results:
                    got.append(result)
        assert got == [*range(5)]
        assert caught.value.__notes__ == ["item 5: 5"]

    run(main)


@pytest.mark.parametrize("pause", [0, 0.01])
def test_g9_retries(run, executor, pause):
    async def main():
        seen = []

        def fn(x):
            seen.append(x)
            if seen.count(x) == 1:
                raise Oops
            return x

        policy = retry(attempts=2, backoff=pause)
        assert await collect(ordered_amap(fn, range(10), executor=executor, on_error=policy)) == [*range(10)]

    run(main)


def test_g17_a_time_limit_gives_the_thread_up(run):
    async def main():
        gate = Gate()

        def fn(x):
            if x == 1:
                gate.wait()
            return x

        got = await collect(ordered_amap(fn, range(4), executor="thread", timeout=SHORT, on_error="return"))
        assert [x if isinstance(x, int) else type(x.error) for x in got] == [0, TimeoutError, 2, 3]
        gate.open()

    run(main)


def test_g18_the_deadline_is_raised_at_once(run):
    async def main():
        gate = Gate()
        results = ordered_amap(lambda x: gate.wait(), range(4), executor="thread", deadline=0.02)
        with pytest.raises(TimeoutError, match="deadline"):
            await anext(results)
        assert not gate.is_open
        gate.open()
        await results.aclose()

    run(main)


async def waiting_for_two_threads():
    """A run with two calls in threads, which wait for the gate, and the task that waits for the head."""
    gate, tally = Gate(), Tally()

    def fn(x):
        tally.add(x)
        gate.wait()

    results = ordered_amap(fn, range(4), executor="thread", concurrency=2)
    head = asyncio.create_task(anext(results))
    await asyncio.to_thread(tally.wait, 2)
    return gate, tally, results, head


def test_g30_cancelling_the_consumer_does_not_wait_for_threads_but_aclose_does(run):
    async def main():
        gate, tally, results, head = await waiting_for_two_threads()
        head.cancel()
        await asyncio.wait([head])
        assert head.cancelled()
        closing = asyncio.create_task(results.aclose())
        await settled()
        assert not closing.done()
        gate.open()
        await closing
        assert len(tally) == 2

    run(main)


def test_g30_a_cancelled_aclose_leaves_the_threads_to_themselves(run):
    async def main():
        gate, tally, results, head = await waiting_for_two_threads()
        closing = asyncio.create_task(results.aclose())
        await settled()
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert isinstance(head.exception(), StopAsyncIteration)  # it has not waited, as little as in `ordered_map`
        gate.open()
        await results.aclose()

    run(main)


def test_g30_a_loop_that_shuts_down_waits_for_the_calls_of_an_open_run():
    tally = Tally()
    kept = []

    def fn(x):
        if x:
            time.sleep(0.2)  # a call in a thread cannot be cancelled
        tally.add(x)
        return x

    async def main():
        kept.append(ordered_amap(fn, range(100), executor="thread", concurrency=2))
        await anext(kept[0])

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("inturn")]
    assert len(tally) < 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        kept.clear()
        gc.collect()


def test_g13_dropped_unclosed_it_stops_and_says_so(run):
    async def main():
        gate = Gate()
        results = ordered_amap(lambda x: x and gate.wait(), range(4), executor="thread", concurrency=2)
        await anext(results)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del results
            gc.collect()
        gate.open()

    run(main)


@pytest.mark.parametrize("idle", [True, False])
def test_g13_g19_dropped_unclosed_it_shuts_down_the_executor_that_it_has_made(run, idle):
    async def main():
        gate, made, begun, shut = Gate(), [], Tally(), Gate()

        class Mine(ThreadPoolExecutor):
            def shutdown(self, *args, **settings):
                super().shutdown(*args, **settings)
                shut.open()

        def make(workers):
            made.append(Mine(workers))
            return made[-1]

        def fn(x):
            if x and not idle:
                begun.add(x)
                gate.wait()

        results = ordered_amap(fn, range(4), executor=make, concurrency=2, window=4)
        await anext(results)
        if not idle:
            await asyncio.to_thread(begun.wait, 2)
        while idle and results.stats.waiting < 3:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del results
            gc.collect()
        gate.open()
        await asyncio.to_thread(shut.wait)

    run(main)


def test_g12_g13_dropped_unclosed_it_releases_what_it_held_though_calls_go_on(run):
    async def main():
        gate, begun = Gate(), Tally()

        def fn(x):
            if x == 0:
                return x
            if x == 3:
                begun.add(x)
                wait_until(
                    lambda: gate.is_open
                )  # in Python: without the GIL, the thread that made a result also frees it
            things.append(farewell(thing := Thing(x)))
            return thing

        things = []
        results = ordered_amap(fn, range(4), executor="thread", concurrency=1, window=4)
        await anext(results)
        await asyncio.to_thread(begun.wait, 1)
        with pytest.warns(ResourceWarning, match="unclosed"):
            del results
        await asyncio.to_thread(things[0].wait)
        gate.open()

    run(main)


var = contextvars.ContextVar("var", default="none")


def test_g21_the_consumers_context_is_seen(run):
    async def main():
        def fn(x):
            before = var.get()
            var.set(x)
            return before

        var.set("consumer's")
        assert await collect(ordered_amap(fn, range(20), executor="thread", concurrency=2)) == ["consumer's"] * 20

    run(main)


def test_g22_runs_nest_on_one_executor_whose_workers_are_all_busy(run):
    async def main():
        with ThreadPoolExecutor(1) as pool:

            def fn(x):
                return asyncio.run(collect(ordered_amap(double, range(x), executor=pool)))

            assert await collect(ordered_amap(fn, range(4), executor=pool)) == [[*range(0, 2 * x, 2)] for x in range(4)]

    run(main)


def test_g7_work_goes_on_while_the_loop_is_blocked(run):
    async def main():
        tally, full = Tally(), Gate()

        def fn(x):
            if x == 0:
                full.wait()
            return tally.add(x)

        def items():
            for x in itertools.count():
                if x == 7:
                    full.open()
                yield x

        async with ordered_amap(fn, items(), executor="thread", concurrency=2, window=8) as results:
            assert await anext(results) == 0
            tally.wait(8)  # the consumer blocks the loop

    run(main)


def test_a_process_pool_of_the_users_streams_into_the_loop(run):
    async def main():
        with ProcessPoolExecutor(2) as pool:
            assert await collect(ordered_amap(double, range(50), executor=pool)) == [*range(0, 100, 2)]

    if sys.version_info >= (3, 12):
        pytest.skip("forks in a process that has threads, which warns")
    run(main)


def test_g32_processes_stream_into_the_loop():
    async def main():
        steps = Steps()
        heart = asyncio.create_task(beat(steps))
        assert await collect(ordered_amap(double, range(200), executor=processes(), concurrency=2)) == [
            *range(0, 400, 2)
        ]
        assert len(steps.seen) > 10
        heart.cancel()
        await asyncio.wait([heart])

    run_in(asyncio.new_event_loop, main)


def test_g30_processes_are_killed_when_the_run_is_closed():
    async def main():
        results = ordered_amap(time.sleep, [0, HOUR, HOUR], executor=processes(), concurrency=2)
        await anext(results)
        await results.aclose()  # does not wait for the calls

    run_in(asyncio.new_event_loop, main)


@pytest.mark.skipif(COVERED, reason="coverage puts a function that cannot be pickled in the place of os._exit")
def test_g24_a_process_that_dies_costs_its_item():
    import os

    async def main():
        results = ordered_amap(os._exit, [3], executor=processes(), on_error="return")
        (failure,) = await collect(results)
        assert isinstance(failure, Failure)
        assert isinstance(failure.error, inturn.WorkerDied)

    run_in(asyncio.new_event_loop, main)


@pytest.mark.parametrize("executor", ["thread", ThreadPoolExecutor])
def test_g32_a_function_in_an_executor_whose_first_result_is_a_coroutine_ends_the_run_with_the_cure(executor):
    async def main():
        async with ordered_amap(lambda x: asyncio.sleep(0, x), range(5), executor=executor, window=1) as results:
            with pytest.raises(TypeError, match="use ordered_amap without executor="):
                await anext(results)
            with pytest.raises(StopAsyncIteration):
                await anext(results)

    asyncio.run(main())
