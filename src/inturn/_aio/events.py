"""What a coroutine waits with: for a run's workers (`Bell`), for tasks to end (`all_done`), for threads to end
(`in_thread`).

A bell is rung from anywhere: in the loop's thread that sets a future, from any other thread the loop is woken first.
A ring that comes while nobody waits is remembered, and answers the next wait at once; so it may be heard for nothing,
and never missed.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop  # None where get_running_loop raises
from collections.abc import Callable, Iterable
from typing import Any

from inturn._base.events import LONG_S

__all__ = ["Bell", "all_done", "in_thread", "tell"]


class Bell:
    """Takes the place of the queue in `Job.wake`."""

    __slots__ = ("_future", "_loop", "_rung")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self._rung = False

    def set(self) -> None:
        """Ring; from anywhere."""
        if _get_running_loop() is self._loop:
            self._ring()
        else:
            tell(self._loop, self._ring)

    def _ring(self) -> None:
        self._rung = True
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    async def wait(self, seconds: float | None) -> bool:
        """Until it rings; False if that took too long."""
        if not self._rung:
            future = self._future = self._loop.create_future()
            timer = None
            if seconds is not None:
                timer = self._loop.call_later(min(seconds, LONG_S), _set, future)
            try:
                await future
            finally:
                self._future = None
                if timer is not None:
                    timer.cancel()
        rung, self._rung = self._rung, False
        return rung


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def tell(loop: asyncio.AbstractEventLoop, fn: Callable[[], object]) -> None:
    """Have the loop call the function; from anywhere. A loop that is closed has nobody left to tell."""
    try:
        loop.call_soon_threadsafe(fn)
    except RuntimeError:
        pass


async def all_done(pending: Callable[[], Iterable[asyncio.Task[Any]]]) -> None:
    """Wait for tasks that have been cancelled, and for what else there is by then, its cleanup included.

    A cancellation that arrives meanwhile is passed on to them, so that a cleanup that waits can be cut short; it is
    raised in the end.
    """
    cancelled: asyncio.CancelledError | None = None
    me = asyncio.current_task()
    while waiting := [task for task in pending() if not task.done() and task is not me]:
        try:
            await asyncio.wait(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
            for task in waiting:
                task.cancel()
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled


async def in_thread(*calls: Callable[[], object]) -> None:
    """Make calls that may block, in a thread of their own; a cancellation leaves them to themselves.

    Not in the loop's executor, whose threads may all be busy, with this very run even.
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def work() -> None:
        try:
            for call in calls:
                call()
        finally:
            tell(loop, lambda: _set(done))

    thread = threading.Thread(target=work, name="inturn-closer", daemon=True)
    thread.start()
    await done
    thread.join()  # it has nothing left to do
