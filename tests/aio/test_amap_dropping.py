"""How an `ordered_amap` ends that is dropped, loses its event loop, or is hit by an exception from outside."""

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
from coroutines import Calls
from event_loops import KINDS, settled, stream
from functions_for_workers import Oops
from inturn import ordered_aflat_map, ordered_amap
from waiting import HANG_S

LIBRARY = os.path.dirname(inturn.__file__)


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
    import asyncio, gc, logging, signal, os, sys, threading, warnings
    from inturn import ordered_amap, ordered_gather
    logging.getLogger("asyncio").addFilter(lambda record: "seconds" not in record.getMessage())  # a slow machine
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
        asyncio.get_running_loop().slow_callback_duration = 60.0  # a loaded machine is no fault of the test
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
            if results._held.buffer if name == "aflat_map" else results._held:
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
        """Raise when this call has ended and its slot is about to be free, or is about to be given to another."""
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

    with pytest.raises(error), asyncio.Runner(loop_factory=KINDS[kind]) as runner:  # the error keeps its tasks
        runner.run(main())
    assert calls.ended * 2 == len(calls.steps.seen)
