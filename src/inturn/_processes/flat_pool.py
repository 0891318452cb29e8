"""``executor="process"`` for a flat map: elements come back over their worker's own link, as they are produced.

The slot's thread sends the item with as many *credits* as its lane has room, puts what comes into the lane, and sends
further credits as room appears (see `flat_worker` for the other end). ``timeout`` counts the time in which the worker
has credits.

=========== ======================================= ===========================================================
stream      how it is told                          left by
=========== ======================================= ===========================================================
producing   ``granted > received``                  elements; the end; the death of the process; time; the run's end
starved     ``granted == received``, the lane full  the consumer, who takes elements; the end of the run
ending      ``grace_until`` is set                  the worker's last message; 0.5 s
=========== ======================================= ===========================================================
"""

from __future__ import annotations

from functools import partial
from time import perf_counter as clock
from typing import TYPE_CHECKING, Any, cast

from inturn._core.flat_job import NOTHING, FlatJob
from inturn._core.job import Job
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind
from inturn._model.processes import Processes, WorkerDied
from inturn._pools.threads import ThreadSlot
from inturn._transport.pickling import Main, is_atom, noted, pack, unpack, unpack_error

from .exchange import Away
from .handle import GRACE_S, Event, Handle
from .pool import ProcessPool, WorkerBackend
from .worker import CREDIT, STREAM

if TYPE_CHECKING:
    from inturn._engine.lanes import Lane

__all__ = ["FlatProcessPool"]


class FlatProcessPool(ProcessPool):
    """Places with a process each, which produce into lanes."""

    def __init__(self, job: Job, settings: Processes) -> None:
        super().__init__(job, settings, slices=False)
        self._backend = partial(FlatBackend, self)


class FlatBackend(WorkerBackend):
    """One worker process after another, for one slot, each item from its first element to its end."""

    def run(self, chunk: Chunk, slot: ThreadSlot) -> bool:
        pool, job = self._pool, cast("FlatJob", self._job)
        lane: Lane = chunk.out[0]
        while job.cleared(lane):
            item = next(chunk.todo, NOTHING)
            if item is NOTHING:  # drained: it never starts, or goes no further
                break
            there = self.ready()
            worker = self._worker
            if worker is None:
                error = pool.fatal_error
                if (
                    error is None and not there
                ):  # another slot would have to take over, and all may be waiting for this one
                    error = RuntimeError("no further worker process can be had")
                if error is not None:
                    job.failed(chunk, item, error, 0.0, Kind.FATAL)
                break  # else the run is over
            worker.tasks += 1
            assert self._awake is not None
            stream = _Stream(job, chunk, lane, item, worker, self._awake, pool.main)
            del item
            stream.flow()
            self._grace_until = stream.grace_until
            if worker.used and not worker.ended:
                pool.thrives()
        return True


class _Stream:
    """Carries one item to a worker that is up, and its elements back."""

    def __init__(
        self, job: FlatJob, chunk: Chunk, lane: Lane, item: Any, worker: Handle, awake: Any, main: Main
    ) -> None:
        self._job = job
        self._chunk = chunk
        self._lane = lane
        self._item = item
        self._worker = worker
        self._awake = awake
        self._main = main
        self._serial = worker.next_serial()
        self._granted = lane.size
        self._received = 0
        self._spent = 0.0  # seconds in which it had credits, up to
        self._since = 0.0  # when it was given some after it had none
        self._bad: BaseException | None = None  # an element could not be unpickled
        self.grace_until: float | None = None

    def flow(self) -> None:
        job, chunk, worker = self._job, self._chunk, self._worker
        try:
            with self._awake:
                worker.down.clear()
                load = self._item if is_atom(self._item) else pack(self._item, worker.down, self._main)
        except BaseException as error:  # it costs this item only
            noted(error, "the item could not be pickled for a worker process")
            job.failed(chunk, self._item, error, 0.0)
            return
        worker.up.numbers[0] = -1
        chunk.todo = iter(Away(worker.recall, self._serial))
        if job.stopped or chunk.index > job.window.last_index:  # asked after `todo` is set: see `Job.stop`
            return
        self._since = clock()
        self._tell(STREAM, (load, self._granted))
        del load
        while not self._heard(worker.wait(self._until())):
            pass

    def _until(self) -> float | None:
        if self.grace_until is not None:
            return self.grace_until
        timeout = self._job.timeout
        return None if timeout is None else self._since + timeout - self._spent

    def _tell(self, how: int, what: tuple[Any, Any]) -> None:
        """Send a message; if it cannot be sent, `Handle.wait` will say why."""
        said = self._worker.send((self._serial, how, what), self._until())
        if self._worker.ignores_stop and self.grace_until is None:
            if said is Event.LATE:  # it had its grace, and has half a message
                self._worker.kill()
            self._over()

    def _heard(self, said: Any) -> bool:
        """Whether that was the last there is to hear."""
        job, chunk, worker = self._job, self._chunk, self._worker
        if not isinstance(said, Event):
            return self._take(*said)
        if said is Event.OVER:
            worker.ignore_stop()
            self._over()
            return False
        if said is Event.LATE and self.grace_until is None:
            worker.kill()
            said = worker.wait()
            while not isinstance(said, Event):  # what it said just before
                if self._take(*said):
                    return True
                said = worker.wait()
            error: BaseException = TimeoutError(
                f"the item took longer than timeout={job.timeout:g} s to produce; its process was killed"
            )
            worker.used = True
        elif said is Event.LATE:
            worker.kill()
            return True
        else:
            if worker.up.numbers[0] < 0 and not self._received:  # it has not begun: nobody is to blame
                chunk.todo = iter((self._item,))
                return True
            worker.used = True
            error = WorkerDied.of(chunk.index, worker.exitcode)
        if not job.stopped and chunk.index <= job.window.last_index:
            job.failed(chunk, self._item, self._bad or error, self._spent + clock() - self._since, Kind.FAILED)
        return True

    def _over(self) -> None:
        """The run is over: the worker is to close its iterator, and has half a second for that."""
        self.grace_until = clock() + GRACE_S
        self._worker.recall(self._serial)
        self._tell(CREDIT, (None, self._received))

    def _take(
        self,
        serial: int,
        batch: list[Any],
        stowed: bool,
        last: bool,
        complete: bool,
        packed: Any,
        seconds: float,
    ) -> bool:
        """Elements have come; with the last message also what became of the item."""
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
            with self._awake:
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
                    with self._awake:
                        outcome = unpack(outcome, worker.up)
                except BaseException as error:  # an element that pickles and does not unpickle
                    noted(error, "an element could not be unpickled")
                    self._bad = error
                    worker.recall(self._serial)
                    break
            lane.made += 1
            lane.append(outcome)
            del outcome
        self._job.rouse(lane.index)

    def _grant(self, *, stowed: bool) -> None:
        """Give the worker leave to produce as much as there is room for; wait for room when it has no leave left."""
        job, lane = self._job, self._lane
        if self._granted == self._received and lane.full() and self._bad is None:
            self._spent += clock() - self._since
            if not job.rest(lane):
                return  # the stop event of the pool is set, too
            self._since = clock()
        unused = self._granted - self._received
        room = lane.size - len(lane.buffer) - unused
        if self._bad is not None:
            self._tell(CREDIT, (None, self._received))
        elif stowed or (room and unused <= lane.size // 2):
            self._granted += room
            self._tell(CREDIT, (room, self._received))
