"""Async sources: a `TaskFeeder` zips and pulls them, so that a ready head never waits.

It pulls within the window: room is reserved before the pull begins. Cancelling it while it pulls
cancels the source, which ends an async generator; while it waits for room, the source stays as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from inturn._base import checks
from inturn._core.job import Job
from inturn._core.source import HANDFUL_S
from inturn._model.outcome import Err, Kind, without_our_frames

from .events import LoopEvent
from .pulled_in_thread import PulledInThread

__all__ = ["TaskFeeder"]


class TaskFeeder:
    """Pulls from sources, one of which at least is async, in a task of its own."""

    _event: LoopEvent  # since `start`

    def __init__(self, sources: tuple[Any, ...], job: Job, *, strict: bool) -> None:
        each = [checks.iterator(source, position, len(sources)) for position, source in enumerate(sources)]
        self._take: Callable[[], Awaitable[Any]] | None
        self._take = each[0].__anext__ if len(each) == 1 else partial(_zipped, each, strict)
        self.in_thread = [each for each in sources if isinstance(each, PulledInThread)]
        self.tasks: list[asyncio.Task[None]] = []
        self._job = job

    def start(self) -> None:
        self._event = LoopEvent()
        name, context = self._job.label("feeder"), self._job.context.copy()
        loop = asyncio.get_running_loop()
        self.tasks.append(loop.create_task(self._feed(), name=name, context=context))

    def room(self) -> None:
        """The consumer has delivered something (guarantee 29); called by the consumer only."""
        self._event.set()

    def cancel(self) -> None:
        """Cancel the feeder, only once: a second time would interrupt the cleanup of the source."""
        take, self._take = self._take, None
        for each in self.in_thread:
            each.stop()
        if take is not None:
            for task in self.tasks:
                task.cancel()

    async def _feed(self) -> None:
        try:
            await self._pull(self._take)
        except BaseException as error:  # it ends the run, unless the run's end has caused it
            if not self._job.stopped:
                without_our_frames(error)
                self._job.crash(error)
        finally:
            self._take = None

    async def _pull(self, take: Any) -> None:
        job, event, clock = self._job, self._event, self._job.clock
        window, pool = job.window, job.pool
        add = window.add if job.trace is None else job.trace.adding(window.add, clock)
        until = clock() + HANDFUL_S
        while True:
            while window.room() < 1:
                await event.wait(None)
                until = clock() + HANDFUL_S
            if not job.may_start() or window.last_index < window.pulled:
                return
            begun = clock()
            try:
                item = await take()
            except Exception as error:  # it is raised in its turn
                final = None
                if not isinstance(error, StopAsyncIteration):
                    if job.stopped:
                        return
                    without_our_frames(error)
                    final = Err(error, kind=Kind.SOURCE)
                fresh, final = window.finish(final), None  # the frames of the error keep this one
                pool.notify(fresh)
                job.notify()  # the consumer may wait for an item that does not come
                return
            finally:
                job.pulling_s += clock() - begun
            if job.stopped:
                return  # the source has caught its cancellation: the item is lost
            if job.origins is not None:
                job.origins.pulled()
            fresh = add(item)
            del item
            if job.watcher is not None:
                job.watcher.pulled()
            if fresh and pool.has_capacity():
                pool.notify(fresh)
            if clock() >= until:  # the source does not wait: let other tasks run
                await asyncio.sleep(0)
                until = clock() + HANDFUL_S


async def _zipped(iterators: list[Any], strict: bool) -> tuple[Any, ...]:
    """The next item of ``zip`` for iterators of both kinds."""
    items: list[Any] = []
    try:
        for iterator in iterators:
            items.append(await _next(iterator))  # noqa: PERF401 - `_compare` needs those before the end
    except StopAsyncIteration:
        if strict:
            await _compare(iterators, len(items))
        raise
    return tuple(items)


async def _compare(iterators: list[Any], ended: int) -> None:
    """Raise what ``zip(strict=True)`` raises: those before this iterator have not ended."""
    lengths = [1] * ended + [0]  # one item stands for any number
    for longer in () if ended else iterators[1:]:
        try:
            await _next(longer)
        except StopAsyncIteration:
            lengths.append(0)
        else:
            lengths.append(1)
            break
    list(zip(*map(range, lengths), strict=True))


async def _next(iterator: Any) -> Any:
    if hasattr(type(iterator), "__anext__"):
        return await anext(iterator)
    try:
        return next(iterator)
    except StopIteration:
        raise StopAsyncIteration from None
