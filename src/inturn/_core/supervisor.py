"""The supervisor: the one thread of a run that looks at the clock, and is never interrupted.

CPython runs signal handlers in the main thread, between any two of its steps. A consumer that
starts a thread, or takes a lock, can be interrupted half-way, and what it leaves behind makes
somebody wait for ever. So the consumer does single atomic steps only: it adds an item, wakes a
worker, or wakes the supervisor, which starts workers (`BasePool.grow`), ends time slices and time
limits, and lets items run again after a pause.

Only the supervisor itself is started by the consumer. ``Thread.start`` takes several steps, so
`start` makes a bare thread by one call into C: the thread exists and `_identifier` says so, or
neither.

======== =============================================== ==========================================
state    how it is told                                  left by
======== =============================================== ==========================================
absent   ``_identifier`` is empty                        `start`
due      it waits for the earliest slice, limit or pause time passing; `wake`; a pause
sleeping ``_sleeping``: there is nothing to look at      `wake`; a pause
gone     ``_left`` is open                               (the run is over, and no call has a limit)
======== =============================================== ==========================================

All limits and all slices have one length, so one that begins later ends later: only a supervisor
that sleeps is woken for it (`watch`). A pause may be of any length, and always wakes it.
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

from .job import End, Job
from .nesting import inside
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

    def start(self) -> None:
        """Start the thread, unless it is there; a `RuntimeError` says that none can be had."""
        if self._identifier:
            return
        if sys.is_finalizing():
            raise RuntimeError("a run cannot begin while the interpreter is shutting down")
        if DAEMON:
            self._identifier.extend(map(_thread.start_new_thread, (self._work,), ((),)))
        else:  # a subinterpreter waits for threads that `threading` knows, and handles no signals
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

    def wake(self) -> None:
        self._event.set()

    def watch(self) -> None:
        fence()  # what is to be looked at is written before we ask whether anybody looks
        if self._sleeping:
            self._event.set()

    def later(self, seconds: float, chunk: Chunk) -> None:
        self._new.append((self._job.clock() + seconds, chunk.index, chunk))
        self.start()
        self._event.set()

    def look_in(self, seconds: float) -> None:
        look_at = self._job.clock() + seconds
        if look_at < self._again_at:  # else it looks before that, and we are asked again
            self._again_at = look_at
            self._event.set()

    def drop(self) -> None:
        if self._job.farewell is not None:
            farewells.add(self._left)  # its last progress is to be shown
            try:
                self.start()  # where calls need no supervisor
            except RuntimeError:  # no thread can be had: nobody is told
                farewells.discard(self._left)

    def join(self) -> None:
        self._event.set()
        if self._identifier:
            self._left.wait()

    def bars(self, job: Job) -> bool:
        return not inside(self._job)

    @must_not_wait
    def _work(self) -> None:
        job = self._job
        try:
            try:
                self._supervise()
            except BaseException as error:  # no thread can be had, or a fault of ours
                job.crash(error)
            self._answer(sys.maxsize)
            job.pool.released()
            if job.end is End.DROPPED:  # nobody else comes to end things
                job.pool.retire()
                if job.farewell is not None:
                    job.farewell()
        finally:
            farewells.discard(self._left)
            if DAEMON:  # what ``current_thread()`` has made here would stay, before Python 3.13
                getattr(threading, "_active", {}).pop(threading.get_ident(), None)
            self._left.open()

    def _supervise(self) -> None:
        job = self._job
        if job.feeder is not None:
            job.feeder.start()
        while True:
            asked = self._asked
            again = job.pool.grow()
            self._answer(asked)
            due = self._look(again)
            if due is None:
                if job.stopped:
                    return
                self._sleeping = True
                fence()
                due = self._look(None)  # a slice or limit may have begun before we said so
            self._event.wait(due)
            self._sleeping = False

    def _answer(self, asked: int) -> None:
        self._answered = asked
        self._settled.set()

    def _look(self, again: float | None) -> float | None:
        """Do what is due; seconds until something else is, or `again`, or None (guarantee 17)."""
        job, now = self._job, self._job.clock()
        while self._new:
            heapq.heappush(self._pauses, self._new.popleft())
        if job.stopped:  # only time limits are still of interest: `close` and exit wait for the calls
            self._pauses.clear()
            self._again_at = math.inf
        while self._pauses and self._pauses[0][0] <= now:
            job.window.again(heapq.heappop(self._pauses)[-1])
            job.pool.notify(1)
        if self._again_at <= now:
            self._again_at = math.inf
            fence()  # who is refused from here on sets it again
            job.pool.notify(1)
        dues = [math.inf if again is None else now + again, self._again_at]
        dues += [due for due, _, _ in self._pauses[:1]]
        dues += [self._look_at(slot, now) for slot in job.pool.slots()]
        due = min(dues)
        return None if due == math.inf else max(0.0, due - job.clock())

    def _look_at(self, slot: Slot, now: float) -> float:
        """End the slot's call or time slice if it is due; when to look again."""
        job = self._job
        chunk, call = slot.chunk, slot.call
        if chunk is None:
            return math.inf
        if job.timeout is not None and call is not None:
            due = call.started + job.timeout
            if due > now:
                return due
            if call.settle():
                slot.give_up()
            elif slot.call is call:
                return now + SLICE_S  # its thread is just handing an element over
        elif slot.sliced and not chunk.expired and not job.stopped:
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
        return math.inf
