"""Async sources: `together` zips them; a `TaskFeeder` pulls, so that a ready head never waits.

The feeder is a task that pulls within the window: room is reserved before the pull begins.

======== ============================== ======================================================
feeder   condition                      left by
======== ============================== ======================================================
pulling  ``pulling``                    an item; the end or an error of the source; `cancel`
full     it waits for its event         `room`; `cancel`
done     its task is done               (the source has ended or failed, or the run is over)
======== ============================== ======================================================

Cancelling a feeder that pulls cancels the source, which ends an async generator. Cancelling one
that waits for room leaves the source as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from inturn._base import checks
from inturn._core.job import Job
from inturn._core.source import HANDFUL_S
from inturn._engine.window import Window
from inturn._model.outcome import Err, Kind, without_our_frames

from .events import LoopEvent
from .pulled_in_thread import PulledInThread

__all__ = ["TaskFeeder", "together"]


def together(sources: tuple[Iterable[Any] | AsyncIterable[Any], ...], *, strict: bool) -> AsyncIterator[Any]:
    """One async iterator over the items; `iter` of each source is taken at this call."""
    each: list[Iterator[Any] | AsyncIterator[Any]] = []
    for source in sources:
        each.append(checks.iterator(source, len(each), len(sources)))
    if len(each) == 1:
        return each[0]  # type: ignore[return-value]
    return _Zip(each, strict=strict)


class _Zip:
    """``zip`` for iterators of both kinds."""

    def __init__(self, iterators: list[Any], *, strict: bool) -> None:
        self._iterators = iterators
        self._strict = strict
        self._ended = False

    def __aiter__(self) -> _Zip:
        return self

    async def __anext__(self) -> tuple[Any, ...]:
        if self._ended:
            raise StopAsyncIteration
        items: list[Any] = []
        try:
            for iterator in self._iterators:
                items.append(await _next(iterator))  # noqa: PERF401 - `_compare` needs those before the end
        except StopAsyncIteration:
            self._ended = True
            if self._strict:
                await self._compare(len(items))
            raise
        return tuple(items)

    async def _compare(self, position: int) -> None:
        """Raise what ``zip(strict=True)`` raises."""
        if position:
            others = f"argument{'s 1-' if position > 1 else ' '}{position}"
            raise ValueError(f"zip() argument {position + 1} is shorter than {others}")
        for longer, iterator in enumerate(self._iterators[1:], 1):
            try:
                await _next(iterator)
            except StopAsyncIteration:
                continue
            others = f"argument{'s 1-' if longer > 1 else ' '}{longer}"
            raise ValueError(f"zip() argument {longer + 1} is longer than {others}")


async def _next(iterator: Any) -> Any:
    if hasattr(type(iterator), "__anext__"):
        return await anext(iterator)
    try:
        return next(iterator)
    except StopIteration:
        raise StopAsyncIteration from None


class TaskFeeder:
    """Pulls from an async source in a task of its own."""

    def __init__(
        self, source: AsyncIterator[Any], window: Window, job: Job, in_thread: tuple[PulledInThread, ...] = ()
    ) -> None:
        self._source: AsyncIterator[Any] | None = source
        self._in_thread = in_thread  # what of the source is pulled in threads
        self._window = window
        self._job = job
        self._event: LoopEvent | None = None
        self.pulling = False
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._event = LoopEvent(loop)
        self.task = loop.create_task(self._feed(), name=self._job.label("feeder"), context=self._job.context.copy())

    def room(self) -> None:
        """The consumer has delivered something (guarantee 29); called by the consumer only."""
        if self._event is not None:
            self._event.set()

    def cancel(self) -> None:
        """Cancel the feeder, only once: a second time would interrupt the cleanup of the source."""
        source, self._source = self._source, None
        for each in self._in_thread:
            each.stop()
        if source is not None and self.task is not None:
            self.task.cancel()

    def joins(self) -> list[Callable[[], object]]:
        """Calls that wait for its threads."""
        return [each.join for each in self._in_thread]

    def tasks(self) -> list[asyncio.Task[None]]:
        return [] if self.task is None else [self.task]

    async def _feed(self) -> None:
        job = self._job
        assert self._source is not None
        try:
            await self._pull(self._source.__anext__)
        except BaseException as error:  # it ends the run, unless the run's end has caused it
            if not job.stopped:
                without_our_frames(error)
                job.crash(error)
        finally:
            self._source = None
            self.pulling = False

    async def _pull(self, take: Any) -> None:
        window, job = self._window, self._job
        pool, event, clock = job.pool, self._event, job.clock
        add = window.add if job.trace is None else job.trace.adding(window.add, job.clock)
        assert event is not None
        until = clock() + HANDFUL_S
        while True:
            while window.room() < 1:
                await event.wait(None)
                until = clock() + HANDFUL_S
            if not job.may_start() or window.last_index < window.pulled:
                return
            self.pulling = True
            begun = clock()
            try:
                item = await take()
            except StopAsyncIteration:
                self._finish(None)
                return
            except Exception as error:  # it is raised in its turn
                if job.stopped:
                    return
                without_our_frames(error)
                self._finish(Err(error, kind=Kind.SOURCE))
                return
            finally:
                self.pulling = False
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

    def _finish(self, final: Err | None) -> None:
        self._job.pool.notify(self._window.finish(final))
        self._job.notify()  # the consumer may wait for an item that does not come
