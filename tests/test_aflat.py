"""`ordered_aflat_map`: async generators in tasks, and plain ones through an executor."""

import asyncio
import contextvars
import gc
import itertools
import os
from functools import partial
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flat_calls as calls
from flat_calls import Oops
from helpers import SHORT
from inturn import SKIP, Failure, Processes, Report, Retry, Threads, ordered_aflat_map, retry, sentinel
from loops import collect, run, settled, stream, virtual

EXECUTORS = ["thread", "serial"]
if hasattr(os, "fork"):
    EXECUTORS.append("process")


async def steps(x):
    """Zero to four elements, of which the second and the fourth take a turn of the loop."""
    for n in range(x % 5):
        if n % 2:
            await asyncio.sleep(0)
        yield x, n


async def breaks_after(n, x):
    for k in range(n):
        yield x, k
    raise Oops(x)


MODEL = [(x, n) for x in range(20) for n in range(x % 5)]


# ---- order and laziness --------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3, 20, None])
@pytest.mark.parametrize("buffer", [1, 2, 64])
@pytest.mark.parametrize("source", [list, stream])
@pytest.mark.parametrize("timeout", [None, 100.0])
def test_g01_elements_are_delivered_in_the_order_of_their_items(run, window, buffer, source, timeout):
    async def main():
        elements = ordered_aflat_map(
            steps, source(range(20)), concurrency=4, window=window, buffer=buffer, timeout=timeout
        )
        assert await collect(elements) == MODEL

    run(main)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("buffer", [1, 64])
def test_g32_a_plain_generator_function_runs_in_an_executor(run, executor, buffer):
    async def main():
        elements = ordered_aflat_map(calls.steps, range(20), concurrency=2, executor=executor, buffer=buffer)
        assert await collect(elements) == MODEL

    run(main)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=8),
    st.integers(1, 4),
    st.none() | st.integers(1, 5),
    st.integers(1, 3),
)
def test_g01_whatever_the_pace_of_the_lanes(pauses, concurrency, window, buffer):
    async def produce(lane):
        for n, pause in enumerate(lane):
            await asyncio.sleep(pause)
            yield n

    async def main():
        return await collect(ordered_aflat_map(produce, pauses, concurrency=concurrency, window=window, buffer=buffer))

    assert virtual(main) == [n for lane in pauses for n in range(len(lane))]


def test_the_heads_elements_are_delivered_as_they_are_produced():
    async def produce(x):
        for n in range(4):
            await asyncio.sleep(1)
            yield x, n

    async def main():
        loop = asyncio.get_running_loop()
        times = []
        async with ordered_aflat_map(produce, "ab", concurrency=2) as elements:
            async for x, n in elements:
                times.append((x, n, loop.time()))
        assert times == [*(("a", n, n + 1.0) for n in range(4)), *(("b", n, 4.0) for n in range(4))]

    virtual(main)


@pytest.mark.parametrize("buffer", [1, 2, 5])
def test_every_item_produces_at_most_buffer_elements_ahead_and_then_waits(run, buffer):
    made = [0, 0, 0]

    async def produce(x):
        for n in count():
            made[x] += 1
            yield x, n

    async def main():
        async with ordered_aflat_map(produce, range(3), concurrency=3, buffer=buffer) as elements:
            for taken in range(1, 3 * buffer):
                assert await anext(elements) == (0, taken - 1)
                assert made[0] <= taken + buffer
                await settled()
                assert made == [taken + buffer, buffer, buffer]

    run(main)


def test_up_to_concurrency_items_produce_at_once_and_one_that_waits_for_room_counts(run):
    now = peak = 0

    async def produce(x):
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        for _ in range(5):
            await asyncio.sleep(0)
            yield x
        now -= 1

    async def main():
        assert await collect(ordered_aflat_map(produce, range(9), concurrency=3, buffer=2)) == [
            x for x in range(9) for _ in range(5)
        ]
        assert peak == 3

    run(main)


def test_a_producer_that_never_waits_leaves_the_loop_to_others(run):
    async def produce(x):
        for n in count():
            yield n

    async def main():
        turns = 0

        async def other():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        task = asyncio.create_task(other())
        async with ordered_aflat_map(produce, range(2), buffer=10**9) as elements:
            for _ in range(50_000):
                await anext(elements)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert turns > 5

    run(main)


def test_fn_may_return_whatever_gives_an_async_iterable(run):
    async def listed(x):
        return [x, x]

    async def made(x):
        return steps(x)

    async def main():
        assert await collect(ordered_aflat_map(listed, range(2))) == [0, 0, 1, 1]
        assert await collect(ordered_aflat_map(made, range(20))) == MODEL
        assert await collect(ordered_aflat_map(lambda x: steps(x), range(20))) == MODEL
        assert await collect(ordered_aflat_map(lambda a, b: steps(a + b), [1, 2], stream([1, 1]))) == [
            (2, 0),
            (2, 1),
            (3, 0),
            (3, 1),
            (3, 2),
        ]

    run(main)


def test_g31_each_item_runs_in_its_own_copy_of_the_context(run):
    var = contextvars.ContextVar("var", default=0)

    async def produce(x):
        assert var.get() == 5
        for n in range(3):
            var.set(100 * x + n)
            await asyncio.sleep(0)
            yield var.get()
            assert var.get() == 100 * x + n

    async def main():
        var.set(5)
        got = await collect(ordered_aflat_map(produce, range(1, 4), concurrency=2))
        assert got == [100 * x + n for x in range(1, 4) for n in range(3)]
        assert var.get() == 5

    run(main)


# ---- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 3, 100])
@pytest.mark.parametrize("buffer", [1, 64])
def test_g08_a_failure_in_mid_stream_keeps_the_elements_already_produced(run, n, buffer):
    async def main():
        *got, failure = await collect(
            ordered_aflat_map(partial(breaks_after, n), "x", buffer=buffer, on_error="return")
        )
        assert got == [("x", k) for k in range(n)]
        assert isinstance(failure, Failure)
        assert (failure.delivered, failure.attempt) == (n, 1)
        assert isinstance(failure.error, Oops)
        elements = ordered_aflat_map(partial(breaks_after, n), "x", buffer=buffer)
        with pytest.raises(Oops) as caught:
            await collect(elements)
        assert caught.value.__notes__ == ["item 0: 'x'"]

    run(main)


@pytest.mark.parametrize(
    ("policy", "instead"), [("skip", []), (sentinel(None), [None]), (lambda f: SKIP, []), (lambda f: f.delivered, [2])]
)
def test_g09_what_the_policy_returns_takes_the_place_of_the_rest(run, policy, instead):
    async def main():
        got = await collect(ordered_aflat_map(partial(breaks_after, 2), "xy", on_error=policy, concurrency=2))
        assert got == [("x", 0), ("x", 1), *instead, ("y", 0), ("y", 1), *instead]
        got = await collect(ordered_aflat_map(partial(breaks_after, 1), "x", on_error=sentinel(0), indexed=True))
        assert got == [(0, ("x", 0)), (0, 0)]

    run(main)


POLICIES = {
    "retry": retry(attempts=9, backoff=0.001),
    "retry at once": retry(attempts=9, backoff=0),
    "a function": lambda failure: Retry(),
    "a function that pauses": lambda failure: Retry(after=0.001),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("bad", [0, 2])
def test_never_deadlocks_a_retrying_item_keeps_its_place_among_full_lanes(run, policy, concurrency, bad):
    async def main():
        attempts, now, peak = count(), 0, 0

        async def produce(x):
            nonlocal now, peak
            now += 1
            peak = max(peak, now)
            try:
                await asyncio.sleep(0)
                if x == bad and next(attempts) < 3:
                    raise Oops
                for _ in range(6):
                    yield x
            finally:
                now -= 1

        elements = ordered_aflat_map(produce, range(6), concurrency=concurrency, buffer=1, on_error=POLICIES[policy])
        assert await collect(elements) == [x for x in range(6) for _ in range(6)]
        assert elements.stats.retried == 3
        assert peak <= concurrency

    run(main)


@pytest.mark.parametrize("policy", POLICIES)
def test_g09_retry_is_honoured_only_if_the_item_has_produced_no_element(run, policy):
    async def main():
        elements = ordered_aflat_map(partial(breaks_after, 2), "x", on_error=POLICIES[policy])
        assert [await anext(elements), await anext(elements)] == [("x", 0), ("x", 1)]
        with pytest.raises(Oops):
            await anext(elements)

    run(main)


def test_g31_an_item_that_ends_cancelled_though_not_by_the_run_is_a_failure(run):
    async def produce(x):
        yield x
        raise asyncio.CancelledError

    async def main():
        report = Report(await collect(ordered_aflat_map(produce, range(2), on_error="return")))
        assert (len(report.successful), len(report.failed)) == (2, 2)

    run(main)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_g11_exits_go_to_the_consumer_in_turn_past_every_policy(run, error):
    async def produce(x):
        yield x
        if x == 1:
            raise error

    async def main():
        elements = ordered_aflat_map(produce, range(3), on_error="skip")
        assert [await anext(elements), await anext(elements)] == [0, 1]
        with pytest.raises(error):
            await anext(elements)

    run(main)


@pytest.mark.parametrize("fn", [lambda x: x, calls.steps, lambda x: [x]])
def test_g32_a_result_that_is_no_async_iterable_ends_the_run_and_names_the_executor(run, fn):
    async def main():
        elements = ordered_aflat_map(fn, range(3), on_error="skip")
        with pytest.raises(TypeError, match="executor="):
            await anext(elements)
        await elements.aclose()

    run(main)


# ---- time ----------------------------------------------------------------------------------------


def test_g17_a_limit_of_weeks_is_not_over_before():
    async def produce(x):
        await asyncio.sleep(3e6)
        yield x

    async def main():
        assert await collect(ordered_aflat_map(produce, range(3), timeout=3e6 + 1)) == [0, 1, 2]

    virtual(main)


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("buffer", [1, 64])
def test_g17_an_item_that_produces_longer_fails_after_the_elements_it_has_made(n, buffer):
    closed = []

    async def produce(x):
        try:
            for k in range(n):
                yield x, k
            if x == 1:
                await asyncio.sleep(1000)
        finally:
            closed.append(x)

    async def main():
        elements = ordered_aflat_map(produce, range(3), timeout=10.0, concurrency=2, on_error="return", buffer=buffer)
        got = await collect(elements)
        failure = got.pop(2 * n)
        assert got == [(x, k) for x in range(3) for k in range(n)]
        assert isinstance(failure.error, TimeoutError)
        assert failure.delivered == n
        assert sorted(closed) == [0, 1, 2]

    virtual(main)


def test_g17_time_spent_waiting_for_room_does_not_count(run):
    async def produce(x):
        for n in range(10):
            await asyncio.sleep(0)
            yield n

    async def main():
        async with ordered_aflat_map(produce, range(3), timeout=SHORT, concurrency=3, buffer=1) as elements:
            assert await anext(elements) == 0
            await asyncio.sleep(1.5 * SHORT)  # longer than any of them may produce
            assert await collect(elements) == [*range(1, 10), *range(10), *range(10)]

    run(main)


def test_g17_a_generator_that_does_not_heed_its_cancellation_is_given_up(run):
    async def main():
        stubborn = asyncio.Event()

        async def produce(x):
            yield x
            if x == 0:
                while not stubborn.is_set():
                    try:
                        await stubborn.wait()
                    except asyncio.CancelledError:
                        pass
            yield "late"

        elements = ordered_aflat_map(produce, range(2), timeout=SHORT, concurrency=1, on_error="skip")
        assert await collect_open(elements, 3) == [0, 1, "late"]
        assert elements.stats.abandoned == 1
        stubborn.set()
        await elements.aclose()

    run(main)


async def collect_open(elements, number):
    return [await anext(elements) for _ in range(number)]


# ---- closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [1, 64])
@pytest.mark.parametrize("how", ["break", "error", "aclose", "cancel"])
def test_g30_however_the_run_ends_every_generator_is_closed_and_its_cleanup_awaited(run, buffer, how):
    async def main():
        closed, before = [], asyncio.all_tasks()

        async def produce(x):
            try:
                for n in count():
                    yield x, n
                    if x == 2:
                        await asyncio.sleep(0)
            finally:
                await asyncio.sleep(0.01)  # a cleanup that takes a while
                closed.append(x)

        async def consume():
            async with ordered_aflat_map(produce, count(), concurrency=3, buffer=buffer) as elements:
                for _ in range(200):
                    await anext(elements)
                if how == "error":
                    raise Oops
                if how == "aclose":
                    await elements.aclose()
                    assert await collect(elements) == []
                if how == "cancel":
                    asyncio.current_task().cancel()
                    await asyncio.sleep(10)

        try:
            await asyncio.create_task(consume())
        except (Oops, asyncio.CancelledError):
            assert how in ("error", "cancel")
        assert sorted(closed) == [0, 1, 2]
        assert asyncio.all_tasks() == before

    run(main)


def test_g30_closing_ends_items_that_pause_and_that_nobody_has_decided(run):
    async def main():
        before = asyncio.all_tasks()

        async def produce(x):
            if x == 1:
                raise Oops
            if x == 2:
                raise KeyError
            while True:
                yield x

        policy = retry(on=KeyError, backoff=50.0, then=lambda failure: Retry())
        async with ordered_aflat_map(produce, range(3), concurrency=3, on_error=policy) as elements:
            assert await anext(elements) == 0
            await settled()
            assert elements.stats.running == 3
        assert asyncio.all_tasks() == before

    run(main)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_g32_closing_closes_plain_generators_where_they_run(run, executor, tmp_path):
    async def main():
        fn = partial(calls.notes, str(tmp_path))
        async with ordered_aflat_map(fn, range(3), concurrency=2, executor=executor, buffer=2) as elements:
            assert [await anext(elements) for _ in range(5)] == [0, 1, 2, 3, 4]
        assert (tmp_path / "0").read_text().endswith("closed\n")

    run(main)


@pytest.mark.parametrize("executor", ["thread", "serial"])
def test_g32_retries_and_failures_through_an_executor(run, executor):
    async def main():
        attempts = count()

        def produce(x):
            if x == 0 and next(attempts) < 2:
                raise Oops
            return [x] * 3

        for policy in POLICIES.values():
            elements = ordered_aflat_map(produce, range(4), concurrency=2, executor=executor, buffer=1, on_error=policy)
            assert await collect(elements) == [x for x in range(4) for _ in range(3)]
            attempts = count()

    run(main)


def test_g30_an_iterator_dropped_unclosed_closes_its_generators_and_warns(run):
    async def main():
        closed = []

        async def produce(x):
            try:
                for n in count():
                    yield n
            finally:
                closed.append(x)

        elements = ordered_aflat_map(produce, range(2), concurrency=2)
        assert await anext(elements) == 0
        with pytest.warns(ResourceWarning, match="unclosed"):
            del elements
            gc.collect()
        await settled()
        assert sorted(closed) == [0, 1]

    run(main)


def test_g23_a_second_consumer_gets_a_clear_error(run):
    async def main():
        gate = asyncio.Event()

        async def produce(x):
            await gate.wait()
            yield x

        elements = ordered_aflat_map(produce, range(1))
        first = asyncio.create_task(anext(elements))
        await settled()
        with pytest.raises(RuntimeError, match="already executing"):
            await anext(elements)
        gate.set()
        assert await first == 0
        await elements.aclose()

    run(main)


def test_g22_runs_nest(run):
    async def main():
        def inner(x):
            return ordered_aflat_map(steps, range(x), concurrency=2)

        got = await collect(ordered_aflat_map(inner, range(5), concurrency=2))
        assert got == [(y, n) for x in range(5) for y in range(x) for n in range(y % 5)]

    run(main)


def test_stats_and_progress(run):
    async def main():
        seen = []
        elements = ordered_aflat_map(steps, range(10), progress=seen.append)
        assert await collect(elements) == MODEL[:20]
        assert (seen[-1].delivered, elements.stats.total, elements.stats.running) == (10, 10, 0)
        assert "ordered_aflat_map of steps" in repr(elements)

    run(main)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"buffer": 0}, ValueError, "buffer must be at least 1, got 0"),
        ({"buffer": True}, TypeError, "buffer must be an int"),
        ({"buffer": None}, TypeError, "buffer must be an int"),
        ({"executor": "thread"}, TypeError, "leave executor= out"),
        ({"executor": "fork"}, ValueError, "executor must be"),
        ({"executor": 3}, TypeError, "executor must be"),
        ({"on_error": "ignore"}, ValueError, "on_error must be one of"),
        ({"timeout": 0}, ValueError, "timeout must be"),
        ({"live": True}, TypeError, "live"),
    ],
)
def test_bad_input_is_refused_at_the_call(settings, error, text):
    with pytest.raises(error, match=text):
        ordered_aflat_map(steps, [1], **settings)


@pytest.mark.parametrize("executor", [Threads(name="voice"), Processes(max_tasks_per_worker=2)])
def test_executors_with_settings(run, executor):
    async def main():
        assert await collect(ordered_aflat_map(calls.steps, range(5), executor=executor, concurrency=2)) == list(
            itertools.chain.from_iterable(map(calls.steps, range(5)))
        )

    run(main)
