"""Event loops for the async tests: each kind that there is, and one whose clock is virtual.

`run_in` runs a coroutine function in a new loop, and then checks that nothing is left: no task, nothing said to the
exception handler, nothing logged. The fixture `run` of `tests/aio/conftest.py` does so once per kind of loop. `virtual(main)`
does so in a loop in which no time passes while nothing happens: sleeps end in the order of their lengths, at once.
"""

import asyncio
import gc
import heapq
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from waiting import HANG_S

LIMIT_S = HANG_S * (3 if asyncio.coroutines._is_debug_mode() else 1)  # as long as this is a hang


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time goes on only when there is nothing else to do, and then as far as the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_now = 0.0
        select = self._selector.select

        def skip(timeout: float | None = None) -> Any:
            events = select(0)
            if not events and timeout is None:
                raise AssertionError("nothing will ever happen again: a deadlock")
            if not events and timeout:
                self._virtual_now += timeout
            return events

        self._selector.select = skip  # type: ignore[method-assign]

    def time(self) -> float:
        return self._virtual_now


def _eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    return loop


def _factory() -> asyncio.AbstractEventLoop:
    """A loop with a task factory of the user's."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))
    return loop


KINDS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "factory": _factory}
if sys.version_info >= (3, 12):
    KINDS["eager"] = _eager
try:
    import uvloop
except ImportError:
    pass
else:
    KINDS["uvloop"] = uvloop.new_event_loop
    uvloop.new_event_loop().close()  # the first one opens descriptors that stay


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


def run_in(make: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run as `asyncio.run` does, and check that nothing is left behind."""
    heard = _Heard()
    logger = logging.getLogger("asyncio")
    logger.addHandler(heard)
    contexts: list[dict[str, Any]] = []
    try:
        with asyncio.Runner(loop_factory=make) as runner:
            loop = runner.get_loop()
            loop.slow_callback_duration = 60.0  # a loaded machine is no fault of the test
            loop.set_exception_handler(lambda _, context: contexts.append(context))

            async def guarded() -> Any:
                try:
                    result = await main() if make is VirtualLoop else await asyncio.wait_for(main(), LIMIT_S)
                finally:
                    await settled()
                    left = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
                assert not left, f"left behind: {left}"
                return result

            result = runner.run(guarded())
        gc.collect()  # what was dropped says so now
    finally:
        logger.removeHandler(heard)
    assert not contexts, contexts
    assert not heard.said, heard.said
    return result


async def settled() -> None:
    """Give the loop turns until nothing more happens by itself."""
    for _ in range(30):
        await asyncio.sleep(0)


def virtual(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return run_in(VirtualLoop, main)


class Steps:
    """What has happened, in order; waited for without a clock."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def add(self, step: Any) -> None:
        self.seen.append(step)
        while self._waiters and self._waiters[0][0] <= len(self.seen):
            _, waiter = heapq.heappop(self._waiters)
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, count: int) -> list[Any]:
        if len(self.seen) < count:
            waiter = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiters, (count, waiter))
            await waiter
        return list(self.seen)


async def collect(results: Any) -> list[Any]:
    async with results:
        return [result async for result in results]


async def stream(items: Any, *, on_end: Callable[[], object] | None = None) -> Any:
    """An async generator over the items."""
    try:
        for item in items:
            await asyncio.sleep(0)
            yield item
    finally:
        if on_end is not None:
            on_end()
