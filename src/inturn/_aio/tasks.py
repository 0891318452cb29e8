"""The pool whose workers are asyncio tasks: a call that waits has a task and a context of its own.

A task belongs to one call from its first line to its last. So nothing that code keeps by task (its
cancellation count, ``current_task()`` as a key, ``asyncio.timeout``, a task group) passes from one
item to the next. Calls that return at once cost no turn of the loop all the same: the *pump* starts
their tasks eagerly, takes the result, and goes on to the next item of the chunk (on Python 3.11,
which has no eager tasks, see `eager`). At the first call that waits, the remainder of its chunk
goes back to the window, and a done callback reports the end of the call.

======== =================================== ==================================================
slot     condition                           left by
======== =================================== ==================================================
free     in ``_free``                        the pump, which claims a chunk for it
begun    ``chunk`` is set, inside the pump   the end of the chunk; the first call that waits
waiting  ``_tasks[task]`` is the slot        the end of the call: `_task_done`
late     waiting, and ``late`` is set: its   the end of the call; after a grace period
         time limit has cancelled it         `_give_up`
given up ``_tasks[task]`` is None; the slot  (the end of the call is ignored)
         is free
======== =================================== ==================================================

Everything here runs in the loop's thread, except `stop`, which may be called from anywhere. The
pump is a callback of the loop. It runs for `_TURN_S`, and then lets other callbacks run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from inspect import isawaitable
from typing import Any, Final, Protocol

from inturn._core.job import BasePool, Job
from inturn._core.slot import Slot
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind, detach

from .eager import EagerTask
from .events import Timer
from .pauses import Pauses
from .slot import TaskSlot
from .task_factory import Make, WrappedError, call, maker

__all__ = ["CallCoro", "Directs", "TaskPool", "WrappedError"]

CallCoro = Callable[[Any, Any], Coroutine[Any, Any, Any]]

_TURN_S: Final = 0.002  # maximum seconds per turn of the pump; checked between calls
_GRACE_S: Final = 0.5  # a call that its time limit has cancelled is given up after so many seconds


class Directs(Protocol):
    """Who decides when each call goes on: for tests."""

    def call_of(self, chunk: Chunk, call: CallCoro, /) -> CallCoro:
        """What a task runs for the next item of the chunk, in place of `call`."""
        ...

    def elements_of(self, chunk: Chunk, begin: Callable[[], Awaitable[AsyncIterator[Any]]], /) -> AsyncIterator[Any]:
        """An iterator over the elements of the item, which `begin` starts to produce."""
        ...


class TaskPool(BasePool):
    """At most `concurrency` calls at once, each in a task of its own."""

    kind = "task"

    def __init__(self, job: Job, *, known: bool) -> None:
        super().__init__(job)
        self.pauses = Pauses(job)
        self.call: CallCoro = call if known else self._call_checked
        self._proven = known  # whether fn is known to return awaitables
        self.director: Directs | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._make: Make | None = None
        self._permits = job.concurrency
        self._busy: dict[TaskSlot, None] = {}
        self._free: list[TaskSlot] = []
        self._tasks: dict[asyncio.Task[Any], TaskSlot | None] = {}
        self._scheduled = False
        self._cancelled = False
        self._turns: dict[asyncio.Task[Any], None] = {}  # tasks of 3.11 that will run the pump

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._make = maker(self._loop)

    def call_of(self, chunk: Chunk) -> CallCoro:
        """What a task runs for an item of the chunk."""
        return self.call if self.director is None else self.director.call_of(chunk, self.call)

    # ---- consumer, feeder, timers ----------------------------------------------------------------

    def has_capacity(self) -> bool:
        return self._permits > 0 and not self._scheduled

    def notify(self, chunks: int) -> None:
        job = self.job
        wanted = chunks and self._permits and not self._scheduled and not job.stopped
        if wanted and (job.throttle is None or job.ready()):
            self._schedule()

    def _schedule(self) -> None:
        assert self._loop is not None
        self._scheduled = True
        if self._make is None:
            for _ in range(max(1, min(self._permits, self.job.ready()))):  # a task for each call
                turn = asyncio.Task(self._run_turn(), loop=self._loop, context=self.job.context)
                self._turns[turn] = None
                turn.add_done_callback(self._turn_cancelled)
        else:
            self._loop.call_soon(self._pump, context=self.job.context)

    async def _run_turn(self) -> Any:
        task = asyncio.current_task()
        assert task is not None
        del self._turns[task]
        task.remove_done_callback(self._turn_cancelled)
        turn = EagerTask(task)
        self._pump(turn)
        return None if turn.remainder is None else await turn.remainder

    def _turn_cancelled(self, task: asyncio.Task[Any]) -> None:
        """The task was cancelled before it ran the pump."""
        self._turns.pop(task, None)
        self._scheduled = bool(self._turns)
        self.notify(1)

    def worker_of(self, slot: Slot) -> int:
        return id(slot)

    def slots(self) -> list[Slot]:
        return list(self._busy)

    def running(self) -> int:
        return len(self._busy)

    # ---- the pump --------------------------------------------------------------------------------

    def _pump(self, turn: EagerTask | None = None) -> None:
        """Start calls, for at most one turn."""
        job = self.job
        try:
            until = job.clock() + _TURN_S
            more = False
            while not more and self._permits:
                chunk = job.claim()
                if chunk is None:
                    break
                slot = self._free.pop() if self._free else TaskSlot()
                self._permits -= 1
                self._busy[slot] = None
                job.begun(slot, chunk)
                if turn is None:
                    self._run(slot, chunk, until)
                elif not turn.run(self, slot, chunk, until):
                    more = True
                more = more or job.clock() >= until
            self._scheduled = bool(self._turns)
            if more and job.window.available():
                self.notify(1)
        except BaseException as error:
            self._scheduled = bool(self._turns)
            self._crash(error)

    def _run(self, slot: TaskSlot, chunk: Chunk, until: float) -> None:
        """Run a chunk, each call eagerly, until one of them waits or the turn is over.

        Guarantees 21 and 31: each call has its own copy of the consumer's context.
        """
        job, make, call = self.job, self._make, self.call_of(chunk)
        fn, copy, clock = job.fn, job.context.copy, job.clock
        append: Any = chunk.out.append
        assert make is not None
        mark = slot.since
        item: Any = None
        task: Any = None
        for item in chunk.todo:
            task = make(call(fn, item), copy())
            if not task.done():
                slot.item, slot.task, slot.mark = item, task, mark
                self.waits(slot)
                break
            try:
                append(task.result())
            except BaseException as error:  # it is raised in the consumer
                self.failed(chunk, item, error, clock() - mark)
            mark = clock()
            if mark >= until:
                job.window.take_back(chunk)
        else:
            self.end(slot)
        item = task = append = None  # the traceback of an error refers to this frame
        del chunk

    def waits(self, slot: TaskSlot) -> None:
        """The call waits: it keeps the slot; the remainder of its chunk goes back to the window."""
        job, task, chunk = self.job, slot.task, slot.chunk
        assert task is not None
        assert chunk is not None
        self._tasks[task] = slot
        if job.stage is not None:
            task.set_name(job.label(chunk.index + len(chunk.out)))
        task.add_done_callback(partial(self._task_done, slot), context=job.context)
        if job.stopped:
            self.cancel_late(task)
            return
        job.window.take_back(chunk)
        if chunk.out and job.sleeping:
            job.notify()  # earlier results of the chunk may be delivered
        self._limit(slot)

    def _task_done(self, slot: TaskSlot, task: asyncio.Task[Any]) -> None:
        """Record the outcome of a call that has waited."""
        job = self.job
        if self._tasks.pop(task) is None:
            _discard(task)  # given up
            return
        slot.stop_timer()
        try:
            try:
                if job.stopped:
                    _discard(task)
                elif slot.late:
                    self._overran(slot, task)
                else:
                    self._record(slot, task)
            finally:
                self.end(slot)
            self.notify(min(1, job.window.available()))
        except BaseException as error:
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        """End the run by an error of this library, or one that a signal handler raised here.

        The consumer raises it (guarantee 14). While the consumer does not wait for the run, Ctrl-C
        also stops the loop at once, as it does in any callback.
        """
        self.job.crash(error)
        if isinstance(error, (KeyboardInterrupt, SystemExit)) and not self.job.sleeping:
            assert self._loop is not None
            self._loop.call_soon(_raise, error)

    def _record(self, slot: TaskSlot, task: asyncio.Task[Any]) -> None:
        chunk = slot.chunk
        assert chunk is not None
        try:
            chunk.out.append(task.result())
        except BaseException as error:  # it is raised in the consumer
            self.failed(chunk, slot.item, error, self.job.clock() - slot.mark)

    def failed(self, chunk: Chunk, item: Any, error: BaseException, elapsed: float) -> None:
        if type(error) is WrappedError:
            self.job.failed(chunk, item, detach(error.error), elapsed, error.kind)
        else:
            self.job.failed(chunk, item, error, elapsed)

    def end(self, slot: TaskSlot) -> None:
        """Free the slot."""
        chunk = slot.chunk
        assert chunk is not None
        self.job.ended(slot, chunk)
        slot.item = slot.task = None
        slot.late = False
        del self._busy[slot]
        self._free.append(slot)
        self._permits += 1

    async def _call_checked(self, fn: Callable[[Any], Any], item: Any) -> Any:
        """What a task runs if it is not known that ``fn`` is async (guarantee 32)."""
        try:
            awaitable = fn(item)
            if isawaitable(awaitable):
                self._proven = True
                return await awaitable
            caught: BaseException = TypeError(
                f"fn returned {type(awaitable).__name__}, which cannot be awaited: make fn async, "
                'or have ordered_amap run it elsewhere with executor="thread" or "process"'
            )
            kind = Kind.FAILED if self._proven else Kind.FATAL
        except (SystemExit, KeyboardInterrupt) as error:
            caught, kind = error, Kind.PASSING
        raise WrappedError(caught, kind)

    # ---- time limits -----------------------------------------------------------------------------

    def _limit(self, slot: TaskSlot) -> None:
        """Start the clock of the call, or resume it."""
        timeout = self.job.timeout
        if timeout is not None:
            assert self._loop is not None
            left = max(0.0, timeout - (self.job.clock() - slot.mark))
            slot.timer = Timer(self._loop, left, (self._expire, slot), self.job.context)

    def _expire(self, slot: TaskSlot) -> None:
        """Cancel a call that has taken too long (guarantee 17)."""
        assert slot.task is not None
        assert self._loop is not None
        slot.timer = None
        if not slot.task.done():
            slot.late = True
            slot.task.cancel()
            slot.timer = Timer(self._loop, _GRACE_S, (self._give_up, slot), self.job.context)

    def _overran(self, slot: TaskSlot, task: asyncio.Task[Any]) -> None:
        cause: BaseException | None = None
        try:
            task.result()  # a call that returns in spite of its cancellation has failed, too
        except BaseException as error:  # its traceback shows where the call was
            cause = detach(error.error if type(error) is WrappedError else error)
        self._fail_late(slot, cause)

    def _fail_late(self, slot: TaskSlot, cause: BaseException | None) -> None:
        assert slot.chunk is not None
        error = TimeoutError(f"the call took longer than timeout={self.job.timeout:g} s")
        error.__cause__ = cause
        self.job.failed(slot.chunk, slot.item, error, self.job.clock() - slot.mark, Kind.FAILED)

    def _give_up(self, slot: TaskSlot) -> None:
        """The call goes on in spite of its cancellation: fail its item, and free its slot."""
        assert slot.task is not None
        slot.timer = None
        if self.job.stopped:
            slot.task.cancel()
            return
        self._tasks[slot.task] = None
        self.job.abandoned += 1
        self._fail_late(slot, None)
        self.end(slot)
        self.notify(min(1, self.job.window.available()))

    # ---- the end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        loop = self._loop
        if loop is not None and (self._busy or self._tasks or self.pauses):
            try:
                loop.call_soon_threadsafe(self.cancel)
            except RuntimeError:  # the loop is closed, and so its tasks have ended
                pass

    def cancel(self) -> None:
        """After `stop`: cancel every call that runs, only once: its cleanup is not interrupted.

        A call that its time limit has cancelled is cancelled again only after its grace period.
        """
        if self._cancelled:
            return
        self._cancelled = True
        self.pauses.cancel()
        for turn in self._turns:
            turn.cancel()
        for task, slot in list(self._tasks.items()):
            if slot is not None and slot.timer is not None:
                if slot.late:
                    continue
                slot.stop_timer()
            task.cancel()

    def cancel_late(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task that was made after `stop`; before `cancel`, that will do it."""
        if self._cancelled:
            task.cancel()

    def tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks to be awaited after `cancel`."""
        return [*self._tasks, *self._turns]


def _raise(error: BaseException) -> None:
    raise error


def _discard(task: asyncio.Task[Any]) -> None:
    """Retrieve the outcome of the task: else asyncio logs an error that was never retrieved."""
    if not task.cancelled():
        task.exception()
