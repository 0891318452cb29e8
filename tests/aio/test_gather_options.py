"""`ordered_gather` with `executor`, `deadline`, `progress` and the policy "abort"."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from coroutines import double as double_async
from functions_for_workers import Oops, double
from inturn import Failure, Processes, ordered_gather
from waiting import HOUR, SHORT, Gate


def plain_oops(x):
    raise Oops(x)


@pytest.mark.parametrize("executor", ["thread", "serial", "process", ThreadPoolExecutor, Processes()], ids=str)
def test_g32_gather_runs_plain_functions_elsewhere(executor):
    async def main():
        assert await ordered_gather(double, range(40), executor=executor) == [*range(0, 80, 2)]
        assert await ordered_gather(double, range(5), executor=executor, batch_size=2) == [0, 2, 4, 6, 8]
        failures = await ordered_gather(plain_oops, range(2), executor=executor, on_error="return")
        assert all(isinstance(failure, Failure) for failure in failures)
        with pytest.raises(Oops):
            await ordered_gather(plain_oops, range(3), executor=executor)

    asyncio.run(main())


def test_g32_gather_does_not_block_the_loop():
    async def main():
        gate = Gate()
        waiting = asyncio.create_task(ordered_gather(lambda x: gate.wait(), range(2), executor="thread"))
        await asyncio.sleep(0)
        gate.open()
        assert await waiting == [None, None]

    asyncio.run(main())


def test_g33_a_failure_does_not_wait_for_calls_in_threads():
    stuck = Gate()

    def call(x):
        if x:
            raise Oops(x)
        stuck.wait()

    async def main():
        with pytest.raises(Oops):
            await ordered_gather(call, range(2), executor="thread", concurrency=2)
        assert not stuck.is_open
        stuck.open()

    asyncio.run(main())


@pytest.mark.parametrize("policy", ["raise", "abort"])
def test_g33_abort_is_what_raise_means_here(policy):
    async def main():
        begun, cancelled = asyncio.Event(), []

        async def call(x):
            if x:
                await begun.wait()
                raise Oops(x)
            try:
                begun.set()
                await asyncio.sleep(HOUR)
            finally:
                cancelled.append(x)

        with pytest.raises(Oops) as caught:
            await ordered_gather(call, range(2), on_error=policy)
        assert cancelled == [0]
        assert caught.value.__notes__ == ["item 1: 1"]

    asyncio.run(main())


def test_g18_gather_has_a_deadline():
    async def main():
        ended = []

        async def call(x):
            try:
                await asyncio.sleep(HOUR * x)
            finally:
                ended.append(x)

        with pytest.raises(TimeoutError, match="deadline"):
            await ordered_gather(call, range(3), deadline=SHORT / 3)
        assert sorted(ended) == [0, 1, 2]
        assert await ordered_gather(double_async, range(3), deadline=HOUR) == [0, 2, 4]

    asyncio.run(main())


def test_gather_shows_progress():
    seen = []

    async def main():
        assert await ordered_gather(double_async, range(30), progress=seen.append) == [*range(0, 60, 2)]

    asyncio.run(main())
    assert seen[-1].delivered == 30
    assert seen[-1].total == 30


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"executor": "thread"}, TypeError, "leave executor= out"),
        ({"executor": "threads"}, ValueError, "executor must be"),
        ({"deadline": 0}, ValueError, "deadline must be"),
        ({"progress": 3}, TypeError, "progress must be"),
    ],
)
def test_gather_checks_them(arguments, error, words):
    async def main():
        with pytest.raises(error, match=words):
            await ordered_gather(double_async, [1], **arguments)

    asyncio.run(main())
    assert threading.active_count() >= 1
