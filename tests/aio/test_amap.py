"""`ordered_amap`: order, laziness, the window, sources, errors, context; and what a task of its own means for each item."""

import asyncio
import contextlib
import contextvars
import copy
import gc
import itertools
import os
import pickle
import subprocess
import sys
import traceback
import weakref
from collections import Counter
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inturn
from event_loops import Steps, collect, run, settled, stream, virtual
from functions_for_workers import Oops
from inturn import SKIP, Failure, Report, Retry, Stats, ordered_amap, ordered_map, retry, sentinel
from waiting import HANG_S

EAGER = sys.version_info >= (3, 12)


async def double(x):
    return 2 * x


async def double_later(x):
    await asyncio.sleep(0)
    return 2 * x


async def oops(x):
    raise Oops(x)


def reverse(n):
    """A call whose item k sleeps the longer the earlier it comes (in virtual time)."""

    async def fn(k):
        await asyncio.sleep(n - k)
        return k

    return fn


# ---- order and laziness --------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3, 10, 11, None])
@pytest.mark.parametrize("fn", [double, double_later])
@pytest.mark.parametrize("source", [list, iter, stream])
def test_g1_results_come_in_input_order(run, fn, source, window):
    async def main():
        assert await collect(ordered_amap(fn, source(range(10)), window=window, concurrency=3)) == [*range(0, 20, 2)]

    run(main)


@pytest.mark.parametrize("window", [2, 10, 30])
def test_g1_results_come_in_input_order_when_calls_end_in_reverse(window):
    async def main():
        assert await collect(ordered_amap(reverse(20), range(20), window=window, concurrency=20)) == [*range(20)]

    virtual(main)


@pytest.mark.parametrize("count", [0, 1, 2, 10_000])
def test_g1_any_number_of_items(run, count):
    async def main():
        assert await collect(ordered_amap(double, range(count))) == [*range(0, 2 * count, 2)]

    run(main)


def test_g2_nothing_happens_before_the_first_anext(run):
    async def main():
        pulled = []
        results = ordered_amap(double, (pulled.append(x) or x for x in range(3)))
        await settled()
        assert not pulled
        assert len(asyncio.all_tasks()) <= 2
        assert await anext(results) == 0
        assert pulled
        await results.aclose()

    run(main)


def test_g2_a_run_can_be_made_outside_of_any_loop(run):
    results = ordered_amap(double, range(3))

    async def main():
        assert await collect(results) == [0, 2, 4]

    run(main)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("window", [1, 2, 7])
def test_g3_no_more_than_the_window_is_pulled_and_not_delivered(run, window, is_async):
    async def main():
        pulled = delivered = 0
        worst = 0

        def items():
            nonlocal pulled, worst
            for x in itertools.count():
                pulled += 1
                worst = max(worst, pulled - delivered)
                yield x

        source = stream(items()) if is_async else items()
        async with ordered_amap(double_later, source, window=window, concurrency=3) as results:
            async for _ in results:
                delivered += 1
                await settled()
                if delivered == 20:
                    break
        # the feeder asks the generator for one more element while the consumer has not yet counted the last
        assert worst <= window + is_async

    run(main)


def test_g4_the_default_window_is_twice_the_concurrency(run):
    async def main():
        pulled = []
        gate = asyncio.Event()

        async def fn(x):
            await gate.wait()

        async with ordered_amap(fn, (pulled.append(x) or x for x in itertools.count()), concurrency=3) as results:
            task = asyncio.create_task(anext(results))
            await settled()
            assert len(pulled) == 6
            assert results.stats.running == 3
            gate.set()
            await task

    run(main)


def test_g5_a_slow_head_holds_up_delivery_and_not_work(run):
    async def main():
        steps, gate = Steps(), asyncio.Event()

        async def fn(x):
            if x == 0:
                await gate.wait()
            await asyncio.sleep(0)
            steps.add(x)
            return x

        async with ordered_amap(fn, itertools.count(), concurrency=2, window=10) as results:
            head = asyncio.create_task(anext(results))
            assert sorted(await steps.wait(9)) == [*range(1, 10)]
            assert not head.done()
            gate.set()
            assert await head == 0
            assert [await anext(results) for _ in range(9)] == [*range(1, 10)]

    run(main)


def test_g5_concurrency_bounds_what_runs(run):
    async def main():
        inside = peak = 0

        async def fn(x):
            nonlocal inside, peak
            inside += 1
            peak = max(peak, inside)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inside -= 1

        await collect(ordered_amap(fn, range(100), concurrency=4))
        assert peak == 4

    run(main)


def test_g6_a_plain_source_is_pulled_by_the_consumer(run):
    async def main():
        tasks = set()

        def items():
            for x in range(10):
                tasks.add(asyncio.current_task())
                yield x

        await collect(ordered_amap(double, items(), window=2))
        assert tasks == {asyncio.current_task()}

    run(main)


def test_g6_a_plain_source_that_always_answers_does_not_starve_the_loop(run):
    async def main():
        beats = 0

        async def heart():
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(heart())
        async with ordered_amap(double, itertools.count(), window=1000) as results:
            async for result in results:
                if result > 10_000:
                    break
        assert beats > 2
        task.cancel()
        await asyncio.wait([task])

    run(main)


def test_g6_a_slow_plain_source_lets_calls_begin_between_its_pulls(run):
    import time

    async def main():
        order = []

        def items():
            for x in range(5):
                time.sleep(0.002)  # it blocks the loop: that is its nature
                order.append(("pulled", x))
                yield x

        async def fn(x):
            order.append(("began", x))
            await asyncio.sleep(0)

        await collect(ordered_amap(fn, items(), window=10))
        assert order.index(("began", 0)) < order.index(("pulled", 2))

    run(main)


def test_g7_what_has_been_pulled_goes_on_while_the_consumer_is_busy(run):
    async def main():
        steps = Steps()

        async def fn(x):
            await asyncio.sleep(0)
            steps.add(x)
            return x

        async with ordered_amap(fn, itertools.count(), concurrency=2, window=8) as results:
            assert await anext(results) == 0
            await steps.wait(8)
            await settled()
            assert sorted(steps.seen) == [*range(8)]

    run(main)


def test_g29_a_ready_head_never_waits_for_an_async_source(run):
    async def main():
        more = asyncio.Event()

        async def items():
            yield 1
            yield 2
            await more.wait()
            yield 3

        async with ordered_amap(double, items(), window=10) as results:
            assert await anext(results) == 2
            assert await anext(results) == 4
            last = asyncio.create_task(anext(results))
            await settled()
            assert not last.done()
            more.set()
            assert await last == 6

    run(main)


def test_g29_an_async_source_that_never_waits_does_not_starve_the_loop(run):
    async def main():
        async def items():
            for x in itertools.count():
                yield x

        async with ordered_amap(double, items(), window=4) as results:
            async for result in results:
                if result == 2000:
                    break

    run(main)


# ---- several sources -----------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [*itertools.product([list, stream], repeat=3)])
def test_several_sources_are_zipped(run, kinds):
    async def fn(*args):
        return args

    async def main():
        sources = [kind(range(10 * n, 10 * n + 4 - n)) for n, kind in enumerate(kinds)]
        assert await collect(ordered_amap(fn, *sources)) == [(0, 10, 20), (1, 11, 21)]

    run(main)


@pytest.mark.parametrize("kinds", [*itertools.product([list, stream], repeat=3)])
@pytest.mark.parametrize("lengths", [(2, 2, 2), (1, 2, 2), (2, 1, 2), (2, 2, 1), (1, 1, 2), (2, 1, 1), (0, 0, 1)])
def test_strict_is_worded_as_zip_does(kinds, lengths):
    async def fn(*args):
        return args

    async def main():
        sources = [kind(range(length)) for kind, length in zip(kinds, lengths, strict=True)]
        results = ordered_amap(fn, *sources, strict=True)
        got = []
        try:
            async with results:
                async for result in results:
                    got.append(result)
        except ValueError as error:
            got.append(str(error))
        return got

    expected = []
    try:
        for each in zip(*map(range, lengths), strict=True):
            expected.append(each)
    except ValueError as error:
        expected.append(str(error))
    assert virtual(main) == expected


def test_an_iterator_of_each_source_is_taken_at_the_call():
    taken = []

    class Source:
        def __aiter__(self):
            taken.append(self)
            return stream([])

    source = Source()
    ordered_amap(double, source)
    assert taken == [source]


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


def test_pauses_before_a_retry_overlap_and_occupy_no_place():
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


# ---- a task and a context for each item ----------------------------------------------------------

var = contextvars.ContextVar("var", default="none")


@pytest.mark.parametrize("wait", [False, True])
def test_g21_g31_the_consumers_context_is_seen_and_changes_stay_with_the_item(run, wait):
    async def main():
        async def fn(x):
            before = var.get()
            var.set(x)
            if wait:
                await asyncio.sleep(0)
                assert var.get() == x
            return before

        results = ordered_amap(fn, range(20), concurrency=2)
        var.set("consumer's")
        assert await collect(results) == ["consumer's"] * 20
        assert var.get() == "consumer's"

    run(main)


def test_g31_the_context_reaches_an_async_source(run):
    async def main():
        async def items():
            yield var.get()
            var.set("changed")

        var.set("mine")
        assert await collect(ordered_amap(lambda x: asyncio.sleep(0, x), items())) == ["mine"]
        assert var.get() == "mine"

    run(main)


@pytest.mark.parametrize("wait", [False, True])
def test_g31_an_item_that_cancels_itself_is_a_failure_like_any_other(run, wait):
    async def main():
        async def fn(x):
            if x % 2:
                asyncio.current_task().cancel()
            if wait:
                await asyncio.sleep(0)
            return x

        results = await collect(ordered_amap(fn, range(6), concurrency=1, on_error="return"))
        assert [type(each.error) if isinstance(each, Failure) else each for each in results] == [
            each for x in (0, 2, 4) for each in (x, asyncio.CancelledError)
        ]
        assert not asyncio.current_task().cancelling()

    run(main)


def test_g31_a_cancelled_error_goes_through_raise(run):
    async def main():
        async def fn(x):
            raise asyncio.CancelledError

        results = ordered_amap(fn, range(6))
        with pytest.raises(asyncio.CancelledError) as caught:
            await anext(results)
        assert caught.value.__notes__ == ["item 0: 0"]
        assert not asyncio.current_task().cancelling()

    run(main)


def test_g31_a_retry_after_a_cancellation(run):
    async def main():
        seen = []

        async def fn(x):
            seen.append(asyncio.current_task().cancelling())
            if len(seen) == 1:
                asyncio.current_task().cancel()
                await asyncio.sleep(0)
            return x

        policy = retry(attempts=2, on=asyncio.CancelledError, backoff=0)
        assert await collect(ordered_amap(fn, [1], on_error=policy)) == [1]
        assert seen == [0, 0]

    run(main)


def test_g31_requests_to_cancel_never_pass_to_the_next_item(run):
    async def main():
        async def fn(x):
            task = asyncio.current_task()
            assert not task.cancelling()
            if x % 3 == 0:
                task.cancel()
                task.uncancel()  # on 3.11 and 3.12 the cancellation comes all the same
            elif x % 3 == 1:
                task.cancel()
            else:
                await asyncio.sleep(0)
            return x

        results = await collect(ordered_amap(fn, range(30), concurrency=2, on_error="return"))
        assert [x for x in results if not isinstance(x, Failure) and x % 3 == 2] == [*range(2, 30, 3)]
        assert all(isinstance(results[x], Failure) for x in range(1, 30, 3))

    run(main)


def test_g31_who_holds_the_task_of_an_item_that_is_over_cannot_hurt_another(run):
    async def main():
        loop = asyncio.get_running_loop()
        tasks = []

        async def fn(x):
            if x < 5:
                loop.call_soon(asyncio.current_task().cancel)
                return x
            if x < 10:
                tasks.append(asyncio.current_task())
                return x
            if x == 10:
                for task in tasks:
                    task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return x

        assert await collect(ordered_amap(fn, range(30), concurrency=3)) == [*range(30)]
        assert len(set(tasks)) == 5

    run(main)


def test_g31_the_task_is_the_same_from_first_to_last_and_its_own_while_it_waits(run):
    async def main():
        tasks = {}

        async def fn(x):
            task = asyncio.current_task()
            await asyncio.sleep(0)
            assert asyncio.current_task() is task
            await asyncio.sleep(0)
            assert asyncio.current_task() is task
            tasks[x] = task

        await collect(ordered_amap(fn, range(20), concurrency=4))
        assert len(set(tasks.values())) == 20

    run(main)


@pytest.mark.parametrize("sign", ["name", "callback", "weak reference"])
def test_g31_what_a_call_leaves_on_its_task_is_not_seen_by_the_next(run, sign):
    async def main():
        done, weak = [], weakref.WeakKeyDictionary()

        async def fn(x):
            task = asyncio.current_task()
            if sign == "name":
                assert task.get_name() != "mine"
                task.set_name("mine")
            elif sign == "callback":
                task.add_done_callback(lambda _, x=x: done.append(x))
            else:
                assert task not in weak
                weak[task] = x

        await collect(ordered_amap(fn, range(10), concurrency=1))
        await settled()
        assert done == ([*range(10)] if sign == "callback" else [])

    run(main)


@pytest.mark.parametrize("wait", [False, True])
def test_timeouts_and_task_groups_work_inside_fn(run, wait):
    async def main():
        async def child(x):
            if wait:
                await asyncio.sleep(0)
            return x

        async def fn(x):
            async with asyncio.timeout(10):
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(child(x)) for _ in range(2)]
                if x % 2 and wait:
                    try:
                        async with asyncio.timeout(0):
                            await asyncio.sleep(10)
                    except TimeoutError:
                        return "late"
            return sum(task.result() for task in tasks)

        expected = ["late" if x % 2 and wait else 2 * x for x in range(10)]
        assert await collect(ordered_amap(fn, range(10), concurrency=3)) == expected

    run(main)


def test_a_child_that_fails_costs_its_item_only(run):
    async def main():
        async def fn(x):
            async with asyncio.TaskGroup() as group:
                group.create_task(oops(x) if x == 1 else double(x))
                await asyncio.sleep(0)
            return x

        got = await collect(ordered_amap(fn, range(3), on_error="return"))
        assert [type(each) for each in got] == [int, Failure, int]
        assert isinstance(got[1].error, ExceptionGroup)

    run(main)


# ---- what fn may be ------------------------------------------------------------------------------


def test_g32_a_plain_callable_that_returns_an_awaitable(run):
    async def main():
        loop = asyncio.get_running_loop()

        def future(x):
            result = loop.create_future()
            loop.call_soon(result.set_result, x)
            return result

        class Awaitable:
            def __init__(self, x):
                self.x = x

            def __await__(self):
                yield
                return self.x

        for fn in (
            lambda x: asyncio.sleep(0, x),
            future,
            Awaitable,
            lambda x: asyncio.ensure_future(asyncio.sleep(0, x)),
        ):
            assert await collect(ordered_amap(fn, range(5))) == [*range(5)]

    run(main)


def test_g32_a_first_result_that_is_not_awaitable_ends_the_run_naming_executor(run):
    async def main():
        for on_error in ("raise", "skip"):
            with pytest.raises(TypeError, match="executor="):
                await collect(ordered_amap(lambda x: x, range(5), on_error=on_error))

    run(main)


def test_g32_a_later_result_that_is_not_awaitable_is_a_failure(run):
    async def main():
        got = await collect(ordered_amap(lambda x: x if x == 3 else double(x), range(5), on_error="skip"))
        assert got == [0, 2, 4, 8]

    run(main)


def test_g32_an_async_function_with_an_executor_is_refused_at_the_call():
    with pytest.raises(TypeError, match="leave executor= out"):
        ordered_amap(double, [], executor="thread")


def test_g32_an_async_function_given_to_ordered_map_is_refused_at_the_call():
    with pytest.raises(TypeError, match="ordered_amap"):
        ordered_map(double, [])


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "words"),
    [
        ((1, []), {}, TypeError, "fn must be callable"),
        ((double,), {}, TypeError, "no iterable"),
        ((double, 1), {}, TypeError, "iterable, got int"),
        ((double, 1, stream([])), {}, TypeError, "source 1 must be iterable or async iterable, got int"),
        ((double, []), {"concurrency": 0}, ValueError, "concurrency must be at least 1, got 0"),
        ((double, []), {"concurrency": True}, TypeError, "concurrency"),
        ((double, []), {"window": 0}, ValueError, "window must be at least 1"),
        ((double, []), {"timeout": 0}, ValueError, "timeout"),
        ((double, []), {"deadline": float("inf")}, ValueError, "deadline"),
        ((double, []), {"on_error": "ignore"}, ValueError, "on_error must be one of"),
        ((double, []), {"indexed": 1}, TypeError, "indexed must be a bool"),
        ((double, []), {"progress": 1}, TypeError, "progress"),
        ((abs, []), {"executor": "threads"}, ValueError, "executor must be"),
        ((abs, []), {"executor": 3}, TypeError, "executor must be"),
    ],
)
def test_bad_input_is_refused_at_the_call(arguments, settings, error, words):
    with pytest.raises(error, match=words):
        ordered_amap(*arguments, **settings)


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


@settings(max_examples=150)
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
