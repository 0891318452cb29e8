"""`ordered_amap`: one consumer, one event loop, nested runs; what a run shows of itself; and a comparison with `map`."""

import asyncio
import contextlib
import copy
import gc
import os
import pickle
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import inturn
from coroutines import double, double_later
from event_loops import collect, settled, stream, virtual
from functions_for_workers import Oops
from inturn import Stats, ordered_amap, ordered_map, retry, sentinel
from waiting import HANG_S

# ---- one consumer, one loop ----------------------------------------------------------------------


def test_g23_a_second_consumer_gets_a_clear_error(run):
    async def main():
        gate = asyncio.Event()

        async def fn(x):
            await gate.wait()
            return x

        async with ordered_amap(fn, range(3)) as results:
            first = asyncio.create_task(anext(results))
            await settled()
            with pytest.raises(RuntimeError, match="one consumer"):
                await anext(results)
            gate.set()
            assert await first == 0
            assert await anext(results) == 1

    run(main)


def test_a_run_in_another_loop_than_its_first_is_an_error():
    results = ordered_amap(double_later, range(10), window=2)
    assert asyncio.run(anext(results)) == 0
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(anext(results))
    with pytest.warns(ResourceWarning, match="unclosed"):
        del results
        gc.collect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("how", ["at its end", "by aclose", "by an error", "with its loop"])
@pytest.mark.parametrize("executor", [None, "thread"])
def test_g9_g16_a_run_that_is_over_is_over_in_every_loop(how, executor):
    def plain(x):
        if x == 2 and how == "by an error":
            raise Oops
        return x

    async def fn(x):
        await asyncio.sleep(0)
        return plain(x)

    async def main():
        if how == "with its loop":
            await anext(results)
            return
        with contextlib.suppress(Oops):
            async for _ in results:
                if how == "by aclose":
                    await results.aclose()

    async def again():
        await results.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(results)
        await results.aclose()

    results = ordered_amap(fn if executor is None else plain, range(4), executor=executor)
    asyncio.run(main())
    asyncio.run(again())


def test_g23_in_a_forked_child_the_run_is_an_error():
    code = """if True:
        import asyncio, os, inturn
        async def fn(x):
            await asyncio.sleep(0)
            return x
        async def main():
            asyncio.get_running_loop().slow_callback_duration = 60.0  # it waits for the child
            async with inturn.ordered_amap(fn, range(10), window=2) as results:
                await anext(results)
                child = os.fork()
                if not child:
                    try:
                        results.__anext__().send(None)
                    except RuntimeError as error:
                        os._exit(7 if "parent" in str(error) else 1)
                    os._exit(2)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
                assert [x async for x in results] == [*range(1, 10)]
        asyncio.run(main())
    """
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=HANG_S)


def test_g22_runs_nest(run):
    async def main():
        async def outer(x):
            return [y async for y in ordered_amap(double_later, range(x))]

        inner = ordered_amap(double_later, stream(range(5)))
        assert await collect(ordered_amap(outer, inner)) == [[*range(0, 2 * x, 2)] for x in range(0, 10, 2)]

    run(main)


# ---- seeing what happens -------------------------------------------------------------------------


def test_stats_repr_and_indexed(run):
    async def main():
        gate = asyncio.Event()

        async def fn(x):
            if x >= 2:
                await gate.wait()
            return x

        async with ordered_amap(fn, range(10), concurrency=3, window=6, indexed=True) as results:
            assert await anext(results) == (0, 0)
            await settled()
            stats = results.stats
            assert isinstance(stats, Stats)
            assert (stats.pulled, stats.running, stats.waiting, stats.delivered, stats.total) == (6, 3, 1, 1, 10)
            assert "1 delivered" in repr(results)
            assert "ordered_amap of" in repr(results)
            gate.set()
            assert [each async for each in results] == [(x, x) for x in range(1, 10)]
        assert results.indexed
        assert results.stats.delivered == 10

    run(main)


def test_progress_is_told_and_told_once_at_the_end(run):
    async def main():
        seen = []
        await collect(ordered_amap(double, range(10), progress=seen.append))
        assert seen[-1].delivered == 10

    run(main)


def test_a_run_does_not_pickle_nor_copy():
    results = ordered_amap(double, [])
    for attempt in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="cannot pickle a run"):
            attempt(results)


def test_importing_the_library_does_not_import_asyncio():
    code = "import sys, inturn; inturn.ordered_amap; inturn.ordered_gather; sys.exit('asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=HANG_S)


def test_the_public_names_are_there():
    assert {"ordered_amap", "ordered_gather"} <= set(inturn.__all__)


# ---- whatever the settings -----------------------------------------------------------------------


@given(st.data())
def test_a_run_delivers_what_a_plain_loop_and_ordered_map_deliver(data):
    length = data.draw(st.integers(0, 20), "length")
    pauses = data.draw(st.lists(st.sampled_from([None, 0, 1, 2, 5]), min_size=length, max_size=length), "pauses")
    errors = data.draw(st.dictionaries(st.integers(0, 19), st.integers(1, 3), max_size=5), "errors")
    shape = {
        "concurrency": data.draw(st.integers(1, 5), "concurrency"),
        "window": data.draw(st.none() | st.integers(1, 25), "window"),
        "indexed": data.draw(st.booleans(), "indexed"),
        "on_error": data.draw(
            st.sampled_from(
                ["raise", "skip", sentinel("gone"), retry(attempts=2, backoff=0), retry(3, backoff=0.001, then="skip")]
            )
        ),
    }
    is_async = data.draw(st.booleans(), "async source")

    def calls():
        attempts = Counter()

        def sync(x):
            attempts[x] += 1
            if attempts[x] <= errors.get(x, 0):
                raise Oops(x)
            return x * x

        async def fn(x):
            if pauses[x] is not None:
                await asyncio.sleep(pauses[x])
            return sync(x)

        return sync, fn

    got = []

    async def main():
        results = ordered_amap(calls()[1], stream(range(length)) if is_async else range(length), **shape)
        async with results:
            async for result in results:
                got.append(result)

    expected = []
    try:
        virtual(main)
    except Oops as error:
        got.append(repr(error))
    try:
        for result in ordered_map(calls()[0], range(length), executor="serial", **{**shape, "concurrency": 1}):
            expected.append(result)
    except Oops as error:
        expected.append(repr(error))
    assert got == expected
    if not errors:
        assert got == [(x, x * x) if shape["indexed"] else x * x for x in range(length)]
