"""`ordered_amap`: what its function may be and return, and bad input."""

import asyncio

import pytest

from coroutines import double
from event_loops import collect, stream
from inturn import ordered_amap, ordered_map

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
