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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from inturn._aio.tasks import CallCoro, TaskPool
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

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        self._turn += 1
        timer: Any = _Timer(self._turn, when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True
        return timer  # type: ignore[no-any-return]

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
        self._recorder = RunRecord(book, job, flat=isinstance(job, FlatJob))
        self._gates: dict[int, asyncio.Future[None]] = {}
        self._recorder.begin()
        job.clock = book.clock
        pool.director = self.elements_of if isinstance(job, FlatJob) else self.call_of

    # ---- the loop --------------------------------------------------------------------------------

    def over(self) -> bool:
        return self._job.stopped and not self._gates

    def open_one(self) -> bool:
        """Let the call go on that the script chooses; False if none waits."""
        if not self._gates:
            return False
        self._gates.pop(self._recorder.choose(sorted(self._gates))).set_result(None)
        return True

    # ---- the calls -------------------------------------------------------------------------------

    def call_of(self, chunk: Chunk, call: CallCoro, /) -> CallCoro:
        def directed(fn: Callable[[Any], Any], item: Any) -> Coroutine[Any, Any, Any]:
            return self._directed(call, fn, item, chunk.index + len(chunk.out), chunk.attempt)

        return directed

    def elements_of(self, chunk: Chunk, begin: Callable[[], Awaitable[AsyncIterator[Any]]], /) -> AsyncIterator[Any]:
        return _Elements(self, begin, chunk.index, chunk.attempt)

    async def _directed(self, call: CallCoro, fn: Callable[[Any], Any], item: Any, index: int, attempt: int) -> Any:
        record = self._recorder.record
        record("started", index, attempt)
        ended = "failed"
        try:
            await self.step(index, attempt, 0)
            result = await call(fn, item)
            ended = "ended"
            return result
        except asyncio.CancelledError:
            ended = "closed" if self._job.stopped else "given up"
            raise
        finally:
            record(ended, index, attempt)

    async def step(self, index: int, attempt: int, made: int) -> None:
        """Wait until the item may take its next step.

        Raises:
            BaseException: What its fault says.
        """
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

    def record(self, what: str, index: int, attempt: int) -> None:
        self._recorder.record(what, index, attempt)

    @property
    def stopped(self) -> bool:
        return self._job.stopped


class _Elements:
    """The elements of an item, each produced when the schedule says so."""

    def __init__(
        self, director: Director, begin: Callable[[], Awaitable[AsyncIterator[Any]]], index: int, attempt: int
    ) -> None:
        self._director = director
        self._begin = begin
        self._index = index
        self._attempt = attempt
        self._made = 0
        self._over = False
        self._iterator: AsyncIterator[Any] | None = None
        director.record("started", index, attempt)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        director, index, attempt = self._director, self._index, self._attempt
        happened = "failed"
        try:
            await director.step(index, attempt, self._made)
            if self._iterator is None:
                self._iterator = await self._begin()
            element = await anext(self._iterator)
            happened = "made"
            self._made += 1
            return element
        except StopAsyncIteration:
            happened = "ended"
            raise
        except asyncio.CancelledError:
            happened = "closed" if director.stopped else "given up"
            raise
        finally:
            director.record(happened, index, attempt)
            self._over = happened != "made"

    async def aclose(self) -> None:
        if not self._over:
            self._director.record("closed" if self._director.stopped else "given up", self._index, self._attempt)
        close: Callable[[], Awaitable[object]] | None = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


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
