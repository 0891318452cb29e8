"""One chunk on its way through a worker process: from packing its items to its last outcome.

All of it happens in the slot's thread. ``chunk.todo`` is an `Away` meanwhile, so that draining the chunk (by a
failure that ends the run, `Job.stop`) reaches the worker, at once and from any thread.

With the counter of the worker's memory at item *i* and *r* outcomes reported, a death is settled like this:

=============== ================================ =========================================================
items           how it is told                   what becomes of them
=============== ================================ =========================================================
before *r*      their outcomes are here          delivered
*r* up to *i*   finished, or being taken         run again, each in its place
*i*             begun, if *i* is not before *r*  fails with `WorkerDied` (`TimeoutError`, if it was killed for that)
after           not begun                        back to the window
=============== ================================ =========================================================

The worker reports so that what runs again has taken less than a time slice, and nothing does with chunks of one or a
``timeout``.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import perf_counter as clock
from typing import Any, Final, NoReturn, Protocol

from inturn._base.atomic import fence
from inturn._core.job import Job, Slot
from inturn._engine.chunk import Chunk
from inturn._engine.window import SLICE_S
from inturn._model.outcome import Kind
from inturn._model.processes import WorkerDied
from inturn._transport.pickling import ATOMS, LARGE, Main, is_atom, noted, pack, unpack, unpack_error

from .handle import GRACE_S, Event, Handle
from .worker import ALONE, EACH, PACED

__all__ = ["Away", "Exchange"]

_SIZED: Final = frozenset({str, bytes})


class Away:
    """What a chunk has to do, while its items are in a worker: taking from it recalls them."""

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
    """What a exchange needs to know of its pool."""

    job: Job
    slices: bool
    lock: Lock
    main: Main

    def notify(self, chunks: int) -> None: ...


class Exchange:
    """Carries the items of a chunk to a worker that is up, and their outcomes back.

    Guarantee 24.
    """

    def __init__(self, pool: Pool, slot: Slot, chunk: Chunk, items: list[Any], worker: Handle, awake: Any) -> None:
        self._pool = pool
        self._job = pool.job
        self._slot = slot
        self._chunk = chunk
        self._items = items
        self._worker = worker
        self._awake = awake
        self._serial = worker.next_serial()
        self.size = len(items)  # how many have not been handed back
        self._taken = 0  # outcomes that are here
        self._bad: dict[int, BaseException] = {}  # items that could not be pickled
        self._begun = 0.0
        self._slice_ends: float | None = None
        self._limit_at: float | None = None
        self.grace_until: float | None = None  # set when the run is over

    def run(self) -> None:
        job, worker, chunk = self._job, self._worker, self._chunk
        how = EACH if job.timeout is not None else PACED if self.size > 1 else ALONE
        with self._awake:
            load = self._load()
        worker.up.numbers[0] = -1
        chunk.todo = iter(Away(worker.recall, self._serial))
        fence()
        if job.stopped or chunk.index > job.window.last_index:  # asked after `todo` is set: see `Job.stop`
            return
        self._begun = clock()
        if job.timeout is not None:
            self._limit_at = self._begun + job.timeout
        elif self._pool.slices and self.size > 1:
            self._slice_ends = self._begun + SLICE_S
        said: Any = worker.send((self._serial, how, load), self._limit_at)
        del load
        if worker.ignores_stop and said is not Event.DIED:
            if said is Event.LATE:  # it had its grace, and has half a message
                worker.kill()
            said = Event.OVER
        elif said is None:
            said = worker.wait(self._until())
        while not self._heard(said):
            said = worker.wait(self._until())

    def _until(self) -> float | None:
        if self._slice_ends is None and self._limit_at is None and self.grace_until is None:
            return None
        return min(at for at in (self._slice_ends, self._limit_at, self.grace_until) if at is not None)

    def _heard(self, said: Any) -> bool:
        """Whether that was the last there is to hear."""
        worker = self._worker
        if not isinstance(said, Event):
            return self._take(*said)
        if said is Event.DIED:
            self._died(worker.exitcode)
            return True
        if said is Event.OVER:
            worker.ignore_stop()
            self.grace_until = clock() + GRACE_S
            self._slice_ends = None
            worker.recall(self._serial)
            return False
        now = clock()
        if self.grace_until is not None and now >= self.grace_until:
            worker.kill()
            return True
        if self._limit_at is not None and now >= self._limit_at:
            return self._timed_out()
        if self._slice_ends is not None and now >= self._slice_ends:
            self._slice_ends = None
            self._chunk.expired = True
            worker.recall(self._serial)
        return False

    # ---- there -----------------------------------------------------------------------------------

    def _load(self) -> list[Any]:
        """The items in a form that travels; `pickling` says which."""
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
            return pack(item, self._worker.down, self._pool.main)
        except BaseException as error:  # it costs this item only
            noted(error, "the item could not be pickled for a worker process")
            self._bad[position] = error
            return ()

    # ---- and back --------------------------------------------------------------------------------

    def _take(self, serial: int, batch: list[Any], plain: bool, done: bool, rest: int, seconds: float) -> bool:
        """Outcomes have come after so many seconds of work, and `rest` items back."""
        job, chunk, worker = self._job, self._chunk, self._worker
        if batch:
            worker.used = True
        if plain:
            chunk.out.extend(batch)
            self._taken += len(batch)
        else:
            for outcome in batch:
                if chunk.index + len(chunk.out) > job.window.last_index:
                    break  # nobody will ask for what is behind
                self._outcome(outcome)
        if self._chunk.expired and not done:
            job.window.measured(seconds, [*chunk.out, None])
        if rest:
            self.size -= rest
            self._give_back(self._items[self.size :])
        if done:
            self._slot.since = clock() - seconds  # the way there and back does not count: it would keep chunks small
            return True
        for position in range(self._taken - len(batch), self._taken):
            self._items[position] = None  # it may be delivered now, and nothing of it is kept
        if batch and job.sleeping:
            job.notify()
        if self._limit_at is not None and job.timeout is not None:
            self._limit_at = clock() + job.timeout
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
            with self._awake:
                error = self._bad.pop(position) if position in self._bad else unpack_error(packed)
        else:
            try:
                with self._awake:
                    result = unpack(outcome, self._worker.up)
                chunk.out.append(result)
                return
            except BaseException as caught:  # a result that pickles and does not unpickle
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

    def _timed_out(self) -> bool:
        job, worker = self._job, self._worker
        worker.kill()
        said = worker.wait()
        while not isinstance(said, Event):  # what it said just before
            if self._take(*said):
                return True
            said = worker.wait()
        self._died(None, TimeoutError(f"the call took longer than timeout={job.timeout:g} s; its process was killed"))
        return True
