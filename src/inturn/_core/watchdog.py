"""The one thread of a run that looks at the clock: time boxes, time limits, and pauses before a retry.

It is started when first needed and rests, without a time-out, while there is nothing to watch. When the run is over it
leaves as soon as no call is under a time limit any more.

======= ======================================================= ====================================
state   how it is told                                          left by
======= ======================================================= ====================================
absent  ``_absent`` holds its one token                         whoever takes the token starts it
resting ``_resting`` holds its one token                        whoever takes the token wakes it
due     it waits for the earliest of boxes, limits and pauses   time passing, or a new pause
======= ======================================================= ====================================
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from functools import partial
from queue import Empty
from time import perf_counter as clock
from typing import TYPE_CHECKING

from inturn._base.alarm import Alarm
from inturn._base.gil import fence
from inturn._engine.chunk import Chunk
from inturn._engine.window import BOX_S
from inturn._model.outcome import from_handler

from .run_thread import NO_THREAD, RunThread, start

if TYPE_CHECKING:
    from .job import Job, Place

__all__ = ["Warden"]


class Warden:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._alarm = Alarm()
        self._new: deque[tuple[float, int, Chunk]] = deque()
        self._pauses: list[tuple[float, int, Chunk]] = []
        self._absent = deque([None])
        self._resting: deque[None] = deque()
        self._at_work: list[threading.Lock] = []  # one for each thread there has been, held until it ends
        self._thread: threading.Thread | None = None

    # ---- from workers and the consumer -----------------------------------------------------------

    def arm(self) -> None:
        """There is something to watch in a place."""
        fence()
        if self._absent:
            self._start()
        elif self._resting:
            try:
                self._resting.pop()
            except IndexError:
                return  # somebody else wakes it
            self._alarm.put()

    def later(self, seconds: float, chunk: Chunk) -> None:
        """The chunk is ready to run again after a pause."""
        self._new.append((clock() + seconds, chunk.index, chunk))
        self._alarm.put()
        if self._absent:
            self._start()

    def _start(self) -> None:
        try:
            self._absent.pop()
        except IndexError:
            return
        at_work = threading.Lock()
        at_work.acquire()  # by the starter, so that `join` waits for a thread that is still being started
        thread = RunThread(self._job, "inturn-warden", partial(self._watch, at_work))
        try:
            thread.announce()
            self._at_work.append(at_work)
            start(thread)
        except BaseException as error:
            if thread.annul():
                at_work.release()
                self._absent.append(None)
                if type(error) in NO_THREAD and not from_handler(error) and self._job.timeout is None and not self._new:
                    return  # no further thread can be had: chunks do without a time box
            raise
        self._thread = thread

    def stop(self) -> None:
        self._alarm.put()

    def join(self) -> None:
        self._alarm.put()  # the calls that it still watched have ended
        for at_work in self._at_work.copy():
            with at_work:
                pass
        if self._thread is not None:
            self._thread.join()

    # ---- its own thread --------------------------------------------------------------------------

    def _watch(self, at_work: threading.Lock) -> None:
        job = self._job
        try:
            while True:
                if job.stopped:  # only time limits are still of interest: `close` and exit wait for the calls
                    self._new.clear()
                    self._pauses.clear()
                due = self._look()
                if due is None:
                    word = self._absent if job.stopped else self._resting
                    word.append(None)
                    fence()
                    due = self._look()  # what was armed before we gave our word
                    if word is self._absent and (due is None or not word):
                        break  # for good, or somebody has started another
                    if due is not None:
                        word.clear()
                try:
                    self._alarm.get(timeout=due)
                except Empty:
                    continue
                self._resting.clear()
        except BaseException as error:  # the consumer must not wait for ever
            job.crash(error)
        finally:
            at_work.release()

    def _look(self) -> float | None:
        """Do what is due; seconds until something else is, or None."""
        job, now = self._job, clock()
        dues: list[float] = []
        while self._new:
            heapq.heappush(self._pauses, self._new.popleft())
        while self._pauses and self._pauses[0][0] <= now:
            job.window.again(heapq.heappop(self._pauses)[-1])
            job.pool.notify(1)
        if self._pauses:
            dues.append(self._pauses[0][0])
        for place in job.pool.places():
            due = self._look_at(place, now)
            if due is not None:
                dues.append(due)
        return max(0.0, min(dues) - clock()) if dues else None

    def _look_at(self, place: Place, now: float) -> float | None:
        job = self._job
        chunk, call = place.chunk, place.call
        if chunk is None:
            return None
        if job.timeout is not None and call is not None:
            due = call.started + job.timeout
            if due > now:
                return due
            if call.settle():
                place.give_up()
            elif place.call is call:
                return now + BOX_S  # its thread is just handing an element over
            return None
        if place.boxed and not chunk.swept and not job.stopped:
            due = place.since + BOX_S
            if due > now:
                return due
            taken = job.pool.take_back(chunk)
            if taken is None:
                return now + BOX_S
            chunk.swept = True
            job.window.measured(now - place.since, [*chunk.out, None])
            if taken:
                job.pool.notify(job.window.available())
            if job.sleeping:
                job.notify()  # what the chunk has so far may be delivered
        return None
