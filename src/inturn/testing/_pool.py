"""The pool of a run whose executor is a `Schedule`: its calls are made in the consumer's thread, one after the other.

A call under way is one that a slot has claimed, and that would be running now on threads. It is not made yet: it is
made when the script chooses it to end. So what it does, and what comes of it, is seen in the order that the script
says, and any number of calls can be under way without a thread.

========= ============================================= ==================================================
a call    how it is told                                left by
========= ============================================= ==================================================
waiting   it is in a backlog of the window              `_fill`, as soon as a slot is free
under way ``slot.item`` is set                          `_choose`, then `_make`
hanging   under way, and its fault is a `Hangs`         its time limit (`_give_up`); nothing else
being     `_make` is on the stack                       its end; meanwhile a nested run may do the same
made
pausing   it is in ``_pauses``                          its moment; then it waits again
========= ============================================= ==================================================

Invariants: at most `concurrency` slots; each attempt is made once, or fails by its fault and is not made; time moves
only when no call can end, and never past the next moment at which something is due; when a run has ended, `retire`
makes what is under way, as calls on threads go on, and nobody gets their outcomes.

The consumer's thread does everything here. Only `stop` may come from elsewhere, and it changes nothing.
"""

from __future__ import annotations

import heapq
import sys
from contextvars import Context
from math import inf
from typing import Any

from inturn._base.atomic import Once
from inturn._base.signals import raised_by_handler
from inturn._core.flat_job import NOTHING
from inturn._core.job import BasePool, Job, drain
from inturn._core.roles import Timekeeper
from inturn._core.slot import Slot
from inturn._engine.chunk import Chunk
from inturn._engine.window import NEVER
from inturn._model.outcome import Kind

from ._book import Book
from ._fault import Dies, Hangs
from ._record import RunRecord

__all__ = ["CallSlot", "SchedulePool"]


class CallSlot(Slot):
    """A call that is under way: what it needs, as of when it was started."""

    __slots__ = ("context", "fault", "fn", "hangs_until", "index", "item", "iterator", "started", "turn")

    chunk: Any  # a Chunk, unless the slot is free

    def __init__(self) -> None:
        super().__init__()
        self.turn = Once()  # in flat runs: who works with the iterator has it
        self.clear()

    def clear(self) -> None:
        self.index = -1
        self.started = 0.0
        self.hangs_until = 0.0  # when it is given up
        self.fault: Any = None  # a Fault, if one hits this attempt
        self.item: Any = NOTHING
        self.fn: Any = None
        self.context: Any = None  # a Context, in which the call is made
        self.iterator: Any = None  # in flat runs


class SchedulePool(BasePool, Timekeeper):
    """Slots for calls that are under way together, of which a script chooses the one that ends next.

    It is its run's timekeeper, too: time is virtual, so no thread has to look at a clock.
    """

    inline = True

    def __init__(self, job: Job, book: Book) -> None:
        super().__init__(job)
        self.book = book
        self.recorder = RunRecord(book, job)
        self._pauses: list[tuple[float, int, Chunk]] = []  # before a retry
        self._look_at = inf  # when the limit may let something start
        self.busy: list[CallSlot] = []
        self._idle: list[CallSlot] = []
        self._live: Context | None = None  # in which a live source is pulled
        self._retiring = Once()
        job.supervisor = self

    # ---- what it is told -------------------------------------------------------------------------

    def open(self) -> None:
        self.recorder.begin()

    def has_capacity(self) -> bool:
        return True

    def notify(self, chunks: int) -> None:
        self._fill()
        if self.job.sleeping:  # of an async source: the consumer waits, and has to go on with the calls
            self.job.notify()

    def slots(self) -> list[Slot]:
        return list(self.busy)

    def worker_of(self, slot: Slot) -> int:
        return id(slot)

    def later(self, seconds: float, chunk: Chunk) -> None:
        heapq.heappush(self._pauses, (self.job.clock() + seconds, chunk.index, chunk))

    def look_in(self, seconds: float) -> None:
        self._look_at = self.job.clock() + seconds

    def drop(self) -> None:
        """The last reference to the run is about to go: show its last progress."""
        if self.job.farewell is not None:
            self.job.farewell()

    # ---- the consumer waits ----------------------------------------------------------------------

    def work(self, *, block: bool) -> float | None:
        """One step: an item of a live source, the end of one call, or the passing of time; else an error."""
        if self._feed() or self._look():
            return 0.0
        slot = self._choose()
        if slot is None:
            return self._pass_time(block)
        self.job.sleeping.clear()  # nobody has to wake us for what we do ourselves
        self._step(slot)
        self._fill()
        return 0.0

    def _feed(self) -> bool:
        """Pull an item of a live source, if there is room."""
        feeder = self.job.feeder
        if feeder is None:
            return False
        if self._live is None:
            self._live = self.job.context.copy()
        try:
            return self._live.run(feeder.step)
        except BaseException as error:  # it ends the run, as it does where a thread pulls
            self.job.crash(error)
            return True

    def _fill(self) -> None:
        """Start calls while slots are free."""
        job = self.job
        while len(self.busy) < job.concurrency and job.may_start():
            chunk = job.claim()
            if chunk is None:
                return
            slot = self._idle.pop() if self._idle else CallSlot()
            self.busy.append(slot)
            job.begun(slot, chunk)
            self._next(slot)

    def _next(self, slot: CallSlot) -> None:
        """Start the next item of the slot's chunk, or free the slot."""
        chunk = slot.chunk
        slot.clear()
        item = next(chunk.todo, NOTHING)
        if item is NOTHING:
            self._free(slot)
            return
        slot.item, slot.index = item, chunk.index + len(chunk.out)
        self._start(slot)

    def _start(self, slot: CallSlot) -> None:
        job = self.job
        slot.fn, slot.context, slot.started = job.fn, job.context.copy(), job.clock()
        slot.fault = self.book.fault_of(slot.index, slot.chunk.attempt)
        self.recorder.record("started", slot.index, slot.chunk.attempt)

    def _free(self, slot: CallSlot) -> None:
        self.busy.remove(slot)
        self.job.ended(slot, slot.chunk)
        self._idle.append(slot)

    # ---- which one, and when ---------------------------------------------------------------------

    def _able(self, slot: CallSlot) -> bool:
        """Whether it can take a step, if nothing goes wrong."""
        return slot.item is not NOTHING

    def _hangs(self, slot: CallSlot) -> bool:
        return self._able(slot) and isinstance(slot.fault, Hangs)

    def _hanging(self) -> list[CallSlot]:
        """The slots that hang; each knows until when."""
        hanging = [slot for slot in self.busy if self._hangs(slot)]
        for slot in hanging:
            if not slot.hangs_until:
                slot.hangs_until = self.job.clock() + (inf if self.job.timeout is None else self.job.timeout)
        return hanging

    def _choose(self) -> CallSlot | None:
        """The slot that takes the next step; None if none can."""
        able = {slot.index: slot for slot in self.busy if self._able(slot) and not self._hangs(slot)}
        if not able:
            return None
        return able[self.recorder.choose(sorted(able))]

    def _look(self) -> bool:
        """Start what can be started, and give up calls that hang; whether there were any."""
        now = self.job.clock()
        if self._look_at <= now:
            self._look_at = inf
        while self._pauses and self._pauses[0][0] <= now:
            self.job.window.again(heapq.heappop(self._pauses)[-1])
        late = [slot for slot in self._hanging() if slot.hangs_until <= now]
        for slot in late:
            self._give_up(slot)
        self._fill()
        return bool(late)

    def _dues(self) -> list[float]:
        """The moments at which something will happen by itself."""
        job = self.job
        dues = [self._look_at, *(pause[0] for pause in self._pauses[:1])]
        dues += [slot.hangs_until for slot in self._hanging()]
        if job.deadline_at is not None and not job.stopped:
            dues.append(job.deadline_at)
        return [due for due in dues if due < inf]

    def _pass_time(self, block: bool) -> float | None:
        dues, now = self._dues(), self.job.clock()
        if self.book.in_loop:  # the loop moves the time
            return max(0.0, min(dues) - now) if dues else None
        if dues:
            self.book.move_to(min(dues))
            return 0.0
        window = self.job.window
        if block or window.room() <= 0 or window.last_index != NEVER:
            raise RuntimeError(self._stalled("next"))
        return None  # an async source may have an item more

    def _stalled(self, who: str) -> str:
        hanging = [slot.index for slot in self._hanging()]
        cause = f"item{'s' if len(hanging) > 1 else ''} {', '.join(map(str, hanging))} hang{'s' * (len(hanging) == 1)}"
        text = f"{who} would wait for ever: {cause if hanging else 'nothing is under way'}, and there is no time limit"
        return f"{text}\n{self.book.timeline()}"

    # ---- one step --------------------------------------------------------------------------------

    def _step(self, slot: CallSlot) -> None:
        """Make the call, and record what comes of it."""
        job, chunk, index, attempt = self.job, slot.chunk, slot.index, slot.chunk.attempt
        item, begun = slot.item, job.clock()
        result: Any = None
        error = None if slot.fault is None else slot.fault.error(index, attempt)
        if error is None:
            try:
                result = self._make(slot)
            except BaseException as caught:  # it travels to the consumer
                if raised_by_handler(caught):
                    raise
                error = caught
        try:
            if error is None:
                self.recorder.record("ended", index, attempt)
                chunk.out.append(result)
            else:
                self.recorder.record("failed", index, attempt)
                if isinstance(slot.fault, Dies):
                    job.window.take_back(chunk)  # another worker runs the rest
                job.failed(chunk, item, error, job.clock() - begun)
            self._next(slot)
        finally:
            del item, result, error, slot, chunk  # the traceback of an error may keep this frame

    def _make(self, slot: CallSlot) -> Any:
        """Call the function; the slot keeps nothing of it."""
        fn, item, context = slot.fn, slot.item, slot.context
        slot.item, slot.fn, slot.context = NOTHING, None, None
        try:
            return context.run(fn, item)
        finally:
            del fn, item, context

    def _give_up(self, slot: CallSlot) -> None:
        """The time limit of a call that hangs is over (guarantee 17)."""
        job, chunk = self.job, slot.chunk
        assert job.timeout is not None
        job.abandoned += 1
        job.window.take_back(chunk)
        self.recorder.record("given up", slot.index, chunk.attempt)
        error = TimeoutError(f"the call took longer than timeout={job.timeout:g} s")
        job.failed(chunk, slot.item, error, job.timeout, Kind.FAILED)
        slot.clear()
        self._free(slot)

    # ---- the end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        self._live = None

    def retire(self) -> None:
        """Make the calls that are under way; nobody gets what comes of them."""
        if not self._retiring.take():
            return
        try:
            self._pauses.clear()
            while (slot := self._choose()) is not None:
                index, attempt = slot.index, slot.chunk.attempt
                try:
                    if slot.fault is None:
                        self._make(slot)
                except BaseException as error:
                    if raised_by_handler(error):
                        raise
                self.recorder.record("closed", index, attempt)
                drain(slot.chunk)
                self._next(slot)
        finally:
            self._retiring.give_back()

    def join(self) -> None:
        """Wait for the calls that hang, until their time limit, in virtual time; an error if they have none.

        It is called twice, as pool and as timekeeper: the second time nothing hangs any more.
        """
        self.retire()
        until = max((slot.hangs_until for slot in self._hanging()), default=0.0)
        if 0.0 < until < inf:
            self.book.move_to(until)
            self._look()
        elif until and sys.exc_info()[1] is None:  # else that error is what the test is to show
            raise RuntimeError(self._stalled("close"))
