"""The asynchronous driver: `OrderedAmap`, the object that `ordered_amap` returns.

The task that awaits ``anext`` is the consumer, and owns the engine meanwhile: it pulls (unless a
`TaskFeeder` does), decides and delivers. It waits only in `_step`, for the run's `LoopEvent`. The
token in ``_consumer`` tells whether there is a consumer. Nothing that the loop holds refers to the
handle, so it can be dropped while calls run.

It is a class, not an async generator: nothing is suspended inside a task group or a cancel scope
(PEP 789), and closing does not depend on the garbage collector.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, ClassVar, Final, Generic, Self, TypeVar
from weakref import ref

from inturn._base.signals import Dropping
from inturn._core.consumer import BREATHE, CLOSED, DONE, Raised, Run, Wait, sooner
from inturn._core.job import End
from inturn._core.nesting import inside
from inturn._core.source import HANDFUL_S
from inturn._model.handle import Handle

from .events import LoopEvent, all_done, in_thread, tell
from .source import TaskFeeder
from .tasks import TaskPool

__all__ = ["OrderedAmap"]

R_co = TypeVar("R_co", covariant=True)

_BREATH_S: Final = 0.005  # a consumer that never waits lets other tasks run this often, in seconds


class OrderedAmap(Handle, AsyncIterator[R_co], Generic[R_co]):
    """An async iterator over results in input order; also an async context manager.

    Made by `ordered_amap`.

    Attributes:
        indexed: Whether it delivers ``(index, result)``.
    """

    __module__ = "inturn"
    __slots__ = ("__weakref__", "_breath", "_clock", "_consumer", "_ends", "_feeder", "_held", "_hook", "_loop", "_pid")

    _nothing: ClassVar[Any] = []  # what `_held` is when nothing is held

    def __init__(self, run: Any, source: Any, *, indexed: bool, name: str) -> None:
        self._run: Run = run
        self._feeder = source if isinstance(source, TaskFeeder) else None
        run.feeder = self._feeder
        run.source = source if self._feeder is None else None
        self._ends = [each for each in (run.job.pool, source) if isinstance(each, TaskPool | TaskFeeder)]
        self.indexed = run.indexed = indexed
        self._held = self._nothing  # taken from the window, not yet delivered; the oldest last
        self._clock = run.job.clock
        self._breath = 0.0  # when other tasks must run
        self._consumer: dict[None, object] = {}
        self._loop: asyncio.AbstractEventLoop | None = None  # in which it has begun
        self._hook: AsyncGenerator[None, None] | None = None  # while it is open
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

    def _check(self, *, over: bool) -> None:
        """Raise in another process; in another loop than that of the first ``anext``, unless `over`."""
        if self._pid != os.getpid():
            raise RuntimeError(f"this {self._name} belongs to the parent process: make a new one after the fork")
        loop = asyncio.get_running_loop()
        if not over and self._loop is not None and self._loop is not loop:
            raise RuntimeError(f"this {self._name} belongs to another event loop: use it in the one in which it began")

    async def _next(self) -> Any:
        self._check(over=self._run.job.end is End.CLOSED)
        me, step = object(), None
        try:
            if self._consumer.setdefault(None, me) is not me:
                raise RuntimeError(f"{self._name} already executing: a run has one consumer at a time")
            step = await self._step()
            over = step is DONE or step is CLOSED or type(step) is Raised
            if over:
                self._finish()
                await self._gone(threads=step is DONE)
            elif self._run.job.stopped:  # closed meanwhile: deliver nothing
                self._held = self._nothing
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

    def _begin(self) -> None:
        run, job = self._run, self._run.job
        loop: Any = asyncio.get_running_loop()
        self._loop = loop
        job.wake = LoopEvent()
        if hasattr(loop, "adopt_run"):  # it is of `inturn.testing`
            loop.adopt_run(job)
        self._clock = job.clock  # the loop may have one of its own
        self._hook = hook = _shutdown_hook(ref(self))
        _move(hook.asend(None))  # the hook has reached its yield
        run.begin()
        if self._feeder is not None:
            self._feeder.start()

    async def _step(self) -> Any:
        """The next result, or how the run has ended."""
        run = self._run
        if not run.begun:
            if not run.job.stopped:
                self._begin()
        elif self._clock() >= self._breath:
            await self._breathe()
        run.enter()
        while True:
            step = run.advance()
            if type(step) is Wait:
                begun = run.before_wait()
                try:
                    if begun is not None:
                        seconds = sooner(run.job.pool.work(block=False), step.seconds)
                        if seconds == 0.0:
                            await asyncio.sleep(0)
                        else:
                            await run.job.wake.wait(seconds)  # type: ignore[attr-defined]
                        self._breath = self._clock() + _BREATH_S
                finally:
                    run.after_wait(begun)
            elif step is BREATHE:  # pulling took long: let other tasks run
                await self._breathe()
                run.until = self._clock() + HANDFUL_S
            else:
                break
        if run.window.held:
            self._held = run.window.held
        try:
            return step
        finally:
            del step  # the traceback of a source's error refers to this frame

    async def _breathe(self) -> None:
        await asyncio.sleep(0)
        self._breath = self._clock() + _BREATH_S

    async def _leave(self) -> None:
        """An error that is not of the run ends it: wait for its tasks, but not for threads."""
        self._finish()
        await self._gone(threads=False)

    def _finish(self) -> None:
        """End the run; called by the consumer, or by `aclose` if there is none."""
        self._held = self._nothing
        try:
            self._run.end()
        finally:
            self._stop()
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
        await self._gone(threads=True)

    def _leave_chain(self) -> None:
        self._held = self._nothing
        me = object()
        if self._consumer.setdefault(None, me) is me:
            try:
                self._finish()
            finally:
                del self._consumer[None]
        else:
            self._stop()

    def _stop(self, end: End = End.CLOSED) -> None:
        """Start nothing from now on, and cancel what runs."""
        self._run.job.stop(end)
        for each in self._run.upstream:  # they end with it (guarantee 37)
            each._leave_chain()
        for ended in self._ends:  # the pool of tasks, the feeder
            ended.cancel()
        self._drop_hook()

    def _drop_hook(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            _move(hook.aclose())

    async def _gone(self, *, threads: bool) -> None:
        """After `_stop`: wait for tasks, with `threads` also for other workers (guarantee 30)."""
        if inside(self._run.job):
            return  # the caller is a call of the run or its source: it would wait for itself
        await all_done(self._tasks)
        if threads and (joins := self._joins()):
            await in_thread(*joins)

    def _tasks(self) -> list[asyncio.Task[Any]]:
        tasks = [task for each in self._run.upstream for task in each._tasks()]
        if inside(self._run.job) or asyncio.get_running_loop() is not self._loop:
            return tasks  # it would wait for itself; or it has not begun, or its loop and its tasks have ended
        return tasks + [task for ended in self._ends for task in ended.tasks]

    def _joins(self) -> list[Callable[[], object]]:
        job = self._run.job
        joins = [join for each in self._run.upstream for join in each._joins()]
        if inside(job) or self._loop is None:
            return joins
        if job.pool.inline:  # its calls run here, so there is nothing that takes long
            job.supervisor.join()
            job.pool.join()
        elif not isinstance(job.pool, TaskPool):
            joins += [job.supervisor.join, job.pool.join]
        if self._feeder is not None:
            joins += [each.join for each in self._feeder.in_thread]
        return joins

    def _drop_chain(self) -> None:
        if self._drop():
            self._run.job.end = End.CLOSED  # the run whose source it is says that it was left open

    def _drop(self) -> bool:
        """End the run from anywhere, without waiting; returns whether it was open."""
        run, job, loop = self._run, self._run.job, self._loop
        if self._pid != os.getpid() or job.end is End.CLOSED:
            return False
        if loop is not None:
            farewell, job.farewell = job.farewell, None
            job.stop(End.DROPPED)
            me = object()
            if self._consumer.setdefault(None, me) is me:  # else the feeder of the next stage awaits `anext`
                run.forget()
                self._consumer.pop(None)
            if farewell is not None:
                tell(loop, farewell)
            if self._feeder is not None:
                tell(loop, self._feeder.cancel)
            self._drop_hook()
        for each in run.upstream:
            each._drop_chain()
        return loop is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        try:
            open_ = self._drop()
        except AttributeError:  # `__init__` has failed
            return
        if open_:
            text = f"unclosed {self!r}: use async with, or await aclose()"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)


def _move(hook: Any) -> None:
    """One step of the hook, which waits for nothing."""
    with Dropping(StopIteration, RuntimeError):  # RuntimeError: the hook itself is the caller
        hook.send(None)


async def _shutdown_hook(run: ref[OrderedAmap[Any]]) -> AsyncGenerator[None, None]:
    """Ends the run if its loop shuts down while the run is open (guarantee 15).

    It is an async generator, since a loop that shuts down closes those that are open.
    """
    try:
        yield
    finally:
        handle = run()
        if handle is not None and handle._hook is not None:
            handle._stop(End.DROPPED)
            handle._run.job.pool.retire()
            await handle._gone(threads=True)
