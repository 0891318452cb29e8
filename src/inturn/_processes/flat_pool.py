"""``executor="process"`` for a flat map: a worker sends elements as it produces them.

The slot's thread sends the item and as many *credits* as its lane has room. It puts the elements
that it receives into the lane, and sends further credits as room appears (`flat_worker` is the
worker's side). ``timeout`` counts only the time in which the worker has credits.

========= ======================================= =============================================
stream    condition                               left by
========= ======================================= =============================================
producing ``granted > received``                  elements; its end; a death; the time limit;
                                                  the end of the run
starved   ``granted == received``, lane full      room in the lane; the end of the run
ending    ``grace_until`` is set                  the last message; the end of the grace period
========= ======================================= =============================================
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from inturn._base.clock import clock
from inturn._core.flat_job import NOTHING, FlatJob
from inturn._core.job import Job
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind
from inturn._model.processes import Processes, WorkerDied
from inturn._pools.threads import ThreadSlot
from inturn._transport.pickling import is_atom, noted, pack, unpack, unpack_error

from .exchange import Away
from .handle import GRACE_S, Event, Handle
from .pool import ProcessPool, WorkerBackend
from .worker import CREDIT, STREAM

if TYPE_CHECKING:
    from inturn._engine.lanes import Lane

__all__ = ["FlatProcessPool"]


class FlatProcessPool(ProcessPool):
    """Slots with a worker process each, which produce into lanes."""

    sends_ahead = False

    def __init__(self, job: Job, settings: Processes, *, least: int) -> None:
        super().__init__(job, settings, least=least, slices=False)
        self._backend = partial(FlatBackend, self)


class FlatBackend(WorkerBackend):
    """Runs each item of its slot from the first element to the last."""

    def run(self, chunk: Chunk, slot: ThreadSlot) -> bool:
        pool, job = self._pool, cast("FlatJob", self._job)
        lane: Lane = chunk.out[0]
        while job.cleared(lane):
            item = next(chunk.todo, NOTHING)
            if item is NOTHING:  # drained: the item never starts, or is not continued
                break
            available = self.ready()
            worker = self._worker
            if worker is None:
                error = pool.fatal_error
                if error is None and not available:
                    # Another slot cannot take over: all of them may wait for this item.
                    error = RuntimeError("no further worker process can be had")
                if error is not None:
                    job.failed(chunk, item, error, 0.0, Kind.FATAL)
                break  # without an error: the run is over
            worker.tasks += 1
            assert self._user_code is not None
            stream = _Stream(job, chunk, lane, item, worker, self._user_code)
            del item
            stream.run()
            self._grace_until = stream.grace_until
            if worker.used and not worker.ended:
                pool.item_was_run()
        return True


class _Stream:
    """Sends one item to a worker process, and receives its elements."""

    def __init__(self, job: FlatJob, chunk: Chunk, lane: Lane, item: Any, worker: Handle, user_code: Any) -> None:
        self._job = job
        self._chunk = chunk
        self._lane = lane
        self._item = item
        self._worker = worker
        self._user_code = user_code
        self._serial = worker.next_serial()
        self._granted = lane.size
        self._received = 0
        self._spent = 0.0  # seconds in which the worker had credits, until `_since`
        self._since = 0.0  # when it last got credits after it had none
        self._bad: BaseException | None = None  # an element could not be unpickled
        self.grace_until: float | None = None  # set when the run is over

    def run(self) -> None:
        job, chunk, worker = self._job, self._chunk, self._worker
        try:
            with self._user_code:
                worker.down.clear()
                load = self._item if is_atom(self._item) else pack(self._item, worker.down, worker.main)
        except BaseException as error:  # it costs this item only
            noted(error, "the item could not be pickled for a worker process")
            job.failed(chunk, self._item, error, 0.0)
            return
        worker.up.numbers[0] = -1
        chunk.todo = iter(Away(worker.recall, self._serial))
        if job.stopped or chunk.index > job.window.last_index:  # read after `todo` is set: see `Job.stop`
            return
        self._since = clock()
        self._send(STREAM, (load, self._granted))
        del load
        while not self._react(worker.wait(self._until())):
            pass

    def _until(self) -> float | None:
        if self.grace_until is not None:
            return self.grace_until
        timeout = self._job.timeout
        return None if timeout is None else self._since + timeout - self._spent

    def _send(self, how: int, what: tuple[Any, Any]) -> None:
        """Send a message; if it cannot be sent, the next `Handle.wait` returns why."""
        said = self._worker.send((self._serial, how, what), self._until())
        if self._worker.ignores_stop and self.grace_until is None:
            if said is Event.LATE:  # the grace period is over and a message was sent in part: kill
                self._worker.kill()
            self._over()

    def _react(self, said: Any) -> bool:
        """React to a message or an event; True if no more are to come."""
        if not isinstance(said, Event):
            return self._take(*said)
        if said is Event.OVER:
            self._worker.ignore_stop()
            self._over()
            return False
        if said is Event.DIED:
            self._died()
        elif self.grace_until is None:
            self._timed_out()
        else:
            self._worker.kill()
        return True

    def _over(self) -> None:
        """The run is over: the worker has the grace period to close its iterator."""
        self.grace_until = clock() + GRACE_S
        self._worker.recall(self._serial)
        self._send(CREDIT, (None, self._received))

    def _died(self) -> None:
        """Guarantee 24: the death of the process costs this item, if it was begun."""
        worker = self._worker
        if worker.up.numbers[0] < 0 and not self._received:  # not begun: the item runs again
            self._chunk.todo = iter((self._item,))
            return
        self._fail(WorkerDied.of(self._chunk.index, worker.exitcode))

    def _timed_out(self) -> None:
        """Guarantee 17: kill the process; the item fails with `TimeoutError`."""
        for message in self._worker.kill_and_drain():
            if self._take(*message):
                return
        timeout = self._job.timeout
        self._fail(TimeoutError(f"the item took longer than timeout={timeout:g} s to produce; its process was killed"))

    def _fail(self, error: BaseException) -> None:
        job, chunk = self._job, self._chunk
        self._worker.used = True
        if not job.stopped and chunk.index <= job.window.last_index:
            job.failed(chunk, self._item, self._bad or error, self._spent + clock() - self._since, Kind.FAILED)

    def _take(
        self,
        batch: list[Any],
        stowed: bool,
        last: bool,
        complete: bool,
        packed: Any,
        seconds: float,
    ) -> bool:
        """Receive elements; True if this was the last message.

        Args:
            batch: Elements.
            stowed: Whether the worker's shared memory is in use: it waits for credits to clear it.
            last: Whether the item has ended.
            complete: Whether its iterator came to its end.
            packed: The error that ended it, or None.
            seconds: How long the item has produced.
        """
        job, chunk, lane, worker = self._job, self._chunk, self._lane, self._worker
        worker.used = True
        self._received += len(batch)
        if self._bad is None:
            self._append(batch)
        batch.clear()
        if not last:
            if self.grace_until is None:
                self._grant(stowed=stowed)
            return False
        error = self._bad
        if packed is not None and error is None:
            with self._user_code:
                error = unpack_error(packed)
        if error is not None:
            job.failed(chunk, self._item, error, seconds)
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
                    noted(error, "an element could not be unpickled")
                    self._bad = error
                    worker.recall(self._serial)
                    break
            lane.made += 1
            lane.append(outcome)
            del outcome
        self._job.rouse(lane.index)

    def _grant(self, *, stowed: bool) -> None:
        """Send as many credits as the lane has room; with no credit left, wait for room first."""
        job, lane = self._job, self._lane
        if self._granted == self._received and lane.full() and self._bad is None:
            self._spent += clock() - self._since
            if not job.rest(lane):
                return  # the run is over: the stop event of the pool is set, too
            self._since = clock()
        unused = self._granted - self._received
        room = lane.size - len(lane.buffer) - unused
        if self._bad is not None:
            self._send(CREDIT, (None, self._received))
        elif stowed or (room and unused <= lane.size // 2):
            self._granted += room
            self._send(CREDIT, (room, self._received))
