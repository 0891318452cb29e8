"""What ends with an asynchronous run: its calls, its feeder, and what its loop knows of it.

A `Cleanup` does not refer to the run's handle. asyncio keeps a list of async generators that are
open, and closes them when the loop shuts down. The library has one async generator, the shutdown
hook, for this reason only: closing it closes the open run.

======== =========================== ===========================================================
cleanup  condition                   left by
======== =========================== ===========================================================
new      ``loop`` is None            `take`
open     ``_hook`` is set            `stop`, by the driver or the shutdown hook; `drop`
over     ``_hook`` is None           (`gone` waits for what is left)
======== =========================== ===========================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from inturn._core.job import CLOSED, DROPPED, End, Job, inside
from inturn._model.handle import Handle

from .events import LoopEvent, all_done, in_thread
from .source import TaskFeeder
from .tasks import TaskPool

__all__ = ["Cleanup"]


class Cleanup:
    """Ends the calls and the feeder of a run, and waits for them (guarantee 30)."""

    def __init__(self, job: Job, feeder: TaskFeeder | None, upstream: tuple[Handle, ...] = ()) -> None:
        self.job = job
        self.upstream = upstream  # the runs that are its sources: they end with it (guarantee 37)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.feeder = feeder
        self._hook: AsyncGenerator[None, None] | None = None

    def take(self, loop: asyncio.AbstractEventLoop) -> None:
        """The run begins in this loop."""
        self.loop = loop
        self.job.wake = LoopEvent(loop)
        adopt: Callable[[Job], object] | None = getattr(loop, "adopt_run", None)  # of `inturn.testing`
        if adopt is not None:
            adopt(self.job)
        hook = self._hook = _shutdown_hook(self)
        try:
            hook.asend(None).send(None)
        except StopIteration:  # the hook has reached its yield
            pass

    def stop(self, end: End = CLOSED) -> None:
        """Start nothing from now on, and cancel what runs; in the loop's thread."""
        self.job.stop(end)
        for each in self.upstream:
            each._leave_chain()
        if isinstance(self.job.pool, TaskPool):
            self.job.pool.cancel()
        if self.feeder is not None:
            self.feeder.cancel()
        self.drop()

    def drop(self) -> None:
        """The run is over: remove its shutdown hook."""
        hook, self._hook = self._hook, None
        if hook is not None:
            try:
                hook.aclose().send(None)
            except (StopIteration, RuntimeError):  # RuntimeError: the hook itself is the caller
                pass

    def tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks of the run, and of the runs that are its sources, in the loop that runs."""
        tasks: list[asyncio.Task[Any]] = []
        for each in self.upstream:
            tasks += each._tasks()
        if inside(self.job) or asyncio.get_running_loop() is not self.loop:
            return tasks  # it would wait for itself; or it has not begun, or its loop and its tasks have ended
        if self.feeder is not None:
            tasks += self.feeder.tasks()
        if isinstance(self.job.pool, TaskPool):
            tasks += self.job.pool.tasks()
        return tasks

    def joins(self) -> list[Callable[[], object]]:
        """Calls that wait for the threads and processes of the run, and of the runs that are its sources.

        What does not have to wait is done at once.
        """
        job = self.job
        joins = [join for each in self.upstream for join in each._joins()]
        if inside(job) or self.loop is None:
            return joins
        if job.pool.inline:  # its calls run here, so there is nothing that takes long
            job.supervisor.join()
            job.pool.join()
        elif not isinstance(job.pool, TaskPool):
            joins += [job.supervisor.join, job.pool.join]
        return joins if self.feeder is None else joins + self.feeder.joins()

    async def gone(self, *, threads: bool) -> None:
        """After `stop`: wait for all tasks of the run, and with `threads` for its other workers."""
        if inside(self.job):
            return  # the caller is a call of the run or its source: it would wait for itself
        await all_done(self.tasks)
        if threads and (joins := self.joins()):
            await in_thread(*joins)


async def _shutdown_hook(cleanup: Cleanup) -> AsyncGenerator[None, None]:
    """Ends the run if its loop shuts down while the run is open (guarantee 15)."""
    try:
        yield
    finally:
        if cleanup._hook is not None:
            cleanup.stop(DROPPED)
            cleanup.job.pool.retire()
            await cleanup.gone(threads=True)
