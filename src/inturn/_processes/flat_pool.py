"""``executor="process"`` for a flat map: a worker sends elements as it produces them.

The slot's thread sends the item and as many *credits* as its lane has room. It puts the elements
that it receives into the lane, and sends further credits as room appears (`flat_worker` is the
worker's side). When all credits are used and the lane is full, it waits for room. ``timeout``
counts only the time in which the worker has credits.
"""

from __future__ import annotations

from typing import Any, cast

from inturn._base.clock import clock
from inturn._core.flat_job import NOTHING, FlatJob
from inturn._engine.chunk import Chunk
from inturn._engine.lanes import Lane
from inturn._model.outcome import Kind
from inturn._model.processes import WorkerDied
from inturn._transport.pickling import is_atom, noted, unpack, unpack_error

from .exchange import Exchange
from .handle import Event, Handle
from .pool import ProcessSlot
from .worker import Ask

__all__ = ["FlatProcessSlot"]


class FlatProcessSlot(ProcessSlot):
    """Runs each item of its slot from the first element to the last."""

    sends_ahead = False

    def run(self, chunk: Chunk) -> bool:
        pool, job = self.pool, cast("FlatJob", self.pool.job)
        lane: Lane = chunk.out[0]
        while job.cleared(lane):
            item = next(chunk.todo, NOTHING)
            if item is NOTHING:  # drained: the item never starts, or is not continued
                break
            available = self.ready()
            worker = self._usable()
            if worker is None:
                error = pool.fatal_error
                if error is None and not available:
                    # Another slot cannot take over: all of them may wait for this item.
                    error = RuntimeError("no further worker process can be had")
                if error is not None:
                    job.failed(chunk, item, error, 0.0, Kind.FATAL)
                break  # without an error: the run is over
            worker.tasks += 1
            stream = _Stream(job, chunk, lane, item, worker, self._user_code)
            del item
            stream.run()
            if worker.used and not worker.ended:
                pool.early_deaths = 0
        return True


class _Stream(Exchange):
    """Sends one item to a worker process, and receives its elements."""

    _job: FlatJob
    _takes_longer = "the item took longer than timeout={:g} s to produce"

    def __init__(self, job: FlatJob, chunk: Chunk, lane: Lane, item: Any, worker: Handle, user_code: Any) -> None:
        super().__init__(job, chunk, worker, user_code)
        self._lane = lane
        self._item = item
        self._granted = lane.size
        self._received = 0

    def run(self) -> None:
        job, chunk, worker, item = self._job, self._chunk, self._worker, self._item
        with self._user_code:
            worker.down.clear()
            load = item if is_atom(item) else self._pack(0, item)
        del item
        if self._bad:
            with self._user_code:
                job.failed(chunk, self._item, self._bad.pop(0), 0.0)
            return
        if not self._may_begin():
            return
        done = self._send(Ask.STREAM, (load, self._granted))
        del load
        while not done:
            done = self._react(worker.wait(self._due_at))

    def _react(self, said: Any) -> bool:
        if super()._react(said):
            return True
        # The run is over: the worker is to close its iterator, and may be waiting for credits.
        return said is Event.OVER and self._send(Ask.CREDIT, (None, self._received))

    def _died(self, late: TimeoutError | None = None) -> None:
        """Guarantee 24: the death of the process costs this item, if it was begun."""
        job, chunk, worker = self._job, self._chunk, self._worker
        if worker.up.numbers[0] < 0 and not self._received and late is None:  # not begun: the item runs again
            chunk.todo = iter((self._item,))
            return
        worker.used = True
        if not job.stopped and chunk.index <= job.window.last_index:
            error = self._bad.pop(0, late or WorkerDied.of(chunk.index, worker.exitcode))
            with self._user_code:
                job.failed(chunk, self._item, error, clock() - self._begun, Kind.FAILED)

    def _take(self, message: tuple[list[Any], bool, tuple[bool, Any, float] | None]) -> bool:
        """Receive elements; see `Streams._post`. If memory is `stowed`, the worker waits for credits to clear it."""
        batch, stowed, end = message
        job, chunk, lane = self._job, self._chunk, self._lane
        self._worker.used = True
        self._received += len(batch)
        if not self._bad:
            self._append(batch)
        batch.clear()
        if end is None:
            return self._worker.grace_until is None and self._grant(stowed=stowed)
        complete, packed, seconds = end
        with self._user_code:
            if packed is not None and not self._bad:
                self._bad[0] = unpack_error(packed)
            if self._bad:
                job.failed(chunk, self._item, self._bad.pop(0), seconds)  # no frame keeps it: its own lead here
            elif complete:
                lane.finish()
                job.rouse(lane.index)
        return True

    def _append(self, batch: list[Any]) -> None:
        lane, worker = self._lane, self._worker
        for outcome in batch:
            if type(outcome) is tuple:
                try:
                    with self._user_code:
                        outcome = unpack(outcome, worker.up)
                except BaseException as error:  # some elements can be pickled but not unpickled
                    self._bad[0] = noted(error, "an element could not be unpickled")
                    worker.recall(self._serial)
                    break
            lane.made += 1
            lane.append(outcome)
            del outcome
        self._job.rouse(lane.index)

    def _grant(self, *, stowed: bool) -> bool:
        """Send as many credits as the lane has room; with no credit left, wait for room first."""
        job, lane = self._job, self._lane
        if self._bad:
            return self._send(Ask.CREDIT, (None, self._received))
        if self._granted == self._received and lane.full():
            mark = clock()
            if not job.rest(lane):
                return False  # the run is over: the stop event of the pool is set, too
            rested = clock() - mark
            self._begun += rested  # the time without credits does not count
            if self._due_at is not None:
                self._due_at += rested
        unused = self._granted - self._received
        room = lane.size - len(lane.buffer) - unused
        if stowed or (room and unused <= lane.size // 2):
            self._granted += room
            return self._send(Ask.CREDIT, (room, self._received))
        return False
