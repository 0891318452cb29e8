"""What a coroutine waits for: an event, the end of tasks, calls in a thread."""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop  # None where get_running_loop raises
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, Final

from inturn._base.signals import Dropping
from inturn._core.threads import DAEMON

__all__ = ["LoopEvent", "all_done", "call_in", "in_thread", "tell"]

_FOR_EVER_S: Final = 1e9  # a loop cannot count any number of seconds (uvloop: milliseconds in 64 bits)


def call_in(seconds: float, fn: Callable[[Any], object], argument: Any, context: Context | None) -> asyncio.TimerHandle:
    """Have the running loop call the function after so many seconds."""
    seconds = min(seconds, _FOR_EVER_S)
    return asyncio.get_running_loop().call_later(seconds, fn, argument, context=context)


class LoopEvent:
    """An event for one coroutine of the running loop: any code may `set` it, the coroutine waits.

    A `set` while nothing waits ends the next `wait` at once: a `wait` may end without a reason, but
    no `set` is lost.
    """

    __slots__ = ("_future", "_loop", "_set")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None
        self._set = False

    def set(self) -> None:
        """Set it; from any thread, a finaliser or a signal handler."""
        if _get_running_loop() is self._loop:
            self._wake()
        else:
            tell(self._loop, self._wake)

    def _wake(self) -> None:
        self._set = True
        if self._future is not None:
            _resolve(self._future)

    async def wait(self, timeout: float | None) -> bool:  # noqa: ASYNC109 - as every event of the library
        """Wait until it is set, for at most so many seconds; returns whether it was set."""
        if not self._set:
            future = self._future = self._loop.create_future()
            timer = None if timeout is None else call_in(timeout, _resolve, future, None)
            try:
                await future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        was_set, self._set = self._set, False
        return was_set


class _AllDone(asyncio.Future[None]):
    """A future that is done when the last of some tasks is, and that cannot be cancelled.

    If a task that awaits it is cancelled, asyncio raises ``CancelledError`` there in the end, and
    once. To catch each ``CancelledError`` and wait again would not do: a cancel scope of anyio
    cancels the task in every turn of the loop, so the loop would never sleep.
    """

    def __init__(self, tasks: list[asyncio.Task[Any]]) -> None:
        super().__init__()
        self._left = len(tasks)
        for task in tasks:
            task.add_done_callback(self._one_done)

    def cancel(self, msg: Any = None) -> bool:
        return False

    def _one_done(self, task: asyncio.Task[Any]) -> None:
        self._left -= 1
        if not self._left:
            self.set_result(None)


def _resolve(future: asyncio.Future[None]) -> None:
    try:
        future.set_result(None)  # one step: what is not done after a signal handler's exception would never be
    except asyncio.InvalidStateError:  # done before
        pass


def tell(loop: asyncio.AbstractEventLoop, fn: Callable[[], object]) -> None:
    """Have the loop call the function, unless the loop is closed; from any thread."""
    with Dropping(RuntimeError):
        loop.call_soon_threadsafe(fn)


async def all_done(
    pending: Callable[[], Iterable[asyncio.Task[Any]]], seen: frozenset[asyncio.Task[Any]] = frozenset()
) -> None:
    """Wait for tasks that were cancelled, and for tasks that appear meanwhile (guarantee 30).

    A cancellation of the task that waits is not passed on to them, but raised in the end, as by
    ``asyncio.TaskGroup``.
    """
    me = asyncio.current_task()
    while waiting := [task for task in pending() if task not in seen and task is not me]:
        seen |= {*waiting}  # one that has just ended is waited for, too: until its callbacks have been called
        try:
            await _AllDone(waiting)
        except asyncio.CancelledError:
            await all_done(pending, seen)
            raise


async def in_thread(*calls: Callable[[], object]) -> None:
    """Make calls that may block, in a thread of their own. If the wait is cancelled, they go on.

    The loop's own executor would not do: all its threads may be busy, even with calls of this run.
    """
    done = LoopEvent()

    def work() -> None:
        try:
            for call in calls:
                call()
        finally:
            done.set()

    thread = threading.Thread(target=work, name="inturn-closer", daemon=DAEMON)
    thread.start()
    await done.wait(None)
    thread.join()  # it is at its end
