"""How an `ordered_amap` ends: every call is cancelled and awaited, its cleanup included, and nothing is ever left or complained of."""

import asyncio
import contextlib
import gc
import itertools
import math
import os
import signal
import subprocess
import sys

import pytest

import inturn
from calls import Oops
from helpers import HANG_S, Watch
from inturn import Failure, ordered_aflat_map, ordered_amap, retry
from inturn._aio.events import LoopEvent
from loops import KINDS, Steps, collect, run, settled, stream, virtual

LIBRARY = os.path.dirname(inturn.__file__)


class Calls:
    """Calls that wait for ever, and say when they begin, when they are cancelled and when they have cleaned up."""

    def __init__(self, cleanup=2):
        self.steps = Steps()
        self.cleanup = cleanup
        self.cut_short = 0

    async def __call__(self, x):
        self.steps.add(("began", x))
        try:
            await asyncio.Event().wait()
        finally:
            try:
                for _ in range(self.cleanup):
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.cut_short += 1
                raise
            finally:
                self.steps.add(("ended", x))

    @property
    def ended(self):
        return sum(name == "ended" for name, _ in self.steps.seen)


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

        results = ordered_amap(fn, range(4), deadline=2)
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


# ---- the source ----------------------------------------------------------------------------------


def test_g30_an_async_source_that_waits_is_cancelled_which_ends_a_generator(run):
    async def main():
        ended = []

        async def items():
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("source")

        async with ordered_amap(lambda x: asyncio.sleep(0, x), items()) as results:
            assert await anext(results) == 1
            await settled()
            assert not ended
        assert ended == ["source"]

    run(main)


def test_g13_a_source_that_does_not_wait_is_left_open_after_the_last_pull(run):
    async def main():
        for kind in (iter, stream):
            source = kind(range(100))
            async with ordered_amap(lambda x: asyncio.sleep(0, x), source, window=4) as results:
                assert await anext(results) == 0
                await settled()
            pulled = results.stats.pulled
            assert 4 <= pulled <= 5
            assert (next(source) if kind is iter else await anext(source)) == pulled
            if kind is stream:
                await source.aclose()

    run(main)


def test_an_async_source_that_swallows_its_cancellation_loses_its_item(run):
    async def main():
        async def items():
            yield 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield 2

        source = items()
        async with ordered_amap(lambda x: asyncio.sleep(0, x), source) as results:
            assert await anext(results) == 1
            await settled()
        assert results.stats.pulled == 1
        await source.aclose()

    run(main)


# ---- dropped, and the end of the loop ------------------------------------------------------------


def test_g30_dropped_unclosed_it_cancels_its_tasks_and_says_so(run):
    async def main():
        calls = Calls()

        async def fn(x):
            return x if x == 0 else await calls(x)

        async def items():
            for x in itertools.count():
                yield x
                if x == 5:
                    await asyncio.Event().wait()

        results = ordered_amap(fn, items(), concurrency=3)
        assert await anext(results) == 0
        await calls.steps.wait(3)
        gc.disable()  # no reference cycle and no task may hold the handle
        try:
            with pytest.warns(ResourceWarning, match="unclosed <ordered_amap of .*async with"):
                del results
        finally:
            gc.enable()
        await settled()
        assert calls.ended == 3

    run(main)


def test_g13_dropped_before_its_first_anext_or_after_its_end_it_says_nothing(run):
    async def main():
        calls = []

        async def fn(x):
            calls.append(x)

        ordered_amap(fn, range(3))
        gc.collect()
        assert not calls
        async for _ in ordered_amap(fn, range(3)):
            pass
        gc.collect()

    run(main)


SCRIPT = """if True:
    import asyncio, gc, signal, os, sys, threading, warnings
    from inturn import ordered_amap, ordered_gather
    begun = ended = 0
    async def call(x):
        global begun, ended
        begun += 1
        try:
            if x == 0:
                return x
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            ended += 1
    async def forever():
        x = 0
        while True:
            yield x
            x += 1
            await asyncio.sleep(0)
    async def several():  # until three calls have begun
        while begun < 3:
            await asyncio.sleep(0)
    def interrupt():
        if begun < 3:
            asyncio.get_running_loop().call_soon(interrupt)
        else:
            signal.raise_signal(signal.SIGINT)
    async def settled():  # until everything has happened that can happen by itself
        for _ in range(30):
            await asyncio.sleep(0)
    def source():
        asyncio.get_running_loop().slow_callback_duration = 60.0  # the machine's load is nobody's fault
        return forever() if "async" in sys.argv else iter(range(1000))
"""


def script(body, *arguments, code=0, debug=True):
    done = subprocess.run(
        [sys.executable, *(["-X", "dev"] if debug else []), "-c", SCRIPT + body, *arguments],
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == code, done.stderr
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize("source", ["plain", "async"])
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_g30_a_loop_that_shuts_down_ends_an_open_run(source, policy):
    """Also one whose calls, as they are cancelled one by one, make room for others."""
    out, err = script(
        f"""
    async def main():
        global results
        results = ordered_amap(call, source(), concurrency=3, on_error={policy!r})
        await anext(results)
        await several()
    asyncio.run(main())
    print(begun == ended, begun > 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del results
        gc.collect()
    print(*[warning.category.__name__ for warning in caught])
        """,
        source,
    )
    assert out == ["True", "True", "ResourceWarning"]
    assert not err


@pytest.mark.parametrize("source", ["plain", "async"])
def test_g30_a_run_dropped_as_the_loop_shuts_down(source):
    out, err = script(
        """
    warnings.simplefilter("ignore", ResourceWarning)
    async def main():
        async for result in ordered_amap(call, source(), concurrency=3):
            await several()
            return
    asyncio.run(main())
    gc.collect()
    print(begun == ended, begun > 2)
        """,
        source,
    )
    assert out == ["True", "True"]
    assert not err


@pytest.mark.parametrize("source", ["plain", "async"])
def test_g14_ctrl_c_is_raised_once_and_every_call_has_cleaned_up(source):
    out, err = script(
        """
    async def main():
        async for result in ordered_amap(call, source(), concurrency=3):
            interrupt()
    try:
        asyncio.run(main())
    finally:
        print(begun == ended, begun > 2)
        """,
        source,
        code=-signal.SIGINT if os.name == "posix" else 1,
    )
    assert out == ["True", "True"]
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("\nKeyboardInterrupt") == 1


def test_g13_dropped_in_another_thread_or_after_its_loop_is_gone():
    out, err = script(
        """
    warnings.simplefilter("ignore", ResourceWarning)
    async def main():
        results = [ordered_amap(call, source(), concurrency=3)]
        await anext(results[0])
        await several()
        thread = threading.Thread(target=results.clear)
        thread.start()
        thread.join()
        await settled()
        print(begun == ended, len(asyncio.all_tasks()))
        global kept
        kept = ordered_amap(call, source(), concurrency=3)
        await anext(kept)
    asyncio.run(main())
    print(begun == ended)
    del kept
    gc.collect()
        """
    )
    assert out == ["True", "1", "True"]
    assert not err


def test_a_loop_closed_without_ado_does_not_make_dropping_the_run_fail():
    out, err = script(
        """
    warnings.simplefilter("ignore", ResourceWarning)
    loop = asyncio.new_event_loop()
    async def quick(x):
        return x
    results = ordered_amap(quick, range(10), window=2)
    async def main():
        return await anext(results)
    print(loop.run_until_complete(main()))
    loop.close()
    del results
    gc.collect()
        """
    )
    assert out == ["0"]
    assert not err


# ---- errors from outside -------------------------------------------------------------------------


@contextlib.contextmanager
def raised_after(name, error):
    """As a signal handler does, when the library has just called the C function of this name in the consumer's stead."""

    def look(frame, event, arg):
        if event == "c_return" and arg.__name__ == name and frame.f_code.co_filename.startswith(LIBRARY):
            sys.setprofile(None)
            raise error

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("error", [IndexError, Oops, KeyError])
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("name", ["amap", "aflat_map"])
def test_g16_an_exception_from_outside_that_lands_where_a_held_result_is_taken_ends_the_run(run, name, indexed, error):
    """Also one that says what the library says when nothing is held: no result is ever lost in silence."""

    async def main():
        calls = Calls()

        async def fn(x):
            return x if x < 50 else await calls(x)

        async def produce(x):
            for n in range(50):
                yield n
            await calls(x)

        if name == "amap":
            results = ordered_amap(fn, range(60), window=55, indexed=indexed)
        else:
            results = ordered_aflat_map(produce, range(2), window=2, indexed=indexed)
        for _ in range(40):
            await anext(results)
            if results._held or (name == "aflat_map" and results._lane.buffer):
                break
        else:
            await results.aclose()
            pytest.skip("calls of this loop return one by one, and none is held")
        results._breath = math.inf  # the way of a consumer that never has to wait
        with pytest.raises(error), raised_after("pop" if name == "amap" else "popleft", error):
            await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        assert calls.ended * 2 == len(calls.steps.seen)

    run(main)


@pytest.mark.parametrize(("error", "busy"), [(Oops, False), (KeyboardInterrupt, False), (KeyboardInterrupt, True)])
@pytest.mark.parametrize("where", ["measured", "claim"])
@pytest.mark.parametrize("kind", KINDS)
def test_g14_g16_an_exception_from_outside_in_a_callback_of_the_run_is_the_consumers(kind, where, error, busy):
    """Ctrl-C does not wait until the consumer comes back: it stops the loop, as in any callback."""
    calls, go = Calls(), []

    async def fn(x):
        if x == 9:
            return x
        if x:
            await calls(x)
        else:
            go.append(asyncio.Event())
            await go[0].wait()
            sys.setprofile(look)
        return x

    def look(frame, event, arg):
        """Raise when this call has ended and its place is about to be free, or is about to be given to another."""
        if event == "call" and frame.f_code.co_name == where and frame.f_code.co_filename.startswith(LIBRARY):
            sys.setprofile(None)
            raise error

    async def main():
        async with ordered_amap(fn, iter([9, 0, 8, 7, 6]), concurrency=3, window=5, on_error="skip") as results:
            assert await anext(results) == 9
            head = asyncio.create_task(asyncio.Event().wait() if busy else anext(results))
            await calls.steps.wait(2)
            go[0].set()
            await head
            async for _ in results:
                pass

    with asyncio.Runner(loop_factory=KINDS[kind]) as runner, pytest.raises(error):
        runner.run(main())
    assert calls.ended * 2 == len(calls.steps.seen)


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
        event, begun = LoopEvent(loop), loop.time()
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
            async with ordered_amap(fn, itertools.count(), concurrency=1, deadline=8) as results:
                async for result in results:
                    got.append(result)
        assert got

    virtual(main)


def test_a_failure_from_a_time_limit_carries_the_seconds(run):
    async def main():
        async def fn(x):
            await asyncio.Event().wait()

        with Watch() as watch:
            (failure,) = await collect(ordered_amap(fn, [1], timeout=0.02, on_error="return"))
        assert isinstance(failure, Failure)
        assert 0.0198 <= failure.elapsed <= watch.seconds

    run(main)
