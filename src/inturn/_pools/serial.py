"""``executor="serial"``: calls run in the consumer's thread, each when its result is delivered."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

from inturn._core.elements import close, elements_of
from inturn._core.flat_job import NOTHING, FlatJob
from inturn._core.job import BasePool, Job
from inturn._core.slot import Slot
from inturn._engine.chunk import Chunk
from inturn._engine.lanes import Lane, Phase

__all__ = ["FlatSerial", "Serial"]


class Serial(BasePool):
    """A pool of one slot, which is worked by the consumer when it waits (guarantee 20)."""

    kind = "serial"
    inline = True
    ahead = False

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.slot = Slot()
        self._left: float | None = None  # seconds until the limit may let something start

    def open(self) -> None:
        """There is nothing to supervise; a pause before a retry starts the supervisor."""

    def has_capacity(self) -> bool:
        return bool(self.job.sleeping)

    def notify(self, chunks: int) -> None:
        if chunks and self.job.sleeping:  # for a live source, or for a pause before a retry
            self.job.notify()

    def look_in(self, seconds: float) -> None:
        self._left = seconds

    def slots(self) -> list[Slot]:
        return [self.slot]

    def work(self, *, block: bool) -> float | None:
        job, chunk = self.job, self._claim()
        if chunk is None:
            return self._left
        job.sleeping.clear()  # nobody has to wake us for what we run ourselves
        job.run(chunk, self.slot)
        job.ended(self.slot, chunk)
        return 0.0

    def _claim(self) -> Chunk | None:
        """None: a pause before a retry, a live source, or the limit."""
        self._left = None
        chunk = self.job.claim()
        if chunk is not None:
            self.job.begun(self.slot, chunk)
        return chunk

    def retire(self) -> None:
        self.slot.chunk = None  # the consumer has left the call, also if a signal handler's exception took it out


class FlatSerial(Serial):
    """For a flat map: each element is produced when it is delivered.

    Who works with the iterator, `work` or `stop`, has taken it out of `_steps`: so `stop`, which may come from
    anywhere, never closes a generator that is running.
    """

    job: FlatJob

    def __init__(self, job: FlatJob) -> None:
        super().__init__(job)
        # Each step produces an element of the head, in this context.
        self._steps: dict[None, tuple[contextvars.Context, Iterator[None]]] = {}

    def work(self, *, block: bool) -> float | None:
        """Produce one element of the head; or start it, or let it pause."""
        job, chunk = self.job, self.slot.chunk or self._claim()
        if chunk is None:
            return self._left
        lane: Lane = chunk.out[0]
        if left := job.reopens_in(lane):
            return left
        if lane.phase is Phase.OPEN:
            taken: Any = self._steps.pop(None, None)
            context, steps = taken or (job.context.copy(), self._produce(chunk, lane))
            done = False
            try:
                done = context.run(next, steps, NOTHING) is NOTHING
            finally:
                if not done:
                    self._steps[None] = context, steps
            if job.stopped:
                self.stop()
        if lane.phase is Phase.ENDED:
            job.ended(self.slot, chunk)
        return 0.0

    def _produce(self, chunk: Chunk, lane: Lane) -> Iterator[None]:
        job, clock, spent = self.job, self.job.clock, 0.0
        for item in chunk.todo:  # one, or none if it was drained
            begun = clock()
            try:
                iterator = elements_of(job.fn(item))
                while (element := next(iterator, NOTHING)) is not NOTHING:
                    lane.made += 1
                    lane.append(element)
                    del element  # it may be delivered now, and nobody else keeps it
                    spent += clock() - begun
                    try:
                        yield
                    except GeneratorExit:
                        close(iterator)
                        return
                    begun = clock()
                lane.finish()
            except BaseException as error:  # it travels to the consumer
                job.failed(chunk, item, error, spent + clock() - begun)

    def stop(self) -> None:
        """Close the iterator, unless it is running: then `work` does."""
        taken = self._steps.pop(None, None)
        if taken is not None:
            context, steps = taken
            context.run(close, steps)
