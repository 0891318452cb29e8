"""``executor="serial"``: each call runs in the consumer's thread, when it is delivered."""

from __future__ import annotations

from inturn._core.job import BasePool, Job
from inturn._core.slot import Slot

__all__ = ["Serial"]


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

    def take_back(self, chunk: object) -> bool | None:
        return None  # the consumer is at it

    def work(self, *, block: bool) -> float | None:
        job = self.job
        self._left = None
        chunk = job.claim()
        if chunk is None:  # a pause before a retry, a live source, or the limit
            return self._left
        job.sleeping.clear()  # nobody has to wake us for what we run ourselves
        job.begun(self.slot, chunk)
        job.run_unlimited(chunk)
        job.ended(self.slot, chunk)
        return 0.0

    def retire(self) -> None:
        self.slot.chunk = None  # the consumer has left the call, also if a signal handler's exception took it out
