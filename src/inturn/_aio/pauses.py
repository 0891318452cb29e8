"""Pauses before a retry where calls are tasks: timers of the event loop."""

from __future__ import annotations

import asyncio

from inturn._core.job import Job
from inturn._core.roles import Timekeeper
from inturn._engine.chunk import Chunk

from .events import Timer

__all__ = ["Pauses"]


class Pauses(Timekeeper):
    """Lets an item run again after its pause, as the supervisor does on threads.

    Tasks need nothing else of a supervisor: `TaskPool` itself keeps time limits.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._timers: dict[Chunk, Timer] = {}
        self._look: Timer | None = None  # for the limit

    def later(self, seconds: float, chunk: Chunk) -> None:
        """Let the chunk run again after so many seconds."""
        self._timers[chunk] = Timer(asyncio.get_running_loop(), seconds, (self._over, chunk), self._job.context)

    def _over(self, chunk: Chunk) -> None:
        del self._timers[chunk]
        self._job.window.again(chunk)
        self._job.pool.notify(1)

    def look_in(self, seconds: float) -> None:
        """Call `TaskPool.notify` in so many seconds, if not before; in the loop's thread."""
        loop = asyncio.get_running_loop()
        if self._look is not None:
            if self._look.due <= loop.time() + seconds:
                return
            self._look.cancel()
        self._look = Timer(loop, seconds, (self._looks, None), self._job.context)

    def _looks(self, _: None) -> None:
        self._look = None
        self._job.pool.notify(1)

    def __bool__(self) -> bool:
        return bool(self._timers) or self._look is not None

    def cancel(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._look is not None:
            self._look.cancel()
            self._look = None
