"""How tasks are made in a loop, and the coroutine that they run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from inturn._model.outcome import Kind

__all__ = ["Make", "WrappedError", "call", "maker"]

Make = Callable[[Coroutine[Any, Any, Any], Context], "asyncio.Task[Any]"]


class WrappedError(Exception):
    """Wraps an error that leaves a task: asyncio would stop the loop at a ``SystemExit``."""

    def __init__(self, error: BaseException, kind: Kind) -> None:
        self.error = error
        self.kind = kind


async def call(fn: Callable[[Any], Any], item: Any) -> Any:
    """What a task runs if ``fn`` is known to be async."""
    try:
        return await fn(item)
    except (SystemExit, KeyboardInterrupt) as error:
        caught = error
    raise WrappedError(caught, Kind.PASSING)


def maker(loop: asyncio.AbstractEventLoop) -> Make | None:
    """The function that makes tasks in this loop; eager ones, where Python has them.

    A task factory of the user's is respected. None on Python 3.11 without one: there `eager` is
    used.
    """
    factory = loop.get_task_factory()
    if sys.version_info >= (3, 12):
        if factory is None or factory is asyncio.eager_task_factory:
            return lambda coro, context: asyncio.Task(coro, loop=loop, context=context, eager_start=True)
    elif factory is None:
        return None
    return lambda coro, context: loop.create_task(coro, context=context)
