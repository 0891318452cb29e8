"""The side of the slots: what a thread does for an item of a flat map.

A slot produces one item from its first element to its end. It rests, in C, while the lane is full,
while the item pauses before it runs again, and while its policy has not yet decided (see `lanes`):
until the consumer or `FlatJob.stop` sets the lane's event. ``timeout`` does not count these rests.

============ ==================================== ===============================================
a call       how it is told                       left by
============ ==================================== ===============================================
unlimited    ``timeout`` is None                  its end
producing    its `Call` is open                   handing over an element; its end; `give_up`
handing over its `Call` is settled by its thread  the thread, which opens it again
resting      ``slot.call`` is None                its event, with a `Call` that started earlier
given up     the supervisor has settled its       its thread comes back, closes the iterator and
             `Call`                               leaves
============ ==================================== ===============================================
"""

from __future__ import annotations

from contextvars import Context
from typing import Any, Final

from inturn._engine.chunk import Chunk
from inturn._engine.lanes import Lane, LaneWindow, Phase
from inturn._model.outcome import Err, Kind, as_failure_kind, detach
from inturn._model.policy import ENDS, LATER, Retry

from .elements import close, elements_of
from .job import End, Job
from .slot import Call, Slot

__all__ = ["NOTHING", "FlatJob", "produce"]

NOTHING: Final = object()  # in place of an item: it has been drained, and never starts


class FlatJob(Job):
    window: LaneWindow
    asks = True  # whether the policy, when it is asked in turn, may have an item run again

    def failed(self, chunk: Chunk, item: Any, error: BaseException, elapsed: float, kind: Kind | None = None) -> None:
        lane = chunk.out[0]
        if self.trace is not None:
            self.trace.failed(chunk, 0, self.clock())
        if kind is None:
            kind = as_failure_kind(error)
            error = detach(error)
        err = Err(error, item, kind, chunk.attempt, elapsed, lane.made - len(lane.buffer))
        decided = self.decided(chunk.index, err, may_retry=not lane.made)
        if decided is ENDS and not self._goes_on_until(chunk.index, err):
            return
        undecided = decided is LATER and self.asks and not lane.made
        if undecided or isinstance(decided, Retry):
            chunk.todo = iter((item,))
            chunk.attempt += 1
        if isinstance(decided, Retry):
            self.retried.add(1)
            lane.pause(self.clock() + decided.after)
        else:
            lane.fail(err, undecided=undecided)
            self.rouse(lane.index)

    def ended(self, slot: Slot, chunk: Chunk) -> None:
        super().ended(slot, chunk)
        lane = chunk.out[0]
        if lane.phase is not Phase.ENDED and not self.stopped:
            self.window.again(chunk)  # its call was given up: the next slot takes up where this one was

    def run(self, chunk: Chunk, slot: Slot, context: Context | None = None) -> bool:
        lane = chunk.out[0]
        while self.cleared(lane):
            item = next(chunk.todo, NOTHING)
            if item is NOTHING:  # drained: it never starts
                break
            copy = (self.context if context is None else context).copy()
            if not copy.run(produce, chunk, lane, item, self, slot):
                return False
        return True

    def cleared(self, lane: Lane) -> bool:
        """Wait until the item may produce; False if it never will."""
        while not self.stopped and lane.phase is not Phase.ENDED:
            if lane.phase is Phase.OPEN:
                return True
            left = self.reopens_in(lane)
            if left != 0.0:
                self._wait(lane, left)
        return False

    def reopens_in(self, lane: Lane) -> float | None:
        """Seconds until a lane that pauses may produce again; 0: now it does. None: it does not pause."""
        if lane.phase is not Phase.PAUSING:
            return None
        left = max(0.0, lane.due - self.clock()) or self.again_in()
        if not left:
            lane.reopen()
        return left

    def again_in(self) -> float:
        """Start another attempt of an item: 0, or the seconds until the limit may allow it."""
        left = None if self.throttle is None else self.throttle.ask(self.clock, start=True)
        return left or 0.0

    def rest(self, lane: Lane) -> bool:
        """Wait for room in the lane; False if the run is over."""
        while lane.full() and not self.stopped:
            lane.producer_waits.append(None)
            if lane.full() and not self.stopped:  # asked after `producer_waits` is set: see `relieve`, `stop`
                self._wait(lane, None)
            lane.producer_waits.clear()
        return not self.stopped

    def _wait(self, lane: Lane, seconds: float | None) -> None:
        """Wait for the lane's event; the worker does not count meanwhile."""
        self.pool.rest()
        try:
            lane.event.wait(seconds)  # type: ignore[attr-defined]
        finally:
            self.pool.rest(over=True)

    def stop(self, end: End = End.CLOSED) -> None:
        super().stop(end)
        for slot in self.pool.slots():
            chunk = slot.chunk
            if chunk is not None and chunk.out:
                chunk.out[0].event.set()


def produce(chunk: Chunk, lane: Lane, item: Any, job: FlatJob, slot: Slot) -> bool:
    """Run the item once, into its lane; False if the call was given up, and its thread must go."""
    sleeping, index, append, clock = job.sleeping, lane.index, lane.append, job.clock
    started = clock()  # shifted by the time spent waiting for room
    mine = True
    call = _limit(item, started, job, slot)
    try:
        iterator = elements_of(job.fn(item))
        take = iterator.__next__
        while not job.stopped:
            if lane.full():
                mine = _settled(call, slot)
                call = None
                rested = clock()
                if not mine or not job.rest(lane):
                    break
                started += clock() - rested
                call = _limit(item, started, job, slot)
            try:
                element = take()
            except StopIteration:
                mine = _settled(call, slot)
                if mine:
                    lane.finish()
                    job.rouse(index)
                return mine
            if call is not None and not call.settle():
                mine = False
                break
            lane.made += 1
            append(element)
            del element  # it may be delivered now, and nobody else keeps it
            if call is not None:
                call.reopen()
            if sleeping:
                job.rouse(index)
        mine = mine and _settled(call, slot)
        close(iterator)  # the run is over, or the call was given up
    except BaseException as error:  # it travels to the consumer
        mine = _settled(call, slot)
        if mine:
            job.failed(chunk, item, error, clock() - started)
    return mine


def _limit(item: Any, started: float, job: Job, slot: Slot) -> Call | None:
    if job.timeout is None:
        return None
    slot.call = call = Call(item, started)
    job.supervisor.watch()  # after `call` is set: the supervisor may be about to rest
    return call


def _settled(call: Call | None, slot: Slot) -> bool:
    """Take the call from under its time limit; False if it was given up."""
    mine = call is None or call.settle()
    if mine:
        slot.call = None
    return mine
