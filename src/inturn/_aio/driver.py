"""The asynchronous driver: `OrderedAmap`, the object that `ordered_amap` returns.

The task that awaits ``anext`` owns the engine meanwhile: it pulls (unless a `TaskFeeder` does), decides and delivers.
It waits in one place, `_wait`, for the run's `LoopEvent`. Who is the consumer is settled by the token in `_consumer`.

What has to end with a run (its `Cleanup`) does not refer to the handle, so the handle can be dropped while calls run.

========== ======================================== =====================================================
a run is   how it is told                           left by
========== ======================================== =====================================================
new        ``_cleanup.loop`` is None                  the first ``anext``; `aclose`
open       ``_over`` is False                       its end, an error, a cancellation, `aclose`, `__del__`
over       ``_over`` is True                        (its tasks may still be cleaning up; whoever ended it awaits them)
========== ======================================== =====================================================

It is a class and no async generator: nothing is suspended inside a task group or a cancel scope (PEP 789), and
closing does not depend on the garbage collector.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import warnings
from collections.abc import AsyncIterator
from time import perf_counter as clock
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, Protocol, TypeVar

from inturn._core.consumer import AGAIN, LEFT_OUT, Raised, Run
from inturn._core.source import HANDFUL_S, Source
from inturn._engine.window import NEVER, Now
from inturn._model.stats import Stats
from inturn._pools.executors import Borrowed

from .cleanup import Cleanup
from .events import LoopEvent, tell
from .source import TaskFeeder

__all__ = ["NOTHING_READY", "OrderedAmap"]

R_co = TypeVar("R_co", covariant=True)

_END: Final = object()
_PATIENCE_S: Final = 0.005  # how long the head of a nested run is left in the queue of a borrowed executor
_BREATH_S: Final = 0.005  # a consumer that never has to wait lets others have a turn this often


class Ready(Protocol):
    """What can be delivered at once. Only the consumer takes from it, so what it has seen there it will find."""

    def __len__(self) -> int: ...
    def pop(self) -> Any: ...


NOTHING_READY: Final[Ready] = []


class OrderedAmap(AsyncIterator[R_co], Generic[R_co]):
    """An async iterator over results in input order; also an async context manager. Made by `ordered_amap`.

    Attributes:
        indexed: Whether it delivers ``(index, result)``.
    """

    __slots__ = (
        "__weakref__",
        "_breath",
        "_bulk",
        "_cleanup",
        "_consumer",
        "_feeder",
        "_name",
        "_over",
        "_pid",
        "_ready",
        "_run",
        "_source",
        "indexed",
    )

    def __init__(self, run: Run, source: Source | TaskFeeder, *, indexed: bool, name: str) -> None:
        self._run = run
        self._source = source if isinstance(source, Source) else None
        self._feeder = source if isinstance(source, TaskFeeder) else None
        self._cleanup = Cleanup(run.job, self._feeder)
        self._bulk = self._feeder is None and not run.shows_progress
        self._ready: Ready = run.held  # what is taken from without further ado
        self._breath = 0.0  # when others are to have a turn
        self._consumer: dict[None, object] = {}
        self._pid = os.getpid()
        self._over = False
        self._name = name
        self.indexed = indexed

    def __aiter__(self) -> OrderedAmap[R_co]:
        return self

    async def __anext__(self) -> R_co:
        try:
            if self._ready and clock() < self._breath:
                return self._ready.pop()  # type: ignore[no-any-return]
        except BaseException:  # from outside, a signal handler's: nobody else pops. The result may be lost
            await self._leave()
            raise
        return await self._next()  # type: ignore[no-any-return]

    def _check(self, *, over: bool) -> asyncio.AbstractEventLoop:
        """The running loop, which must be that of the first ``anext`` unless the run is over; in the same process."""
        if self._pid != os.getpid():
            raise RuntimeError(f"this {self._name} belongs to the parent process: make a new one after the fork")
        loop = asyncio.get_running_loop()
        if not over and self._cleanup.loop is not None and self._cleanup.loop is not loop:
            raise RuntimeError(f"this {self._name} belongs to another event loop: use it in the one in which it began")
        return loop

    async def _next(self) -> Any:
        loop = self._check(over=self._over)
        me = object()
        if self._consumer.setdefault(None, me) is not me:
            raise RuntimeError(f"{self._name} already executing: a run has one consumer at a time")
        try:
            outcome = await self._step(loop)
            if outcome is _END or type(outcome) is Raised:
                closed = self._over  # by another task, which waits for what runs in threads
                self._finish()
                await self._cleanup.gone(threads=outcome is _END and not closed)
            elif self._over:  # closed meanwhile: what is held is not delivered
                self._ready = NOTHING_READY
        except BaseException:  # cancelled, or from outside, or a policy of ours is broken
            await self._leave()
            raise
        finally:
            del self._consumer[None]
        if outcome is _END:
            raise StopAsyncIteration
        if type(outcome) is Raised:
            error = outcome.error
            try:
                raise error
            finally:
                del error, outcome  # the traceback holds this frame
        try:
            return outcome
        finally:
            del outcome  # so does that of a failure of a serial run

    # ---- the consumer ----------------------------------------------------------------------------

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        run, job = self._run, self._run.job
        run.clocks.started = job.begin(contextvars.copy_context(), run.deadline)
        run.begin()
        self._cleanup.take(loop)
        job.pool.open()
        if self._feeder is not None:
            self._feeder.start()

    async def _step(self, loop: asyncio.AbstractEventLoop) -> Any:
        """The next result, `_END` or `Raised`."""
        run = self._run
        job, window = run.job, run.window
        if self._over:
            return _END
        if run.clocks.started is None:
            self._begin(loop)
        elif clock() >= self._breath:
            await self._breathe()
            if self._ready:
                return self._ready.pop()
        run.held = []
        run.enter()
        until = clock() + HANDFUL_S
        waited = late = False
        while True:
            if job.crashed is not None:
                return Raised(job.crashed)
            if job.stopped:
                return _END
            now = window.now()
            if now is Now.DELIVER:
                if not waited and self._source is not None and window.room() > 0 and window.halt == NEVER:
                    self._pull(self._source, until)  # in exchange for what left at the last `anext`
                outcome = self._deliver()
                if outcome is AGAIN or outcome is LEFT_OUT:
                    waited = False
                    continue
                run.tick()
                run.leave()
                try:
                    return outcome
                finally:
                    del outcome  # the frames of a source's error keep this one
            waited = True
            if now is Now.DONE:
                return _END
            left = run.remaining()
            if left is not None and (left <= 0 or late):
                return run.out_of_time()
            if now is Now.PULL and self._source is not None and not (job.pool.inline and window.taken < window.pulled):
                self._pull(self._source, until)
                if clock() >= until:  # nothing is started, and nothing else happens, while we pull
                    await self._breathe()
                    until = clock() + HANDFUL_S
            else:
                late = await self._wait(left)
            run.tick()

    async def _breathe(self) -> None:
        await asyncio.sleep(0)
        self._breath = clock() + _BREATH_S

    def _pull(self, source: Source, until: float) -> None:
        if not self._run.job.may_start():
            return
        begun = clock()
        source.pull(until)
        self._run.clocks.on_source += clock() - begun

    async def _wait(self, seconds: float | None) -> bool:
        """Until the head is complete, or anything else has happened; True if that took too long."""
        run = self._run
        job, window, clocks = run.job, run.window, run.clocks
        job.sleeping.append(window.taken)
        try:
            if window.now() in (Now.DELIVER, Now.DONE) or job.stopped:
                return False
            nothing = window.taken == window.pulled
            begun = clock()
            rung = await self._doze(seconds)
            self._breath = clock() + _BREATH_S
            if nothing:
                clocks.on_source += clock() - begun
            else:
                clocks.on_head += clock() - begun
            return not rung
        finally:
            job.sleeping.clear()

    async def _doze(self, seconds: float | None) -> bool:
        """Wait to be woken; False if that took too long."""
        job = self._run.job
        pool, event = job.pool, job.wake
        assert isinstance(event, LoopEvent)
        if pool.inline and job.window.available():
            pool.wait(0.0)
            await asyncio.sleep(0)
            return True
        if isinstance(pool, Borrowed) and pool.attends():
            if not await event.wait(_PATIENCE_S if seconds is None else min(seconds, _PATIENCE_S)):
                pool.wait(0.0)  # it does not block here: this only does what is to be done
            return True
        return await event.wait(seconds)

    def _deliver(self) -> Any:
        """Take the head, and what is complete behind it in its chunk."""
        run = self._run
        outcome = run.deliver(bulk=self._bulk, indexed=self.indexed)
        if run.held:
            self._ready = run.held
        if self._feeder is not None:
            self._feeder.room()
        return outcome

    def _finish(self) -> None:
        """The run is over; by the consumer, or by `aclose` if there is none now."""
        self._over = True
        self._ready = NOTHING_READY
        self._source = None
        try:
            self._run.end()
        finally:
            self._cleanup.stop()
            self._run.job.pool.retire()
            self._run.job.crashed = None  # it is being raised: nothing of ours may refer to it

    async def _leave(self) -> None:
        """End the run because of an error, which is raised when every call has cleaned up."""
        self._finish()
        await self._cleanup.gone(threads=False)

    # ---- any task of the loop --------------------------------------------------------------------

    async def aclose(self) -> None:
        """End the run: what has not started never starts; every call that runs is cancelled once and awaited, its
        cleanup included.

        It may be called twice, from any task of the loop, and from ``fn`` itself (then it does not wait). An ``anext``
        that waits raises ``StopAsyncIteration``. Calls in threads cannot be cancelled and are waited for; worker
        processes are killed after 0.5 s. What a call raises while it is being cancelled is dropped. A cancellation of
        `aclose` itself is not passed on to the calls: it is raised when they have ended.
        """
        self._check(over=self._over or self._run.job.stopped)
        cleanup = self._cleanup
        self._over = True
        self._ready = NOTHING_READY
        me = object()
        if self._consumer.setdefault(None, me) is me:
            try:
                self._finish()
            finally:
                del self._consumer[None]
        else:
            cleanup.stop()
        await cleanup.gone(threads=True)

    async def __aenter__(self) -> OrderedAmap[R_co]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        try:
            cleanup, open_ = self._cleanup, not self._over
        except AttributeError:  # it was never finished
            return
        if not open_ or cleanup.loop is None or self._pid != os.getpid():
            return
        job = self._run.job
        job.dropped = True
        job.stop()
        self._run.window.clear()  # nobody is the consumer any more
        if cleanup.feeder is not None:
            tell(cleanup.loop, cleanup.feeder.cancel)
        cleanup.drop()
        text = f"unclosed {self!r}: use async with, or await aclose()"
        warnings.warn(text, ResourceWarning, source=self, stacklevel=2)

    # ---- anyone ----------------------------------------------------------------------------------

    @property
    def stats(self) -> Stats:
        """A snapshot of the run; at any time, from any thread."""
        return self._run.stats()

    def __repr__(self) -> str:
        stats = self.stats
        return (
            f"<{self._name} of {self._run.name}: {stats.pulled} pulled, {stats.running} running, "
            f"{stats.waiting} waiting, {stats.delivered} delivered, {stats.failed} failed>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle a run ({self._name}): it holds tasks and an iterator; send the items instead")
