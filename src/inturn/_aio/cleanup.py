"""What is ended with an asynchronous run: its calls, its feeder, and what its loop knows of it.

A `Cleanup` does not refer to the run's handle. The one async generator of the library, `_shutdown_hook`, is there
because asyncio remembers open async generators and closes them when the loop shuts down: with it, the open run is
closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from inturn._core.job import CLOSED, DROPPED, End, Job, inside

from .events import LoopEvent, all_done, in_thread
from .source import TaskFeeder
from .tasks import TaskPool

__all__ = ["Cleanup"]


class Cleanup:
    """What is ended with a run: its calls, and the feeder (guarantee 30)."""

    def __init__(self, job: Job, feeder: TaskFeeder | None) -> None:
        self.job = job
        self.loop: asyncio.AbstractEventLoop | None = None
        self.feeder = feeder
        self._hook: AsyncGenerator[None, None] | None = None

    def take(self, loop: asyncio.AbstractEventLoop) -> None:
        """The run is in the hands of this loop."""
        self.loop = loop
        self.job.wake = LoopEvent(loop)
        hook = self._hook = _shutdown_hook(self)
        try:
            hook.asend(None).send(None)
        except StopIteration:  # it has come to its yield
            pass

    def stop(self, end: End = CLOSED) -> None:
        """Nothing is started any more, and what runs is cancelled (in the loop)."""
        self.job.stop(end)
        if isinstance(self.job.pool, TaskPool):
            self.job.pool.cancel()
        if self.feeder is not None:
            self.feeder.cancel()
        self.drop()

    def drop(self) -> None:
        """The run is over: the loop need not care for it."""
        hook, self._hook = self._hook, None
        if hook is not None:
            try:
                hook.aclose().send(None)
            except (StopIteration, RuntimeError):  # RuntimeError: it is what has called us
                pass

    def tasks(self) -> list[asyncio.Task[Any]]:
        tasks: list[asyncio.Task[Any]] = [] if self.feeder is None else [*self.feeder.tasks()]
        return tasks + self.job.pool.tasks() if isinstance(self.job.pool, TaskPool) else tasks

    async def gone(self, *, threads: bool) -> None:
        """Until nothing of the run is left (after `stop`), calls in threads and processes included if so wanted."""
        job = self.job
        if inside(job):
            return  # a call of the run itself, or its source, would wait for itself
        if asyncio.get_running_loop() is not self.loop:
            return  # the run has begun nothing, or has ended with its loop
        await all_done(self.tasks)
        if threads and not isinstance(job.pool, TaskPool) and self.loop is not None:
            await in_thread(job.supervisor.join, job.pool.join)


async def _shutdown_hook(cleanup: Cleanup) -> AsyncGenerator[None, None]:
    """Closed by the loop when it shuts down with the run still open, so that no task is left pending then."""
    try:
        yield
    finally:
        if cleanup._hook is not None:
            cleanup.stop(DROPPED)
            cleanup.job.pool.retire()
            await cleanup.gone(threads=True)
