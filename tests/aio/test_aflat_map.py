"""`ordered_aflat_map`: async generators in tasks, and plain ones through an executor: order, bounds, failures."""

import asyncio
import contextvars
import os
from functools import partial
from itertools import count

import pytest

import generators_for_workers as calls
from coroutines import steps
from event_loops import collect, settled, stream, virtual
from generators_for_workers import Oops
from inturn import SKIP, Failure, Report, Retry, ordered_aflat_map, retry, sentinel

EXECUTORS = ["thread", "serial"]
if hasattr(os, "fork"):
    EXECUTORS.append("process")


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
def test_g09_what_the_policy_returns_takes_the_place_of_the_remainder(run, policy, instead):
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
def test_never_deadlocks_a_retrying_item_keeps_its_slot_among_full_lanes(run, policy, concurrency, bad):
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
