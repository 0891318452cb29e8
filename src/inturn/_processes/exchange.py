"""One chunk and one worker process: send the items, receive their outcomes.

All of it happens in the slot's thread, but for `Away`: while the worker has the items,
``chunk.todo`` is an `Away`. Code that takes from it (`Job.stop`, or a failure that ends the run)
thereby recalls the items from the worker, at once and from any thread.

What the parent waits for, besides messages, is a time. `Exchange._due_at` is the end of the item's
time limit if there is a ``timeout``, else the end of the chunk's time slice:

=========== ============================ ==========================================================
exchange    condition                    left by
=========== ============================ ==========================================================
working     ``grace_until`` is None      the last report; the death of the process; ``_due_at`` with
                                         a ``timeout``: kill, the item fails; the end of the run
expired     besides, ``chunk.expired``:  as working
            unstarted items are recalled
ending      ``grace_until`` is set       the same; ``grace_until``: kill
=========== ============================ ==========================================================

When the process dies, whose fault was it? The worker counts in shared memory: position *i* is the
item that was begun last (see `worker`). The parent has received *r* outcomes. So

=============== ============================== =================================================
items           what is known                  what becomes of them
=============== ============================== =================================================
before *r*      their outcomes were received   delivered
*r* up to *i*   finished, but not reported     run again, in the same order
*i*             begun (if not before *r*)      fails: `WorkerDied`, or `TimeoutError` if killed
after *i*       not begun                      go back to the window
=============== ============================== =================================================

The worker reports at least once per time slice, so only items shorter than that can run again, and
none with chunks of one or with a ``timeout``.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, Final, NoReturn, Protocol

from inturn._base.atomic import fence
from inturn._base.clock import clock
from inturn._core.job import Job
from inturn._core.slot import Slot
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind
from inturn._model.processes import WorkerDied
from inturn._transport.pickling import ATOMS, LARGE, is_atom, noted, pack, unpack, unpack_error

from .handle import GRACE_S, Event, Handle
from .worker import ALONE, EACH, PACED, SLICE_S

__all__ = ["Away", "Exchange"]

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


class Pool(Protocol):
    """What an exchange needs to know of its pool."""

    job: Job
    slices: bool
    lock: Lock

    def notify(self, chunks: int) -> None: ...


class Exchange:
    """Sends the items of a chunk to a worker process, and receives their outcomes.

    Guarantee 24: a worker that dies costs one item; `_died` settles which.
    """

    def __init__(self, pool: Pool, slot: Slot, chunk: Chunk, items: list[Any], worker: Handle, user_code: Any) -> None:
        self._pool = pool
        self._job = pool.job
        self._slot = slot
        self._chunk = chunk
        self._items = items
        self._worker = worker
        self._user_code = user_code
        self._serial = worker.next_serial()
        self.size = len(items)  # without those that were handed back
        self._taken = 0  # outcomes received
        self._bad: dict[int, BaseException] = {}  # why an item could not be pickled, by position
        self._begun = 0.0
        if self._job.trace is not None:
            self._job.trace.away(chunk)
        self._due_at: float | None = None
        self.grace_until: float | None = None  # set when the run is over

    def run(self) -> None:
        job, worker, chunk = self._job, self._worker, self._chunk
        how = EACH if job.timeout is not None else PACED if self.size > 1 else ALONE
        with self._user_code:
            load = self._load()
        worker.up.numbers[0] = -1
        chunk.todo = iter(Away(worker.recall, self._serial))
        fence()
        if job.stopped or chunk.index > job.window.last_index:  # read after `todo` is set: see `Job.stop`
            return
        self._begun = clock()
        limit: float | None = None
        if job.timeout is not None:
            limit = self._due_at = self._begun + job.timeout
        elif self._pool.slices and self.size > 1:
            self._due_at = self._begun + SLICE_S
        said: Any = worker.send((self._serial, how, load), limit)
        del load
        if worker.ignores_stop and said is not Event.DIED:
            if said is Event.LATE:  # the grace period is over and a message was sent in part: kill
                worker.kill()
            said = Event.OVER
        elif said is None:
            said = worker.wait(self._until())
        while not self._react(said):
            said = worker.wait(self._until())

    def _until(self) -> float | None:
        times = [at for at in (self._due_at, self.grace_until) if at is not None]
        return min(times, default=None)

    def _react(self, said: Any) -> bool:
        """React to a message or an event; True if no more are to come."""
        worker = self._worker
        if not isinstance(said, Event):
            return self._take(*said)
        if said is Event.DIED:
            self._died(worker.exitcode)
            return True
        if said is Event.OVER:
            worker.ignore_stop()
            self.grace_until = clock() + GRACE_S
            if self._job.timeout is None:
                self._due_at = None
        elif self.grace_until is not None and clock() >= self.grace_until:
            worker.kill()
            return True
        elif self._job.timeout is not None:
            self._timed_out()
            return True
        else:
            self._due_at = None
            self._chunk.expired = True
        worker.recall(self._serial)
        return False

    # ---- sending ---------------------------------------------------------------------------------

    def _load(self) -> list[Any]:
        """The items in the form of a message: atoms as they are, everything else packed."""
        items, down = self._items, self._worker.down
        down.clear()
        if len(items) > 1:
            kinds = set(map(type, items))
            if kinds <= ATOMS and (
                max(map(len, items)) < LARGE
                if kinds <= _SIZED
                else kinds.isdisjoint(_SIZED) or all(map(is_atom, items))
            ):
                return items
        return [item if is_atom(item) else self._pack(position, item) for position, item in enumerate(items)]

    def _pack(self, position: int, item: Any) -> tuple[Any, ...]:
        try:
            return pack(item, self._worker.down, self._worker.main)
        except BaseException as error:  # it costs this item only
            noted(error, "the item could not be pickled for a worker process")
            self._bad[position] = error
            return ()

    # ---- receiving -------------------------------------------------------------------------------

    def _take(self, batch: list[Any], plain: bool, done: bool, remainder: int, seconds: float) -> bool:
        """Receive a report; True if it was the last one.

        Args:
            batch: Outcomes that were not reported before.
            plain: Whether all of them are atoms.
            done: Whether the chunk has ended.
            remainder: How many items the worker hands back.
            seconds: How long the worker has worked on the chunk.
        """
        job, chunk, worker = self._job, self._chunk, self._worker
        if job.trace is not None:
            job.trace.reported(chunk, self._taken + len(batch), seconds)
        if batch:
            worker.used = True
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
            self.size -= remainder
            self._give_back(self._items[self.size :])
        if done:
            # Sending and receiving do not count as work, else chunks would stay small.
            self._slot.since = clock() - seconds
            return True
        for position in range(self._taken - len(batch), self._taken):
            self._items[position] = None  # guarantee 12: it may be delivered from now on
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
        error: BaseException
        elapsed = 0.0
        if len(outcome) == 3:
            packed, elapsed, _ = outcome
            with self._user_code:
                error = self._bad.pop(position) if position in self._bad else unpack_error(packed)
        else:
            try:
                with self._user_code:
                    result = unpack(outcome, self._worker.up)
                chunk.out.append(result)
                return
            except BaseException as caught:  # some results can be pickled but not unpickled
                noted(caught, "the result could not be unpickled")
                error = caught
        job.failed(chunk, self._items[position], error, elapsed)

    def _give_back(self, items: list[Any]) -> None:
        pool, window = self._pool, self._job.window
        if items:
            with pool.lock:
                window.give_back(self._chunk, items)
            pool.notify(window.available())

    # ---- the end of the process ------------------------------------------------------------------

    def _died(self, exitcode: int | None, late: TimeoutError | None = None) -> None:
        """Settle what becomes of each item; see the second table above."""
        job, chunk, items, worker = self._job, self._chunk, self._items, self._worker
        begun = min(worker.up.numbers[0], self.size - 1)
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
            error = late or WorkerDied.of(chunk.index + len(chunk.out), exitcode)
            job.failed(chunk, items[begun], error, clock() - self._begun, Kind.FAILED)
            if following < begun:
                self._pool.notify(begun - following)
            following = begun + 1
        self._give_back(items[following : self.size])

    def _timed_out(self) -> None:
        """Guarantee 17: kill the process; the item that it was running fails."""
        for report in self._worker.kill_and_drain():
            if self._take(*report):
                return
        text = f"the call took longer than timeout={self._job.timeout:g} s; its process was killed"
        self._died(None, TimeoutError(text))
