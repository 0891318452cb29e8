"""`ordered_amap`: errors in their turn, policies, and what is no longer referenced."""

import asyncio
import gc
import traceback
import weakref
from collections import Counter
from functools import partial

import pytest

from coroutines import double, double_later, oops
from event_loops import Steps, collect, settled, stream, virtual
from functions_for_workers import Oops
from inturn import SKIP, Report, Retry, ordered_aflat_map, ordered_amap, retry, sentinel

# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fn", [double, double_later])
def test_g8_an_error_comes_in_its_turn_with_a_note(run, fn):
    async def bad(x):
        if x == 5:
            raise Oops(x)
        return await fn(x)

    async def main():
        got = []
        with pytest.raises(Oops) as caught:
            async with ordered_amap(bad, range(10)) as results:
                async for result in results:
                    got.append(result)
        assert got == [0, 2, 4, 6, 8]
        assert caught.value.__notes__ == ["item 5: 5"]
        assert "bad" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        with pytest.raises(StopAsyncIteration):
            await anext(results)

    run(main)


def test_g9_once_a_failure_is_known_nothing_later_is_pulled_or_started(run):
    async def main():
        steps, gate, started = Steps(), asyncio.Event(), []

        async def fn(x):
            started.append(x)
            if x == 0:
                await gate.wait()
            if x == 2:
                steps.add(x)
                raise Oops
            await asyncio.sleep(0)

        source = iter(range(100))
        with pytest.raises(Oops):
            async with ordered_amap(fn, source, concurrency=3, window=50) as results:
                task = asyncio.create_task(anext(results))
                await steps.wait(1)
                known = len(started)
                await settled()
                assert len(started) <= known + 1
                gate.set()
                await task
                async for _ in results:
                    pass
        assert len(started) <= known + 1
        assert next(source) <= 50

    run(main)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("skip", [0, 4]),
        (sentinel("gone"), [0, "gone", 4]),
        (sentinel(factory=lambda failure: failure.item), [0, 1, 4]),
        (lambda failure: SKIP if failure.index else None, [0, 4]),
        (retry(attempts=2, backoff=0), [0, 2, 4]),
        (retry(attempts=2, backoff=0.5), [0, 2, 4]),
        (lambda failure: Retry(), [0, 2, 4]),
        (lambda failure: Retry(after=3), [0, 2, 4]),
    ],
)
@pytest.mark.parametrize("wait", [False, True])
def test_g9_what_the_policy_returns_takes_the_place(policy, expected, wait):
    async def main():
        attempts = Counter()

        async def fn(x):
            attempts[x] += 1
            if wait:
                await asyncio.sleep(1)
            if x == 1 and attempts[x] == 1:
                raise Oops
            return 2 * x

        assert await collect(ordered_amap(fn, range(3), on_error=policy)) == expected

    virtual(main)


def test_g9_return_delivers_the_failure_and_report_sums_it_up(run):
    async def main():
        results = await collect(ordered_amap(oops, range(3), on_error="return", indexed=True))
        assert [(index, failure.index, failure.item) for index, failure in results] == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
        assert len(Report(results).failed) == 3

    run(main)


def test_pauses_before_a_retry_overlap_and_occupy_no_slot():
    async def main():
        loop = asyncio.get_running_loop()
        attempts = Counter()

        async def fn(x):
            attempts[x] += 1
            if x < 5 and attempts[x] == 1:
                raise Oops
            await asyncio.sleep(1)
            return x

        begun = loop.time()
        policy = retry(attempts=2, backoff=10, jitter=False)
        assert await collect(ordered_amap(fn, range(10), concurrency=5, on_error=policy)) == [*range(10)]
        assert loop.time() - begun < 13

    virtual(main)


@pytest.mark.parametrize("is_async", [False, True])
def test_g10_an_error_of_the_source_comes_in_its_turn_past_every_policy(run, is_async):
    def items():
        yield 1
        yield 2
        raise Oops("source")

    async def main():
        got = []
        source = stream(items()) if is_async else items()
        with pytest.raises(Oops, match="source") as caught:
            async with ordered_amap(double_later, source, on_error="skip") as results:
                async for result in results:
                    got.append(result)
        assert got == [2, 4]
        assert not hasattr(caught.value, "__notes__")

    run(main)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_g10_any_other_error_of_the_source_ends_the_run_at_once(run, kind, is_async):
    def items():
        yield 1
        raise kind

    async def agen():
        yield 1
        await asyncio.sleep(0)
        raise kind

    async def never(x):
        await asyncio.Event().wait()

    async def main():
        results = ordered_amap(never, agen() if is_async else items())
        try:
            await anext(results)
        except kind:
            return "raised"
        finally:
            await results.aclose()

    assert run(main) == "raised"


@pytest.mark.parametrize("when", ["at once", "later"])
def test_g11_errors_that_would_end_a_loop_arrive_in_turn(run, when):
    async def fn(x):
        if when == "later":
            await asyncio.sleep(0)
        if x:
            raise x
        return x

    async def main():
        for error in [StopIteration(1), StopAsyncIteration(1), SystemExit(3), KeyboardInterrupt()]:
            got = []
            kind = RuntimeError if isinstance(error, StopIteration | StopAsyncIteration) else type(error)
            caught = None
            try:
                async with ordered_amap(
                    fn, [0, error, 0], on_error="skip" if kind is not RuntimeError else "raise"
                ) as run_:
                    async for result in run_:
                        got.append(result)
            except BaseException as raised:
                caught = raised
            assert got == [0]
            assert type(caught) is kind, error

    run(main)


def test_g11_skip_and_retry_are_values_when_they_come_from_fn(run):
    async def main():
        again = Retry()
        assert await collect(ordered_amap(partial(asyncio.sleep, 0), [SKIP, again, False, None])) == [
            SKIP,
            again,
            False,
            None,
        ]

    run(main)


def test_g12_no_reference_is_kept_to_a_delivered_result_or_its_item(run):
    class Thing:
        def __init__(self, wait=None):
            self.wait = wait

    async def main():
        async def fn(thing):
            if thing.wait:
                await asyncio.sleep(0)
            result = Thing()
            result.seen = weakref.ref(thing)
            return result

        def items():
            for k in range(6):
                yield Thing(k % 2)

        gc.disable()
        try:
            async with ordered_amap(fn, items(), window=1) as results:
                previous = None
                async for result in results:
                    await settled()
                    assert result.seen() is None
                    assert previous is None or previous() is None
                    previous = weakref.ref(result)
                    del result
        finally:
            gc.enable()

    run(main)


@pytest.mark.parametrize("fn", ["awaitable", "generator"])
def test_g12_no_reference_is_kept_to_a_delivered_element(run, fn):
    class Element:
        pass

    def plain():
        for _ in range(4):
            yield Element()

    async def awaitable(_):
        return plain()

    async def generator(_):
        for _ in range(4):
            yield [Element()].pop()  # the frame of a generator keeps what it has in a variable

    async def main():
        gc.disable()
        try:
            async with ordered_aflat_map(makes[fn], range(2), buffer=1) as elements:
                async for element in elements:
                    gone = weakref.ref(element)
                    del element
                    assert gone() is None
        finally:
            gc.enable()

    makes = {"awaitable": awaitable, "generator": generator}
    run(main)


def test_g12_no_reference_is_kept_to_the_error_of_an_async_source(run):
    async def source():
        yield 0
        raise Oops

    async def fn(x):
        return x

    async def main():
        gc.collect()
        gc.disable()
        try:
            gone = None
            try:
                async for _ in ordered_amap(fn, source()):
                    pass
            except Oops as error:
                gone = weakref.ref(error)
            await settled()
            assert gone is not None
            assert gone() is None
        finally:
            gc.enable()

    run(main)


def test_g12_no_reference_is_kept_to_an_error(run):
    async def main():
        gc.collect()
        gc.disable()
        try:
            for wait in (False, True):

                async def fn(x, wait=wait):
                    if wait:
                        await asyncio.sleep(0)
                    raise Oops

                seen = None
                try:
                    async for _ in ordered_amap(fn, [1]):
                        pass
                except Oops as error:
                    seen = weakref.ref(error)
                await settled()
                assert seen is not None
                assert seen() is None, gc.get_referrers(seen())
        finally:
            gc.enable()

    run(main)
