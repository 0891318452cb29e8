"""`ordered_amap`: order, laziness, the window, pulling, and several sources."""

import asyncio
import itertools

import pytest

from coroutines import double, double_later
from event_loops import Steps, collect, settled, stream, virtual
from inturn import ordered_amap


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


def test_g03_an_async_source_is_pulled_to_the_bound_and_no_further(run):
    async def main():
        pulled = []

        async def source():
            for i in range(100):
                pulled.append(i)
                yield i

        async with ordered_amap(double, source(), concurrency=1, window=3) as results:
            for delivered in range(1, 6):
                await anext(results)
                await settled()
                assert len(pulled) == delivered + 3

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
