"""`ordered_aflat_map`: time limits, closing, and bad input."""

import asyncio
import gc
import itertools
import os
from functools import partial
from itertools import count

import pytest

import generators_for_workers as calls
from coroutines import steps
from event_loops import collect, settled, virtual
from generators_for_workers import Oops
from inturn import Processes, Retry, Threads, ordered_aflat_map, retry
from waiting import SHORT

EXECUTORS = ["thread", "serial"]
if hasattr(os, "fork"):
    EXECUTORS.append("process")


MODEL = [(x, n) for x in range(20) for n in range(x % 5)]


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


def test_g30_an_iterator_dropped_unclosed_closes_its_generators_and_warns(run):
    async def main():
        both_began, closed = asyncio.Event(), []

        async def produce(x):
            if x == 1:
                both_began.set()
            try:
                for n in count():
                    yield n
            finally:
                closed.append(x)

        elements = ordered_aflat_map(produce, range(2), concurrency=2)
        assert await anext(elements) == 0
        await both_began.wait()  # in the same turn, unless the machine is busy
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
