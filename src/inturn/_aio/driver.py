"""The asynchronous driver: `OrderedAmap`, the object that `ordered_amap` returns.

The task that awaits ``anext`` is the consumer, and owns the engine meanwhile: it pulls (unless a
`TaskFeeder` does), decides and delivers. It waits only in `_wait`, for the run's `LoopEvent`. The
token in ``_consumer`` tells whether there is a consumer.

The `Cleanup` of a run does not refer to the handle, so the handle can be dropped while calls run.

======= ============================= =============================================================
run     condition                     left by
======= ============================= =============================================================
new     ``_cleanup.loop`` is None     the first ``anext``; `aclose`
open    ``job.end`` is None           its end, an error, a cancellation, `aclose`, `__del__`
over    ``job.end`` is set            (tasks may still be ending; the code that ended it waits)
======= ============================= =============================================================

It is a class, not an async generator: nothing is suspended inside a task group or a cancel scope
(PEP 789), and closing does not depend on the garbage collector.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from inturn._core.consumer import BREATHE, CLOSED, DONE, Raised, Run, Wait, sooner
from inturn._core.job import DROPPED, End
from inturn._core.source import HANDFUL_S
from inturn._model.handle import Handle

from .cleanup import Cleanup
from .events import LoopEvent, tell
from .source import TaskFeeder

__all__ = ["OrderedAmap"]

R_co = TypeVar("R_co", covariant=True)

_BREATH_S: Final = 0.005  # a consumer that never waits lets other tasks run this often, in seconds
_NOTHING: Final[list[Any]] = []


class OrderedAmap(Handle, AsyncIterator[R_co], Generic[R_co]):
    """An async iterator over results in input order, made by `ordered_amap`.

    It is also an async context manager.

    Attributes:
        indexed: Whether it delivers ``(index, result)``.
    """

    __module__ = "inturn"
    __slots__ = ("__weakref__", "_breath", "_cleanup", "_clock", "_consumer", "_feeder", "_held", "_pid")

    def __init__(self, run: Any, source: Any, *, indexed: bool, name: str) -> None:
        self._run: Run = run
        self._feeder: TaskFeeder | None = None
        if isinstance(source, TaskFeeder):
            self._feeder = run.feeder = source
        else:
            run.source = source
        self.indexed: bool = indexed
        run.indexed = indexed
        self._cleanup = Cleanup(run.job, self._feeder, run.upstream)
        self._held: list[Any] = _NOTHING  # taken from the window, not yet delivered; the oldest last
        self._clock = run.job.clock
        self._breath = 0.0  # when other tasks must run
        self._consumer: dict[None, object] = {}
        self._pid = os.getpid()
        self._name = name

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R_co:
        held = self._held
        if held and self._clock() < self._breath:
            try:
                return held.pop()  # type: ignore[no-any-return]
            except BaseException:  # a signal handler raised it, and the result is lost
                await self._leave()
                raise
        return await self._next()  # type: ignore[no-any-return]

    def _check(self, *, over: bool) -> asyncio.AbstractEventLoop:
        """The running loop. It must be that of the first ``anext`` unless the run is over."""
        if self._pid != os.getpid():
            raise RuntimeError(f"this {self._name} belongs to the parent process: make a new one after the fork")
        loop = asyncio.get_running_loop()
        if not over and self._cleanup.loop is not None and self._cleanup.loop is not loop:
            raise RuntimeError(f"this {self._name} belongs to another event loop: use it in the one in which it began")
        return loop

    async def _next(self) -> Any:
        loop = self._check(over=self._run.job.end is End.CLOSED)
        me, step = object(), None
        try:
            if self._consumer.setdefault(None, me) is not me:
                raise RuntimeError(f"{self._name} already executing: a run has one consumer at a time")
            step = await self._step(loop)
            over = step is DONE or step is CLOSED or type(step) is Raised
            if over:
                self._finish()
                await self._cleanup.gone(threads=step is DONE)
            elif self._run.job.stopped:  # closed meanwhile: deliver nothing
                self._held = _NOTHING
            self._consumer.pop(None)
        except BaseException:  # a cancellation, or an error of a signal handler
            if self._consumer.get(None, me) is me:  # nobody else is the consumer
                try:
                    await self._leave()
                finally:
                    self._consumer.pop(None, None)
            raise
        try:
            # Nothing is called between the other `try` and here: a signal handler may raise behind any call, and the
            # result would be lost, though the run goes on (guarantee 16).
            if not over:
                return step
            if step is DONE or step is CLOSED:
                raise StopAsyncIteration
            raise step.error
        finally:
            del step  # the traceback of the error refers to this frame

    # ---- the consumer ----------------------------------------------------------------------------

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._cleanup.take(loop)
        self._clock = self._run.job.clock  # the loop may have one of its own
        self._run.begin()
        if self._feeder is not None:
            self._feeder.start()

    async def _step(self, loop: asyncio.AbstractEventLoop) -> Any:
        """The next result, or how the run has ended."""
        run = self._run
        if not run.begun:
            if not run.job.stopped:
                self._begin(loop)
        elif self._clock() >= self._breath:
            await self._breathe()
            if self._held:
                return self._held.pop()
        run.enter()
        while True:
            step = run.advance()
            if step is BREATHE:  # pulling took long: let other tasks run
                await self._breathe()
                run.until = self._clock() + HANDFUL_S
            elif type(step) is Wait:
                await self._wait(step.seconds)
            else:
                break
        self._held = run.held
        try:
            return step
        finally:
            del step  # the traceback of a source's error refers to this frame

    async def _breathe(self) -> None:
        await asyncio.sleep(0)
        self._breath = self._clock() + _BREATH_S

    async def _wait(self, seconds: float | None) -> None:
        """Wait until the head may be complete, or for so many seconds."""
        run = self._run
        begun = run.before_wait()
        try:
            if begun is not None:
                seconds = sooner(run.job.pool.work(block=False), seconds)
                event = run.job.wake
                assert isinstance(event, LoopEvent)
                if seconds == 0.0:
                    await asyncio.sleep(0)
                else:
                    await event.wait(seconds)
                self._breath = self._clock() + _BREATH_S
        finally:
            run.after_wait(begun)

    async def _leave(self) -> None:
        """An error that is not of the run ends it: wait for its tasks, but not for threads."""
        self._finish()
        await self._cleanup.gone(threads=False)

    def _finish(self) -> None:
        """End the run; called by the consumer, or by `aclose` if there is none."""
        self._held = _NOTHING
        try:
            self._run.end()
        finally:
            self._cleanup.stop()
            self._run.job.pool.retire()

    # ---- any task of the loop --------------------------------------------------------------------

    async def aclose(self) -> None:
        """End the run: every call that runs is cancelled once, and awaited with its cleanup.

        What has not started never starts. It may be called twice, from any task of the loop, and
        from ``fn`` itself (then it does not wait). An ``anext`` that waits raises
        ``StopAsyncIteration``. Calls in threads cannot be cancelled and are waited for; worker
        processes are killed after 0.5 s. What a call raises while it is being cancelled is dropped.
        A cancellation of `aclose` itself is not passed on to the calls: it is raised when they have
        ended.
        """
        self._check(over=self._run.job.stopped)
        self._leave_chain()
        await self._cleanup.gone(threads=True)

    def _leave_chain(self) -> None:
        self._held = _NOTHING
        me = object()
        if self._consumer.setdefault(None, me) is me:
            try:
                self._finish()
            finally:
                del self._consumer[None]
        else:
            self._cleanup.stop()

    def _tasks(self) -> list[asyncio.Task[Any]]:
        return self._cleanup.tasks()

    def _joins(self) -> list[Any]:
        return self._cleanup.joins()

    def _drop_chain(self) -> None:
        if self._drop():
            self._run.job.end = End.CLOSED  # the run whose source it is says that it was left open

    def _drop(self) -> bool:
        """End the run from anywhere, without waiting; returns whether it was open."""
        cleanup, job = self._cleanup, self._run.job
        if self._pid != os.getpid() or job.end is End.CLOSED:
            return False
        open_ = cleanup.loop is not None
        if cleanup.loop is not None:
            farewell, job.farewell = job.farewell, None
            job.stop(DROPPED)
            me = object()
            if self._consumer.setdefault(None, me) is me:  # else the feeder of the next stage awaits `anext`
                self._run.forget()
                self._consumer.pop(None)
            if farewell is not None:
                tell(cleanup.loop, farewell)
            if cleanup.feeder is not None:
                tell(cleanup.loop, cleanup.feeder.cancel)
            cleanup.drop()
        for each in cleanup.upstream:
            each._drop_chain()
        return open_

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        try:
            open_ = self._drop()
        except AttributeError:  # `__init__` has failed
            return
        if open_:
            text = f"unclosed {self!r}: use async with, or await aclose()"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)
