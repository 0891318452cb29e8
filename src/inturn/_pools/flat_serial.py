"""``executor="serial"`` for a flat map."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from typing import Any

from inturn._base.atomic import Once
from inturn._core.elements import close, elements_of
from inturn._core.flat_job import NOTHING, FlatJob
from inturn._engine.chunk import Chunk
from inturn._engine.lanes import Lane, Phase

from .serial import Serial

__all__ = ["FlatSerial"]


class FlatSerial(Serial):
    """``executor="serial"``: each element is produced in the consumer's thread, when it is delivered.

    Who works with the iterator, `work` or `stop`, has taken `_iterating`: `stop`, which may come from anywhere, never
    closes a generator that is running.
    """

    def __init__(self, job: FlatJob) -> None:
        super().__init__(job)
        self._flat = job
        self._iterating = Once()
        self._item: Any = None
        self._iterator: Iterator[Any] | None = None
        self._context = contextvars.Context()
        self._spent = 0.0

    def work(self, *, block: bool) -> float | None:
        """Produce one element of the head; or start it, or let it pause."""
        job = self._flat
        chunk = self.slot.chunk
        if chunk is None:
            self._left = None
            chunk = job.claim()
            if chunk is None:  # a live source, or the limit
                return self._left
            job.begun(self.slot, chunk)
        lane: Lane = chunk.out[0]
        if lane.phase is Phase.PAUSING:
            left = lane.due - job.clock()
            if left > 0 or (left := job.again_in()) > 0:
                return left
            lane.reopen()
        if lane.phase is Phase.OPEN:
            if not self._iterating.take():
                return 0.0  # `stop` is just closing it
            try:
                if self._iterator is None:
                    self._item = next(chunk.todo, NOTHING)
                    self._context = job.context.copy()
                    self._spent = 0.0
                if self._item is not NOTHING:
                    self._context.run(self._advance, chunk, lane)
            finally:
                self._iterating.give_back()
            if job.stopped:
                self.stop()
        if lane.phase is Phase.ENDED:
            job.ended(self.slot, chunk)
        return 0.0

    def _advance(self, chunk: Chunk, lane: Lane) -> None:
        job, item, clock = self._flat, self._item, self._flat.clock
        begun = clock()
        try:
            if self._iterator is None:
                self._iterator = elements_of(job.fn(item))
            try:
                element = next(self._iterator)
            except StopIteration:
                self._iterator = self._item = None
                lane.finish()
                return
            lane.made += 1
            lane.append(element)
            self._spent += clock() - begun
        except BaseException as error:  # it travels to the consumer
            self._iterator = self._item = None
            job.failed(chunk, item, error, self._spent + clock() - begun)

    def stop(self) -> None:
        """Close the iterator, unless it is running: then `work` does."""
        if not self._iterating.take():
            return
        try:
            iterator, self._iterator = self._iterator, None
            self._item = None
            if iterator is not None:
                self._context.run(close, iterator)
        finally:
            self._iterating.give_back()
