"""``executor="serial"``: each call runs in the consumer's thread, when it is delivered."""

from __future__ import annotations

from inturn._core.job import Call, Job, Place, run_chunk
from inturn._engine.chunk import Chunk

__all__ = ["Serial"]


class Serial:
    """A pool and its only place."""

    inline = True

    def __init__(self, job: Job) -> None:
        self._job = job
        self.chunk: Chunk | None = None
        self.since = 0.0
        self.boxed = False
        self.call: Call | None = None

    def give_up(self) -> None:
        raise AssertionError("serial calls have no time limit")

    def open(self) -> None:
        pass

    def hungry(self) -> bool:
        return bool(self._job.sleeping)

    def notify(self, chunks: int) -> None:
        if chunks and self._job.sleeping:  # for a live source, or for a pause before a retry
            self._job.notify()

    def places(self) -> list[Place]:
        return [self]

    def running(self) -> int:
        return int(self.chunk is not None)

    def take_back(self, chunk: Chunk) -> bool | None:
        return None

    def wait(self, seconds: float | None) -> None:
        job = self._job
        chunk = job.window.claim() if job.may_start() else None
        if chunk is None:  # a pause before a retry, or a live source
            job.sleep(seconds)
            return
        job.sleeping.clear()  # nobody has to wake us for what we run ourselves
        job.begun(self, chunk)
        run_chunk(chunk, job)
        job.ended(self, chunk)

    def stop(self) -> None:
        pass

    def retire(self) -> None:
        pass

    def join(self) -> None:
        pass
