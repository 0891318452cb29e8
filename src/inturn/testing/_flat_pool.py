"""The pool of a flat run whose executor is a `Schedule`: items that are under way produce one element at a time.

What the script chooses is the next element: of the items under way that have room in their lane, one produces one
element, or finds its end. An item keeps its slot from its first attempt to its end, as `lanes` requires.

========= ============================================ ====================================================
an item   how it is told                               left by
========= ============================================ ====================================================
able      its lane is OPEN and has room                `_step`
full      its lane is OPEN and has no room             the consumer, which takes an element
hanging   it would be able, but its fault is a         its time limit (`_give_up`); nothing else
          `Hangs` that has come
pausing   its lane is PAUSING                          its moment: then another attempt (`_next`)
undecided its lane is UNDECIDED                        the consumer's policy
over      its lane is ENDED                            `_look` and `_step`, which free the slot
========= ============================================ ====================================================

Whoever works with an iterator, `_step` or `stop`, has taken the slot's `turn`: `stop`, which may come from anywhere,
never closes a generator that is running.
"""

from __future__ import annotations

from inturn._base.signals import raised_by_handler
from inturn._core.elements import close, elements_of
from inturn._core.flat_job import NOTHING, FlatJob
from inturn._engine.lanes import Lane, Phase

from ._pool import CallSlot, SchedulePool

__all__ = ["FlatSchedulePool"]


class FlatSchedulePool(SchedulePool):
    """Slots for items that produce together, of which a script chooses the one that produces the next element."""

    job: FlatJob

    # ---- the slots -------------------------------------------------------------------------------

    def _able(self, slot: CallSlot) -> bool:
        return slot.item is not NOTHING and _lane(slot).phase is Phase.OPEN and not _lane(slot).full()

    def _hangs(self, slot: CallSlot) -> bool:
        return super()._hangs(slot) and _lane(slot).made >= slot.fault.after

    def _next(self, slot: CallSlot) -> None:
        """Begin an attempt of the slot's item, if its time has come; or free the slot."""
        job, chunk, lane = self.job, slot.chunk, _lane(slot)
        slot.clear()
        if lane.due <= job.clock() and (left := job.reopens_in(lane)):
            lane.due = job.clock() + left  # the limit does not let it start yet
        if lane.phase is Phase.OPEN:
            item = next(chunk.todo, NOTHING)
            if item is not NOTHING:
                slot.item, slot.index = item, lane.index
                self._start(slot)
                return
        elif lane.phase is not Phase.ENDED and not job.stopped:
            return  # it pauses, or waits for its policy
        self._free(slot)

    def _look(self) -> bool:
        late = super()._look()
        for slot in list(self.busy):
            if slot.item is NOTHING:
                self._next(slot)
        self._fill()  # some slots may be free now
        return late

    def _dues(self) -> list[float]:
        pausing = [_lane(slot) for slot in self.busy if _lane(slot).phase is Phase.PAUSING]
        return [*super()._dues(), *(lane.due for lane in pausing)]

    # ---- one step --------------------------------------------------------------------------------

    def _step(self, slot: CallSlot) -> None:
        """Produce an element of the item, or find its end."""
        job, chunk, lane = self.job, slot.chunk, _lane(slot)
        if not slot.turn.take():
            return  # `stop` is just closing it
        item, context, fault = slot.item, slot.context, slot.fault
        error: BaseException | None = None
        if fault is not None and lane.made >= fault.after:
            error = fault.error(slot.index, chunk.attempt)
        try:
            if error is not None:
                self._close(slot)
            else:
                error = context.run(self._advance, slot, lane)
        finally:
            slot.turn.give_back()
        try:
            if error is not None:
                self.recorder.record("failed", slot.index, chunk.attempt)
                slot.item = NOTHING
                job.failed(chunk, item, error, job.clock() - slot.started)
            if lane.phase is not Phase.OPEN:
                self._next(slot)
            if job.stopped:
                self.stop()
        finally:
            del item, error, slot, chunk  # the traceback of an error may keep this frame

    def _advance(self, slot: CallSlot, lane: Lane) -> BaseException | None:
        """In the item's context; the error that it ends with."""
        try:
            if slot.iterator is None:
                slot.iterator = elements_of(slot.fn(slot.item))
            element = next(slot.iterator, NOTHING)
            if element is NOTHING:
                slot.iterator = slot.context = None
                slot.item = NOTHING
                self.recorder.record("ended", slot.index, slot.chunk.attempt)
                lane.finish()
            else:
                self.recorder.record("made", slot.index, slot.chunk.attempt)
                lane.made += 1
                lane.append(element)
            return None
        except BaseException as error:  # it travels to the consumer
            if raised_by_handler(error):
                raise
            slot.iterator = slot.context = None
            return error

    def _close(self, slot: CallSlot) -> None:
        """Close the item's iterator, in its context."""
        iterator, slot.iterator = slot.iterator, None
        if iterator is not None:
            slot.context.run(close, iterator)

    def _give_up(self, slot: CallSlot) -> None:
        self._close(slot)
        super()._give_up(slot)

    # ---- the end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """Close the iterators, but the one that is running: then `_step` does."""
        super().stop()
        for slot in list(self.busy):
            if not slot.turn.take():
                continue
            try:
                if slot.context is not None and not self._hangs(slot):
                    self.recorder.record("closed", slot.index, slot.chunk.attempt)
                    self._close(slot)
                    slot.clear()
            finally:
                slot.turn.give_back()

    def retire(self) -> None:
        """Free the slots, but those that hang."""
        for slot in list(self.busy):
            if not self._hangs(slot):
                slot.clear()
                self._free(slot)


def _lane(slot: CallSlot) -> Lane:
    lane: Lane = slot.chunk.out[0]
    return lane
