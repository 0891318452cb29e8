"""`ordered_gather`: a list in order, the first failure in time, batches."""

import asyncio
import inspect
import itertools

import pytest

from event_loops import Steps, settled, stream, virtual
from functions_for_workers import Oops
from inturn import SKIP, Failure, Report, ordered_gather, retry, sentinel


async def double(x):
    await asyncio.sleep(0)
    return 2 * x


@pytest.mark.parametrize(
    "settings", [{}, {"concurrency": 1}, {"batch_size": 3}, {"batch_size": 1}, {"batch_size": 100}]
)
@pytest.mark.parametrize("source", [list, iter, stream])
def test_g33_it_returns_the_results_in_order(run, source, settings):
    async def main():
        assert await ordered_gather(double, source(range(20)), **settings) == [*range(0, 40, 2)]
        assert await ordered_gather(double, source([]), **settings) == []

    run(main)


def test_g33_many_items(run):
    async def main():
        async def same(x):
            return x

        assert await ordered_gather(same, range(20_000)) == [*range(20_000)]

    run(main)


def test_g33_several_sources_are_zipped(run):
    async def add(x, y):
        return x + y

    async def main():
        assert await ordered_gather(add, [1, 2, 3], stream([10, 20])) == [11, 22]

    run(main)


def test_g33_it_is_a_coroutine_function_and_checks_when_awaited(run):
    assert inspect.iscoroutinefunction(ordered_gather)

    async def main():
        for arguments, options, error in [
            ((1, []), {}, TypeError),
            ((double,), {}, TypeError),
            ((double, []), {"batch_size": 0}, ValueError),
            ((double, []), {"concurrency": 0}, ValueError),
            ((double, []), {"timeout": -1}, ValueError),
            ((double, []), {"on_error": "no"}, ValueError),
        ]:
            with pytest.raises(error):
                await ordered_gather(*arguments, **options)
        with pytest.raises(TypeError, match="executor="):
            await ordered_gather(lambda x: x, [1, 2])

    run(main)


def test_g33_concurrency_bounds_what_runs():
    async def main():
        inside = peak = 0

        async def fn(x):
            nonlocal inside, peak
            inside += 1
            peak = max(peak, inside)
            await asyncio.sleep(1)
            inside -= 1

        await ordered_gather(fn, range(50))
        assert peak == 16
        peak = 0
        await ordered_gather(fn, range(50), concurrency=7)
        assert peak == 7

    virtual(main)


@pytest.mark.parametrize("batch_size", [None, 5])
def test_g33_the_first_failure_in_time_is_raised_and_what_runs_is_cancelled(batch_size):
    async def main():
        loop, started, ended = asyncio.get_running_loop(), [], []

        async def fn(x):
            started.append(x)
            try:
                await asyncio.sleep(100 - 10 * x)
                raise Oops(x)
            finally:
                await asyncio.sleep(1)
                ended.append(x)

        with pytest.raises(Oops) as caught:
            await ordered_gather(fn, range(20), concurrency=3, batch_size=batch_size)
        assert caught.value.args == (2,)
        assert caught.value.__notes__ == ["item 2: 2"]
        assert started == [0, 1, 2]
        assert sorted(ended) == [0, 1, 2]
        assert loop.time() < 101

    virtual(main)


def test_g33_nothing_is_started_after_a_failure_not_even_a_retry(run):
    async def main():
        steps = Steps()

        async def fn(x):
            steps.add(x)
            if x == 3:
                raise ValueError
            await asyncio.sleep(0)
            if x == 0:
                raise Oops
            await asyncio.sleep(0)

        with pytest.raises(ValueError):
            await ordered_gather(fn, range(100), concurrency=2, on_error=retry(attempts=5, on=Oops, backoff=0))
        known = len(steps.seen)
        await settled()
        assert len(steps.seen) == known
        assert steps.seen.count(3) == 1
        assert max(steps.seen) <= 4

    run(main)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
def test_g33_errors_that_are_no_exceptions(run, error):
    async def main():
        async def fn(x):
            await asyncio.sleep(0)
            if x == 1:
                raise error
            await asyncio.sleep(1000)

        try:
            await ordered_gather(fn, range(10))
        except type(error) as raised:
            return raised

    assert run(main) is error


def test_g33_return_with_report_gives_the_partial_result(run):
    async def main():
        async def invert(x):
            await asyncio.sleep(0)
            return 1 / x

        report = Report(await ordered_gather(invert, [1, 0, 2, 0], on_error="return"))
        assert report.successful == [1.0, 0.5]
        assert [failure.index for failure in report.failed] == [1, 3]
        assert report.success_rate == 0.5

    run(main)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("skip", [0, 4]), (sentinel(None), [0, None, 4]), (lambda f: SKIP if f.index else 0, [0, 4])],
)
@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_g33_policies(run, policy, expected, batch_size):
    async def main():
        async def fn(x):
            if x == 1:
                raise Oops
            return 2 * x

        assert await ordered_gather(fn, range(3), on_error=policy, batch_size=batch_size) == expected

    run(main)


def test_g33_an_error_of_a_policy_or_of_the_source_is_raised(run):
    async def main():
        def policy(failure):
            raise ValueError

        async def fn(x):
            raise Oops

        with pytest.raises(ValueError) as caught:
            await ordered_gather(fn, [1], on_error=policy)
        assert isinstance(caught.value.__cause__, Oops)

        def items():
            yield 1
            raise OSError

        with pytest.raises(OSError):
            await ordered_gather(double, items())
        with pytest.raises(OSError):
            await ordered_gather(double, stream(items()))

    run(main)


@pytest.mark.parametrize("source", [iter, stream])
def test_g33_a_batch_is_finished_before_the_next_is_pulled_and_begins(source):
    async def main():
        events, running = [], 0

        def items():
            for x in range(10):
                events.append(("pulled", x, running))
                yield x

        async def fn(x):
            nonlocal running
            running += 1
            await asyncio.sleep(10 - x)
            running -= 1
            events.append(("ended", x, running))
            return x

        assert await ordered_gather(fn, source(items()), batch_size=4, concurrency=3) == [*range(10)]
        for first in (4, 8):
            pulled = events.index(("pulled", first, 0))
            assert {x for name, x, _ in events[:pulled] if name == "ended"} == set(range(first))

    virtual(main)


def test_g33_timeouts():
    async def main():
        async def fn(x):
            await asyncio.sleep(100 if x == 3 else 1)
            return x

        got = await ordered_gather(fn, range(6), timeout=5, on_error="return")
        assert [isinstance(x, Failure) for x in got] == [False, False, False, True, False, False]
        with pytest.raises(TimeoutError):
            await ordered_gather(fn, range(6), timeout=5)

    virtual(main)


def test_g30_cancelling_it_cancels_and_awaits_what_runs(run):
    async def main():
        steps = Steps()

        async def fn(x):
            steps.add(x)
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                steps.add("ended")

        task = asyncio.create_task(ordered_gather(fn, itertools.repeat(0), concurrency=3))
        await steps.wait(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps.seen.count("ended") == 3

    run(main)
