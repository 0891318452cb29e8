"""The supervisor: the one thread of a run that looks at the clock, and that does what must not be interrupted.

CPython runs signal handlers in the main thread, between any two of its steps. A consumer that starts a thread, or takes
a lock, can be interrupted half-way, and what it leaves behind makes somebody wait for ever. So the consumer does single
atomic steps only: it puts an item into the window, wakes a worker, or wakes the supervisor, which starts workers
(`BasePool.grow`), ends time slices and time limits, and lets items run again after a pause.

One thing the consumer has to do itself: start the supervisor. ``Thread.start`` will not do, since it
waits for the new thread in several steps. `start` is one call into C instead: the thread exists and
`_identifier` says so, or neither. It is a bare thread, which `threading` does not know, unless code of
the user asks for ``current_thread()`` in it (an executor's ``submit``, say): then `threading` makes an
object for it, which `_forget_dummy` removes in the end. Only in a subinterpreter it is a `CallThread`.

======== ================================================ ==================================================
state    how it is told                                   left by
======== ================================================ ==================================================
absent   ``_identifier`` is empty                         `start`
due      it waits for the earliest slice, limit or pause  time passing; `wake`; a pause
sleeping ``_sleeping``: there is nothing to look at       `wake`; a pause
gone     ``_left`` is open                                (the run is over, and no call is under a time limit)
======== ================================================ ==================================================

A limit or a slice that begins later ends later, since all are of one length: so only a supervisor that sleeps has to be
woken for it (`watch`). A pause may be of any length, and always wakes it.
"""

from __future__ import annotations

import _thread
import heapq
import math
import sys
import threading
from collections import deque

from inturn._base.atomic import fence
from inturn._base.events import Latch, ThreadEvent
from inturn._engine.chunk import Chunk
from inturn._engine.window import SLICE_S

from .end import DROPPED
from .job import Job, inside
from .roles import Timekeeper
from .slot import Slot
from .threads import DAEMON, CallThread, farewells, must_not_wait

__all__ = ["Supervisor"]


class Supervisor(Timekeeper):
    def __init__(self, job: Job) -> None:
        self._job = job
        self._event = ThreadEvent()
        self._new: deque[tuple[float, int, Chunk]] = deque()
        self._pauses: list[tuple[float, int, Chunk]] = []
        self._again_at = math.inf  # when the limit may let something start
        self._sleeping = False
        self._identifier: deque[int] = deque()
        self._left = Latch()
        self._asked = 0  # by the one who pulls
        self._answered = 0
        self._settled = ThreadEvent()

    # ---- the consumer ----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, unless it is there; at the first ``next``, or, where calls need none, at the first pause.

        Raises:
            RuntimeError: No thread can be had.
        """
        if not self._identifier:
            if sys.is_finalizing():
                raise RuntimeError("a run cannot begin while the interpreter is shutting down")
            if DAEMON:
                self._identifier.extend(map(_thread.start_new_thread, (self._work,), ((),)))
            else:
                self._start_known()

    def _start_known(self) -> None:
        """In a subinterpreter, whose end waits for the threads that `threading` knows; no signal handler runs there."""
        thread = CallThread(self._job, Slot(), self._job.label("supervisor"), self._work)
        thread.left = self._left
        thread.start()
        self._identifier.append(thread.ident or 0)

    def settle(self) -> None:
        """Wait until it has looked whether workers are wanted, and has started them."""
        self._asked += 1
        self._event.set()
        while self._answered < self._asked:
            self._settled.wait()

    # ---- from anywhere ---------------------------------------------------------------------------

    def wake(self) -> None:
        """There is something to start, or the run is over."""
        self._event.set()

    def watch(self) -> None:
        """A slot has begun a time slice or a time limit."""
        fence()  # what is to be looked at is written before we ask whether anybody looks
        if self._sleeping:
            self._event.set()

    def later(self, seconds: float, chunk: Chunk) -> None:
        """The chunk is ready to run again after a pause."""
        self._new.append((self._job.clock() + seconds, chunk.index, chunk))
        self.start()
        self._event.set()

    def look_in(self, seconds: float) -> None:
        """The limit may let something start then."""
        look_at = self._job.clock() + seconds
        if look_at < self._again_at:  # else it looks before that, and we are asked again
            self._again_at = look_at
            self._event.set()

    def drop(self) -> None:
        """The last reference to the run is about to go: see to it that its last progress is shown."""
        if self._job.farewell is not None:
            farewells.add(self._left)
            try:
                self.start()  # where calls need no supervisor
            except RuntimeError:  # no thread can be had: nobody is told
                farewells.discard(self._left)

    def join(self) -> None:
        """Wait until it has gone (after the job was stopped)."""
        self._event.set()
        if self._identifier:
            self._left.wait()

    def bars(self, job: Job) -> bool:
        return not inside(self._job)

    # ---- its own thread --------------------------------------------------------------------------

    @must_not_wait
    def _work(self) -> None:
        job = self._job
        try:
            if job.feeder is not None:
                job.feeder.start()
            while True:
                asked = self._asked
                again = job.pool.grow()
                self._answer(asked)
                due = self._look(again)
                if due is None:
                    if job.stopped:
                        break
                    self._sleeping = True
                    fence()
                    due = self._look(None)  # a slice or a limit may have begun before we said that we rest
                self._event.wait(due)
                self._sleeping = False
        except BaseException as error:  # no thread can be had; or a fault of ours: the consumer must not wait for ever
            self._leave(error)
        else:
            self._leave(None)

    def _leave(self, error: BaseException | None) -> None:
        job = self._job
        if error is not None:
            job.crash(error)
        try:
            self._answer(sys.maxsize)
            job.pool.released()
            if job.end is DROPPED:  # nobody else comes to end things
                job.pool.retire()
                if job.farewell is not None:
                    job.farewell()
        finally:
            farewells.discard(self._left)
            _forget_dummy()
            self._left.open()

    def _answer(self, asked: int) -> None:
        self._answered = asked
        self._settled.set()

    def _look(self, again: float | None) -> float | None:
        """Do what is due; seconds until something else is, the pool's wish included, or None.

        Guarantee 17.
        """
        job, now = self._job, self._job.clock()
        dues: list[float] = [] if again is None else [now + again]
        while self._new:
            heapq.heappush(self._pauses, self._new.popleft())
        if job.stopped:  # only time limits are still of interest: `close` and exit wait for the calls
            self._pauses.clear()
        while self._pauses and self._pauses[0][0] <= now:
            job.window.again(heapq.heappop(self._pauses)[-1])
            job.pool.notify(1)
        if self._pauses:
            dues.append(self._pauses[0][0])
        if self._again_at <= now:
            self._again_at = math.inf
            fence()  # who is refused from here on sets it again
            if not job.stopped:
                job.pool.notify(1)
        if self._again_at < math.inf and not job.stopped:
            dues.append(self._again_at)
        for slot in job.pool.slots():
            due = self._look_at(slot, now)
            if due is not None:
                dues.append(due)
        return max(0.0, min(dues) - job.clock()) if dues else None

    def _look_at(self, slot: Slot, now: float) -> float | None:
        job = self._job
        chunk, call = slot.chunk, slot.call
        if chunk is None:
            return None
        if job.timeout is not None and call is not None:
            due = call.started + job.timeout
            if due > now:
                return due
            if call.settle():
                slot.give_up()
            elif slot.call is call:
                return now + SLICE_S  # its thread is just handing an element over
            return None
        if slot.sliced and not chunk.expired and not job.stopped:
            due = slot.since + SLICE_S
            if due > now:
                return due
            taken = job.pool.take_back(chunk)
            if taken is None:
                return now + SLICE_S
            chunk.expired = True
            job.window.measured(now - slot.since, len(chunk.out) + 1)
            if taken:
                job.pool.notify(job.window.available())
            if job.sleeping:
                job.notify()  # what the chunk has so far may be delivered
        return None


def _forget_dummy() -> None:
    """Remove what `threading` has made up for this bare thread: before Python 3.13 it would stay for ever."""
    if DAEMON:
        dummies: dict[int, object] = getattr(threading, "_active", {})
        dummies.pop(threading.get_ident(), None)
