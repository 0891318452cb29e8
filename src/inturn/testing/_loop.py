"""`Schedule.run`: an event loop in virtual time, in which the calls of runs go on one by one.

A run that calls coroutine functions makes a task for each call, as ever. Each task first waits at a gate. The loop
opens one gate, that of the call that the script chooses, whenever nothing else can happen at this moment. So a call
that does not wait for time ends before the next one goes on; calls that sleep are under way together, and end in the
order of their times.

=========== ====================================== =======================================
a call      how it is told                         left by
=========== ====================================== =======================================
at its gate it is in ``Director._gates``           the loop (`Director.open_one`); a cancellation
going on    its gate is open                       its end; a cancellation
hanging     its fault is a `Hangs`: it waits for   a cancellation: by its time limit or by the end of
            a future that nobody completes         its run
=========== ====================================== =======================================

In flat runs each element has a gate.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from inturn._aio.tasks import CallCoro, TaskPool
from inturn._core.elements import aclose
from inturn._core.flat_job import FlatJob
from inturn._core.job import Job
from inturn._engine.chunk import Chunk

from ._book import Book
from ._fault import Hangs
from ._record import RunRecord

__all__ = ["Director", "VirtualLoop", "run"]

T = TypeVar("T")


class _Timer(asyncio.TimerHandle):
    """A timer that comes after those of the same moment that were set before it: asyncio's are in no certain order."""

    def __init__(self, turn: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._turn = turn

    def __lt__(self, other: Any) -> bool:
        return (self.when(), self._turn) < (other.when(), other._turn)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when nothing else can happen, and then at once.

    Work that was given to a thread (``asyncio.to_thread``, ``run_in_executor``) is waited for, and no time passes
    meanwhile.
    """

    def __init__(self, book: Book) -> None:
        super().__init__()
        self._book = book
        self._directors: list[Director] = []
        self._in_threads = 0
        self._turn = 0
        selector: Any = self._selector  # type: ignore[attr-defined]
        self._really_select = selector.select
        selector.select = self._select

    def time(self) -> float:
        return self._book.now

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        self._turn += 1
        timer: Any = _Timer(self._turn, when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True
        return timer

    def adopt_run(self, job: Job) -> None:
        """A run begins in this loop: if its calls are tasks, they follow the schedule."""
        if isinstance(job.pool, TaskPool):
            self._directors.append(Director(self._book, job, job.pool))

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._in_threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, future: object) -> None:
        self._in_threads -= 1

    def _select(self, timeout: float | None = None) -> Any:
        """What the loop does when it has run all that was ready: the next thing that can happen is made to happen."""
        events = self._really_select(0)
        if events or timeout == 0:
            return events
        if self._in_threads:
            return self._really_select(None)
        self._directors = [director for director in self._directors if not director.over()]
        if any(director.open_one() for director in self._directors):
            return events
        if timeout is None:
            raise RuntimeError(
                f"nothing can happen any more: all tasks wait, and none of them for time\n{self._book.timeline()}"
            )
        self._book.move_to(self._book.now + timeout)
        return events


class Director:
    """Decides when each call of one run goes on."""

    def __init__(self, book: Book, job: Job, pool: TaskPool) -> None:
        self._book = book
        self._job = job
        self._recorder = RunRecord(book, job)
        self._gates: dict[int, asyncio.Future[None]] = {}
        self._recorder.begin()
        pool.director = self.elements_of if isinstance(job, FlatJob) else self.call_of

    def over(self) -> bool:
        return self._job.stopped and not self._gates

    def open_one(self) -> bool:
        """Let the call go on that the script chooses; False if none waits."""
        if not self._gates:
            return False
        self._gates.pop(self._recorder.choose(sorted(self._gates))).set_result(None)
        return True

    def call_of(self, chunk: Chunk, call: CallCoro, /) -> CallCoro:
        async def directed(fn: Callable[[Any], Any], item: Any) -> Any:
            record, index, attempt = self._recorder.record, chunk.index + len(chunk.out), chunk.attempt
            record("started", index, attempt)
            happened = "failed"
            try:
                await self._step(index, attempt, 0)
                result = await call(fn, item)
                happened = "ended"
                return result
            except asyncio.CancelledError:
                happened = self._interrupted()
                raise
            finally:
                record(happened, index, attempt)

        return directed

    async def elements_of(self, chunk: Chunk, begin: Callable[[], Any], /) -> AsyncIterator[Any]:
        record, index, attempt, made = self._recorder.record, chunk.index, chunk.attempt, 0
        iterator: Any = None
        record("started", index, attempt)
        happened = "failed"
        try:
            await self._step(index, attempt, made)
            iterator = await begin()
            async for element in iterator:
                record("made", index, attempt)
                made += 1
                held = [element]
                del element
                yield held.pop()  # so that the frame, which stays here, keeps nothing of it
                await self._step(index, attempt, made)
            iterator = None
            happened = "ended"
        except (asyncio.CancelledError, GeneratorExit):
            happened = self._interrupted()
            raise
        finally:
            record(happened, index, attempt)
            await aclose(iterator)

    def _interrupted(self) -> str:
        return "closed" if self._job.stopped else "given up"

    async def _step(self, index: int, attempt: int, made: int) -> None:
        """Wait until the item may take its next step, and raise what its fault says."""
        fault = self._book.fault_of(index, attempt)
        if fault is not None and made < fault.after and isinstance(self._job, FlatJob):
            fault = None
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if isinstance(fault, Hangs):
            await gate
        self._gates[index] = gate
        try:
            await gate
        finally:
            if self._gates.get(index) is gate:
                del self._gates[index]
        error = None if fault is None else fault.error(index, attempt)
        if error is not None:
            raise error


def run(book: Book, coro: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine to its end in a loop of its own."""
    if book.in_loop:
        coro.close()
        raise RuntimeError("Schedule.run cannot be called from a coroutine that it runs")
    book.in_loop = True
    try:
        with asyncio.Runner(loop_factory=lambda: VirtualLoop(book)) as runner:
            return runner.run(coro)
    finally:
        book.in_loop = False
