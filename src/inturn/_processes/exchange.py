"""What is under way with one worker process: a chunk, whose items are sent and outcomes received.

All of it happens in the slot's thread, but for `Away`: while the worker has the items, it is the
chunk's ``todo``. Code that takes from it (`Job.stop`, or a failure that ends the run) thereby
recalls the items from the worker, at once and from any thread.

What the parent waits for, besides messages, is a time: `Exchange._due_at` is the end of the item's
time limit if there is a ``timeout``, else the end of the chunk's time slice.

======== =============================== ===========================================================
exchange condition                       left by
======== =============================== ===========================================================
working  the worker's ``grace_until`` is the last message; the death of the process; the time limit,
         None                            which kills it, and the item fails; the end of the run
expired  besides, ``chunk.expired``:     the same
         unstarted items are recalled
ending   ``grace_until`` is set          the last message; the death of the process, which is killed
                                         at ``grace_until``
======== =============================== ===========================================================

When the process dies, shared memory tells which item was begun last: *i* (see `worker`). The parent
has received *r* outcomes. So the items from *r* up to *i* had finished, but were not reported: they
run again, in the same order. If *i* is not before *r*, it fails: with `WorkerDied`, or with
`TimeoutError` if the process was killed. Later items had not begun: they go back to the window. The
worker reports once per time slice, so only items shorter than that can run again, and none with
chunks of one or with a ``timeout``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, NoReturn

from inturn._base.atomic import fence
from inturn._base.clock import clock
from inturn._core.job import Job
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind
from inturn._model.processes import WorkerDied
from inturn._pools.threads import ThreadSlot
from inturn._transport.pickling import ATOMS, LARGE, is_atom, noted, pack, unpack, unpack_error

from .handle import Event, Handle
from .worker import SLICE_S, Ask

__all__ = ["ChunkExchange", "Exchange"]

_SIZED: Final = frozenset({str, bytes})


class Away:
    """Stands for the items that are in a worker: taking from it recalls them, and yields none."""

    __slots__ = ("_recall", "_serial")

    def __init__(self, recall: Callable[[int], None], serial: int) -> None:
        self._recall = recall
        self._serial = serial

    def __iter__(self) -> Away:
        return self

    def __next__(self) -> NoReturn:
        self._recall(self._serial)
        raise StopIteration


class Exchange(ABC):
    """What is under way between a slot and its worker: a chunk, or an item of a flat map."""

    _takes_longer = "the call took longer than timeout={:g} s"

    def __init__(self, job: Job, chunk: Chunk, worker: Handle, user_code: Any) -> None:
        self._job = job
        self._chunk = chunk
        self._worker = worker
        self._user_code = user_code
        self._serial = next(worker.serials)
        self._bad: dict[int, BaseException] = {}  # why an item could not be pickled, by position
        self._begun = 0.0
        self._due_at: float | None = None

    def _pack(self, position: int, item: Any) -> tuple[Any, ...]:
        try:
            return pack(item, self._worker.down, self._worker.main)
        except BaseException as error:  # it costs this item only
            noted(error, "the item could not be pickled for a worker process")
            self._bad[position] = error
            return ()

    def _may_begin(self) -> bool:
        """Put an `Away` into the place of the items; False if the run has ended before them."""
        job, chunk, worker = self._job, self._chunk, self._worker
        worker.up.numbers[0] = -1
        chunk.todo = Away(worker.recall, self._serial)
        self._begun = clock()
        if job.timeout is not None:
            self._due_at = self._begun + job.timeout
        fence()
        return not (job.stopped or chunk.index > job.window.last_index)  # read after `todo` is set: see `Job.stop`

    def _send(self, how: int, what: Any) -> bool:
        """Send a message; True if no more are to come."""
        limit = None if self._job.timeout is None else self._due_at  # a time slice ends no sending
        said = self._worker.send((self._serial, how, what), limit)
        # The next `wait` tells of a death, after the messages that came before it.
        return said is not None and said is not Event.DIED and self._react(said)

    def _react(self, said: Any) -> bool:
        """React to a message or an event; True if no more are to come."""
        worker, timeout = self._worker, self._job.timeout
        if not isinstance(said, Event):
            return len(said) > 2 and self._take(said)  # else it is an answer: see `Handle.unanswered`
        if said is Event.DIED:
            self._died()
            return True
        if said is Event.LATE and worker.grace_until is not None:
            worker.kill()
            return True
        if said is Event.LATE and timeout is not None:
            self._kill(timeout)
            return True
        if said is Event.OVER:
            worker.begin_grace()
        else:
            self._chunk.expired = True
        self._due_at = None
        worker.recall(self._serial)
        return False

    def _kill(self, timeout: float) -> None:
        """Guarantee 17: kill the process; the item that it was running fails."""
        self._worker.kill()
        while not isinstance(message := self._worker.wait(), Event):
            if self._react(message):
                return
        self._died(TimeoutError(f"{self._takes_longer.format(timeout)}; its process was killed"))

    @abstractmethod
    def _take(self, message: Any) -> bool:
        """Receive a message; True if it was the last one."""

    @abstractmethod
    def _died(self, late: TimeoutError | None = None) -> None:
        """The process has ended; it was killed if an item took too long."""


class ChunkExchange(Exchange):
    """Guarantee 24: sends a chunk to a worker; if that dies, `_died` settles which item that costs."""

    def __init__(self, slot: ThreadSlot, chunk: Chunk, items: list[Any], worker: Handle, user_code: Any) -> None:
        super().__init__(slot.pool.job, chunk, worker, user_code)
        self._slot = slot
        self.items = items  # without those that were handed back
        self._taken = 0  # outcomes received
        if self._job.trace is not None:
            self._job.trace.away(chunk)

    def run(self) -> None:
        with self._user_code:
            load = self._load()
        if not self._may_begin():
            return
        how = Ask.EACH
        if self._job.timeout is None:
            how = Ask.PACED if len(load) > 1 else Ask.ALONE
            if self._slot.pool.slices and len(load) > 1:
                self._due_at = self._begun + SLICE_S
        done = self._send(how, load)
        del load
        while not done:
            done = self._react(self._worker.wait(self._due_at))

    def give_back(self, position: int) -> None:
        """Give the items from this position on back to the window."""
        remainder = self.items[position:]
        if remainder:
            del self.items[position:]
            with self._slot.pool.lock:
                self._job.window.give_back(self._chunk, remainder)
            self._slot.pool.notify(self._job.window.available())

    def _load(self) -> list[Any]:
        """The items in the form of a message: atoms as they are, everything else packed."""
        items = self.items
        self._worker.down.clear()
        if len(items) > 1:
            kinds = set(map(type, items))
            if kinds <= ATOMS and (
                max(map(len, items)) < LARGE
                if kinds <= _SIZED
                else kinds.isdisjoint(_SIZED) or all(map(is_atom, items))
            ):
                return items
        return [item if is_atom(item) else self._pack(position, item) for position, item in enumerate(items)]

    def _take(self, message: tuple[list[Any], bool, bool, int, float]) -> bool:
        """Receive a report: new outcomes, whether all are atoms, …, how many items are handed back."""
        batch, plain, done, remainder, seconds = message
        job, chunk = self._job, self._chunk
        if job.trace is not None:
            job.trace.reported(chunk, self._taken + len(batch), seconds)
        if batch:
            self._worker.used = True
        if plain:
            chunk.out.extend(batch)
            self._taken += len(batch)
        else:
            for outcome in batch:
                if chunk.index + len(chunk.out) > job.window.last_index:
                    break  # nothing behind the last index is delivered
                self._outcome(outcome)
        if chunk.expired and not done:
            job.window.measured(seconds, len(chunk.out) + 1)
        if remainder:
            self.give_back(len(self.items) - remainder)
        if done:
            # Sending and receiving do not count as work, else chunks would stay small.
            self._slot.since = clock() - seconds
            return True
        for position in range(self._taken - len(batch), self._taken):
            self.items[position] = None  # guarantee 12: it may be delivered from now on
        if batch and job.sleeping:
            job.notify()
        if job.timeout is not None:
            self._due_at = clock() + job.timeout
        return False

    def _outcome(self, outcome: Any) -> None:
        job, chunk, position = self._job, self._chunk, self._taken
        self._taken += 1
        if type(outcome) is not tuple:
            chunk.out.append(outcome)
            return
        elapsed = 0.0
        with self._user_code:
            if len(outcome) == 3:
                packed, elapsed, _ = outcome
                error = self._bad.pop(position) if position in self._bad else unpack_error(packed)
            else:
                try:
                    chunk.out.append(unpack(outcome, self._worker.up))
                    return
                except BaseException as caught:  # some results can be pickled but not unpickled
                    error = noted(caught, "the result could not be unpickled")
            job.failed(chunk, self.items[position], error, elapsed)
        del error  # the frames of its traceback may keep this one

    def _died(self, late: TimeoutError | None = None) -> None:
        """Settle what becomes of each item: see above."""
        job, chunk, items, worker = self._job, self._chunk, self.items, self._worker
        self._bad.clear()  # an error's frames keep this exchange
        begun = min(worker.up.numbers[0], len(items) - 1)
        if begun >= 0:
            worker.used = True
        if job.stopped or chunk.index + len(chunk.out) > job.window.last_index:
            return
        following = self._taken
        if begun >= following:
            for item in items[following:begun]:
                fresh = Chunk.again(chunk.index + len(chunk.out), item, chunk.attempt)
                chunk.plain = False
                chunk.out.append(fresh)
                job.window.again(fresh)
            error = late or WorkerDied.of(chunk.index + len(chunk.out), worker.exitcode)
            with self._user_code:
                job.failed(chunk, items[begun], error, clock() - self._begun, Kind.FAILED)
            self._slot.pool.notify(begun - following)
            following = begun + 1
        self.give_back(following)
