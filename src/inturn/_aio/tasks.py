"""The pool whose workers are asyncio tasks: a call that waits has a task and a context of its own.

A task belongs to one call from its first line to its last. So nothing that code keeps by task (its
cancellation count, ``current_task()`` as a key, ``asyncio.timeout``, a task group) passes from one
item to the next. Calls that return at once cost no turn of the loop all the same: the *pump*, a
callback of the loop, starts their tasks eagerly (on Python 3.11 see `eager`), takes the result, and
goes on to the next item of the chunk. At the first call that waits, the remainder of its chunk goes
back to the window, and a done callback reports the end of the call. Everything here runs in the
loop's thread, except `stop`, which may be called from anywhere.

======== ====================================== ===================================================
slot     condition                              left by
======== ====================================== ===================================================
free     in ``_free``                           the pump, which claims a chunk for it
begun    ``chunk`` is set, inside the pump      the end of the chunk; the first call that waits
waiting  ``tasks[task]`` is the slot            the end of the call: `_task_done`
late     waiting, cancelled by its time limit   the end of the call; `_expire`, `_GRACE_S` later
given up ``tasks[task]`` is None; it is free    (the end of the call is ignored)
======== ====================================== ===================================================
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from inspect import isawaitable
from typing import Any, Final

from inturn._base.signals import landed_here
from inturn._core.job import BasePool, Job
from inturn._core.roles import Timekeeper
from inturn._core.slot import Slot
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind, detach

from .events import call_in, tell

__all__ = ["TURN_S", "CallCoro", "TaskPool", "TaskSlot", "WrappedError"]

CallCoro = Callable[[Any, Any], Coroutine[Any, Any, Any]]

TURN_S: Final = 0.002  # maximum seconds per turn of the pump, or of a producer
_GRACE_S: Final = 0.5  # a call that its time limit has cancelled is given up after so many seconds


class WrappedError(Exception):
    """Wraps an error that leaves a task: asyncio would stop the loop at a ``SystemExit``."""

    def __init__(self, error: BaseException, kind: Kind) -> None:
        self.error = error
        self.kind = kind


async def _call(fn: Callable[[Any], Any], item: Any) -> Any:
    """What a task runs if ``fn`` is known to be async."""
    try:
        return await fn(item)
    except (SystemExit, KeyboardInterrupt) as error:
        caught = error
    raise WrappedError(caught, Kind.PASSING)


class TaskSlot(Slot):
    """Where one call at a time runs."""

    __slots__ = ("item", "late", "mark", "task", "timer")

    chunk: Any  # a Chunk, unless the slot is free

    def __init__(self) -> None:
        super().__init__()
        self.item: Any = None
        self.task: Any = None  # an asyncio.Task, once the call waits
        self.mark = 0.0  # when the call began
        self.timer: asyncio.TimerHandle | None = None
        self.late = False  # whether the call was cancelled by its time limit

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class TaskPool(BasePool, Timekeeper):
    """At most `concurrency` calls at once, each in a task of its own.

    It is its run's timekeeper, too: timers of the loop do what the supervisor does on threads.
    """

    kind = "task"

    _loop: asyncio.AbstractEventLoop  # since `open`
    _make: Callable[..., Any]  # makes a task, eagerly if it can; since `open`

    def __init__(self, job: Job, *, known: bool) -> None:
        super().__init__(job)
        job.supervisor = self
        self._call: CallCoro = _call if known else self._call_checked
        self._proven = known  # whether fn is known to return awaitables
        self.director: Callable[[Chunk, Any], Any] | None = None  # for tests: wraps calls
        self.tasks: dict[asyncio.Task[Any], TaskSlot | None] = {}  # to be awaited after `cancel`
        self._permits = job.concurrency
        self._busy: dict[TaskSlot, None] = {}
        self._free: list[TaskSlot] = []
        self._timers: dict[Chunk | None, asyncio.TimerHandle] = {}  # None: for the limit
        self._look_at = 0.0  # when that one is due; a handle of uvloop may not tell
        self._scheduled = 0  # turns of the pump that have not ended
        self._cancelled = False

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._make = self._loop.create_task
        if sys.version_info >= (3, 12):
            factory = self._loop.get_task_factory()  # one of the user's is respected
            if factory is None or factory is asyncio.eager_task_factory:
                self._make = partial(asyncio.Task, loop=self._loop, eager_start=True)

    # ---- consumer, feeder, timers ----------------------------------------------------------------

    def has_capacity(self) -> bool:
        return self._permits > 0 and not self._scheduled

    def notify(self, chunks: int) -> None:
        job = self.job
        wanted = chunks and self._permits and not self._scheduled and not job.stopped
        if wanted and (job.throttle is None or job.ready()):
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = 1
        self._loop.call_soon(self._pump, context=self.job.context)

    def worker_of(self, slot: Slot) -> int:
        return id(slot)

    def slots(self) -> list[Slot]:
        return list(self._busy)

    def running(self) -> int:
        return len(self._busy)

    def later(self, seconds: float, chunk: Chunk | None) -> None:
        self._timers[chunk] = call_in(seconds, self._due, chunk, self.job.context)

    def _due(self, chunk: Chunk | None) -> None:
        del self._timers[chunk]
        if chunk is not None:
            self.job.window.again(chunk)
        self.notify(1)

    def look_in(self, seconds: float) -> None:
        timer, look_at = self._timers.get(None), self._loop.time() + seconds
        if timer is None or look_at < self._look_at:
            if timer is not None:
                timer.cancel()
            self._look_at = look_at
            self.later(seconds, None)

    # ---- the pump --------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start calls, for at most one turn."""
        job = self.job
        try:
            until = job.clock() + TURN_S
            more = False
            while not more and self._permits and (chunk := job.claim()) is not None:
                slot = self._free.pop() if self._free else TaskSlot()
                self._permits -= 1
                self._busy[slot] = None
                job.begun(slot, chunk)
                more = not self._run(slot, chunk, until) or job.clock() >= until
            self._scheduled -= 1
            if more and job.window.available():
                self.notify(1)
        except BaseException as error:
            self._crash(error)

    def _run(self, slot: TaskSlot, chunk: Chunk, until: float) -> bool:
        """Run a chunk until a call waits or the turn is over; False if the pump must stop.

        Guarantees 21 and 31: each call has its own copy of the consumer's context.
        """
        job, make = self.job, self._make
        call = self._call if self.director is None else self.director(chunk, self._call)
        fn, copy, clock = job.fn, job.context.copy, job.clock
        append: Any = chunk.out.append
        mark = slot.since
        for item in chunk.todo:
            task = make(call(fn, item), context=copy())
            if not task.done():
                slot.item, slot.task, slot.mark = item, task, mark
                self._waits(slot)
                break
            try:
                append(task.result())
            except BaseException as error:  # it is raised in the consumer
                self._failed(chunk, item, error, clock() - mark)
            mark = clock()
            if mark >= until:
                job.window.take_back(chunk)
        else:
            self._end(slot)
        item = task = append = None  # the traceback of an error refers to this frame
        del chunk
        return True

    def _waits(self, slot: TaskSlot) -> None:
        """The call waits: it keeps the slot; the remainder of its chunk goes back to the window."""
        job, task, chunk = self.job, slot.task, slot.chunk
        self.tasks[task] = slot
        if job.stage is not None:
            task.set_name(job.label(chunk.index + len(chunk.out)))
        task.add_done_callback(partial(self._task_done, slot), context=job.context)
        if job.stopped:
            if self._cancelled:  # else `cancel` will do it
                task.cancel()
            return
        job.window.take_back(chunk)
        if chunk.out and job.sleeping:
            job.notify()  # earlier results of the chunk may be delivered
        self._limit(slot)

    def _task_done(self, slot: TaskSlot, task: asyncio.Task[Any]) -> None:
        """Record the outcome of a call that has waited."""
        job = self.job
        try:
            if self.tasks.pop(task) is None:
                _discard(task)  # given up
                return
            slot.stop_timer()
            try:
                if job.stopped:
                    _discard(task)
                elif slot.late:
                    self._fail_late(slot)
                else:
                    self._record(slot, task)
            finally:
                self._end(slot)
            self.notify(job.window.available())
        except BaseException as error:
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        """Have the consumer raise an error of this library, or of a signal handler (guarantee 14).

        While the consumer does not wait for the run, Ctrl-C also stops the loop, as in any callback.
        """
        self.job.crash(error)
        if isinstance(error, (KeyboardInterrupt, SystemExit)) and not self.job.sleeping:
            self._loop.call_soon(_raise, error)

    def _record(self, slot: TaskSlot, task: asyncio.Task[Any]) -> None:
        try:
            slot.chunk.out.append(task.result())
        except BaseException as error:  # it is raised in the consumer
            self._failed(slot.chunk, slot.item, error, self.job.clock() - slot.mark)

    def _failed(self, chunk: Chunk, item: Any, error: BaseException, elapsed: float) -> None:
        if type(error) is WrappedError:
            self.job.failed(chunk, item, detach(error.error), elapsed, error.kind)
        else:
            self.job.failed(chunk, item, error, elapsed)

    def _end(self, slot: TaskSlot) -> None:
        """Free the slot."""
        self.job.ended(slot, slot.chunk)
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
            left = max(0.0, timeout - (self.job.clock() - slot.mark))
            slot.timer = call_in(left, self._expire, slot, self.job.context)

    def _expire(self, slot: TaskSlot) -> None:
        """Cancel a call that has taken too long (guarantee 17), and give it up if it goes on."""
        slot.timer = None
        if slot.task.done():
            return
        if not slot.late:
            slot.late = True
            slot.task.cancel()
            slot.timer = call_in(_GRACE_S, self._expire, slot, self.job.context)
        elif self.job.stopped:
            slot.task.cancel()
        else:
            self.tasks[slot.task] = None
            self.job.abandoned += 1
            self._fail_late(slot)
            self._end(slot)
            self.notify(self.job.window.available())

    def _fail_late(self, slot: TaskSlot) -> None:
        """The call has failed, even if it has returned in spite of its cancellation."""
        error = TimeoutError(f"the call took longer than timeout={self.job.timeout:g} s")
        try:
            if slot.task.done():
                slot.task.result()
        except BaseException as cause:  # its traceback shows where the call was
            if landed_here(cause):
                raise
            error.__cause__ = detach(cause.error if type(cause) is WrappedError else cause)
        self.job.failed(slot.chunk, slot.item, error, self.job.clock() - slot.mark, Kind.FAILED)

    def stop(self) -> None:
        if self._busy or self.tasks or self._timers:
            tell(self._loop, self.cancel)

    def cancel(self) -> None:
        """After `stop`: cancel every call that runs, only once: its cleanup is not interrupted.

        A call that its time limit has cancelled is cancelled again only after its grace period.
        """
        if self._cancelled:
            return
        self._cancelled = True
        while self._timers:
            self._timers.popitem()[1].cancel()
        for task, slot in list(self.tasks.items()):
            if slot is not None and slot.timer is not None:
                if slot.late:
                    continue
                slot.stop_timer()
            task.cancel()


def _raise(error: BaseException) -> None:
    raise error


def _discard(task: asyncio.Task[Any]) -> None:
    """Retrieve the outcome of the task: else asyncio logs an error that was never retrieved."""
    if not task.cancelled():
        task.exception()
