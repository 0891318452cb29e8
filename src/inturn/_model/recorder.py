"""`trace=True`: when each item was pulled, started, finished and delivered, and by which worker.

A `Recorder` is told by whoever pulls, by the workers, one at a time for each chunk, and by the consumer. It keeps
numbers only: no item, no result, no error (guarantee 12). Each collection is added to in one atomic step, so no lock is
needed. A `Trace` is what the user asks for it, at any time.

Batches stay as they are. Where the calls of a chunk run in this process, `Timed` stands in the place of the chunk's
items and notes when each is taken. From another process come reports, one per chunk or per time slice of 8.5 ms at
least: the time between two of them is divided equally among the items that they report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final, Literal, NamedTuple, TypeVar

from inturn._base.atomic import Once, remainder_of

__all__ = ["MOST", "Recorder", "Timed", "TraceItem", "Wait"]

MOST: Final = 100_000
"""So many items, and waits of the consumer, are kept: those at the end of the run."""

_SPARE: Final = 1.1  # so many times that there are before the oldest are removed, which takes a while

E = TypeVar("E")
Outcome = Literal["done", "failed", "cancelled"]


class Wait(NamedTuple):
    """The consumer waited, for the oldest item or for the source."""

    begun: float
    ended: float
    item: int | None  # the index of the item; None for the source


class TraceItem(NamedTuple):
    """One attempt at an item; times are in seconds since the first ``next``.

    Attributes:
        index: The position of the item in the source.
        attempt: 1 at first; each attempt of a `retry` is an entry of its own.
        worker: The number of the worker, from 1, in the order of their first calls; None if it is not known (calls
            that an executor of yours has sent to another process).
        pulled: When the item was read from the source; None if that is too long ago (only the end of a long run is
            kept).
        started: When the call began.
        finished: When the call ended.
        delivered: When ``next`` returned the result (the last element, for a flat map); None if it has not, and for
            attempts that failed and were made again.
        outcome: ``"done"``, ``"failed"``, or ``"cancelled"`` (its outcome was not wanted any more).
    """

    index: int  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]  # not that of tuples
    attempt: int
    worker: int | None
    pulled: float | None
    started: float
    finished: float
    delivered: float | None
    outcome: Outcome


class Latest(list[E]):
    """The last `MOST` entries. Threads add while others read: without the GIL a deque could not be copied then."""

    __slots__ = ("_trims",)

    def __init__(self) -> None:
        super().__init__()
        self._trims = Once()

    def note(self, entry: E) -> None:
        self.append(entry)
        if len(self) > MOST * _SPARE and self._trims.take():
            del self[:-MOST]
            self._trims.give_back()

    def latest(self) -> list[E]:
        return self[-MOST:]


class Timed:
    """A chunk that runs. It stands in the place of the chunk's items, and notes when each is taken."""

    __slots__ = ("_clock", "_inner", "_note", "_take", "attempt", "failed", "index", "reports", "starts", "worker")

    def __init__(self, chunk: Any, worker: int | None, clock: Callable[[], float]) -> None:
        self.index: int = chunk.index
        self.attempt: int = chunk.attempt
        self.worker = worker
        self.starts: list[float] = []  # one for each item that was taken
        self.reports: list[tuple[int, float]] | None = None  # elsewhere: so many outcomes after so many seconds
        self.failed: dict[int, float] = {}  # positions, and when
        self._inner: Iterator[Any] = chunk.todo
        self._take = chunk.todo.__next__
        self._note = self.starts.append
        self._clock = clock

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        item = self._take()
        self._note(self._clock())
        return item

    def rest(self) -> list[Any]:
        """What has not been taken, for `remainder_of`: it never begins."""
        return remainder_of(self._inner)


class Recorder:
    """What is noted while a run goes on."""

    def __init__(self) -> None:
        self.zero: float = 0.0  # the first ``next``
        self.calls: Latest[TraceItem] = Latest()  # by the run's clock, without what `Trace` adds to them
        self.pulls: Latest[tuple[int, int, float]] = Latest()  # the first index, how many, when
        self.deliveries: Latest[tuple[int, float]] = Latest()  # the index, when
        self.waits: Latest[tuple[float, float, int | None]] = Latest()  # as a `Wait`
        self._open: dict[int, Timed] = {}  # by the identity of the chunk, which holds results
        self._pulled = 0
        self._numbers = count(1)
        self._workers: dict[int, int] = {}

    def pulled(self, number: int, now: float) -> None:
        self.pulls.note((self._pulled, number, now))
        self._pulled += number

    def adding(self, add: Callable[[Any], int], clock: Callable[[], float]) -> Callable[[Any], int]:
        """`Window.add`, noted."""

        def added(item: Any) -> int:
            self.pulled(1, clock())  # first: once it is in the window, it may begin
            return add(item)

        return added

    def begun(self, chunk: Any, worker: int, clock: Callable[[], float]) -> None:
        """A worker, which is known by this key (0: by none), begins a chunk."""
        number = None
        if worker:
            number = self._workers.get(worker) or self._workers.setdefault(worker, next(self._numbers))
        self._open[id(chunk)] = chunk.todo = Timed(chunk, number, clock)

    def away(self, chunk: Any) -> None:
        """The items of the chunk were sent to another process."""
        entry = self._open.get(id(chunk))
        if entry is not None:
            entry.reports = []

    def reported(self, chunk: Any, number: int, seconds: float) -> None:
        """So many outcomes of the chunk are there, so many seconds after it was begun in another process."""
        entry = self._open.get(id(chunk))
        if entry is not None and entry.reports is not None:
            entry.reports.append((number, seconds))

    def failed(self, chunk: Any, position: int, now: float) -> None:
        """An attempt at this item of the chunk has failed; the next attempt may begin before the chunk has ended."""
        entry = self._open.get(id(chunk))
        if entry is not None:
            entry.failed[position] = now

    def ended(self, chunk: Any, since: float, now: float) -> None:
        """The chunk, which was begun at `since`, has all its outcomes, or will get none."""
        entry = self._open.pop(id(chunk), None)
        if entry is None:
            return
        outcomes = len(chunk.out)
        starts = entry.starts if entry.reports is None else _shared_out(entry.reports, outcomes, since, now)
        for position, (started, finished) in enumerate(zip(starts, [*starts[1:], now], strict=False)):
            outcome: Outcome = "done" if position < outcomes else "cancelled"
            if position in entry.failed:
                outcome = "failed"
                finished = min(finished, entry.failed[position])
            index = entry.index + position
            self.calls.note(TraceItem(index, entry.attempt, entry.worker, None, started, finished, None, outcome))


def _shared_out(reports: list[tuple[int, float]], outcomes: int, since: float, now: float) -> list[float]:
    """When each item began: the time between two reports belongs to the items in between, in equal parts."""
    starts: list[float] = []
    before = since
    for number, seconds in [*reports, (outcomes, now - since)]:
        fresh = min(number, outcomes) - len(starts)
        until = max(before, min(since + seconds, now))
        if fresh > 0:
            starts += [before + (until - before) * part / fresh for part in range(fresh)]
            before = until
    return starts
