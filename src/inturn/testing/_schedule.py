"""`Schedule`: the executor that decides which call ends next. Its state is a `Book`; each run has a pool."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

from inturn._api.executors import MakesPools, Opener
from inturn._base import checks

from ._book import Book, Order
from ._fault import Fault
from ._flat_pool import FlatSchedulePool
from ._pool import SchedulePool
from ._timeline import Event

__all__ = ["Schedule"]

T = TypeVar("T")

_CONCURRENCY: Final = 8  # where nobody says: the same on every machine


class Schedule(MakesPools):
    """An executor for tests: it decides in which order calls end, in the thread of the test and in virtual time.

    >>> from inturn import ordered_map
    >>> from inturn.testing import Schedule
    >>> ended = []
    >>> def call(x):
    ...     ended.append(x)
    ...     return x * x
    >>> list(ordered_map(call, range(4), executor=Schedule(order=[2, 0])))
    [0, 1, 4, 9]
    >>> ended
    [2, 0, 1, 3]

    Give it as ``executor=`` to `ordered_map` and `ordered_flat_map`, or to `ordered_amap` and `ordered_aflat_map` with
    a plain ``fn``. For coroutine functions, and for a test that is a coroutine, there is `Schedule.run`.

    Up to ``concurrency`` calls are under way at once (8 if nobody says). A call that is under way is made when it is
    to end, so its effects come in the order in which calls end. Time is virtual: calls take none, and it passes only
    when no call can end. What has been under way when a run ends is made then, as threads do.

    Args:
        order: Which call ends next, of those under way. A list of item indices: an item that stands earlier in it ends
            earlier; the items that it does not name come after these, in plain order. A function: it is given the list
            of the indices under way, in ascending order, and returns one of them. None: plain order. In flat maps each
            choice is one element, so a list may name an item several times.
        seed: Choose at random instead, the same way each time.
        faults: What goes wrong: any number of `Fails`, `Dies` and `Hangs`.
    """

    def __init__(
        self, order: Iterable[int] | Order | None = None, *, seed: int | None = None, faults: Iterable[Fault] = ()
    ) -> None:
        if order is not None and seed is not None:
            raise ValueError("give either order or seed, not both")
        self.order: list[int] | Order | None = None
        if callable(order):
            self.order = order
        elif order is not None:
            self.order = [checks.count("each index in order", index, least=0) for index in order]
        self.seed: int | None = None if seed is None else checks.count("seed", seed, least=0)
        self.faults: tuple[Fault, ...] = tuple(faults)
        for fault in self.faults:
            if not isinstance(fault, Fault):
                raise TypeError(f"faults must be Fails, Dies or Hangs, got {fault!r}")
        self._book = Book(self.order, self.seed, self.faults)
        self._book.title = repr(self)

    def __repr__(self) -> str:
        arguments: list[str] = []
        if self.order is not None:
            arguments.append(f"order={getattr(self.order, '__qualname__', repr(self.order))}")
        if self.seed is not None:
            arguments.append(f"seed={self.seed}")
        if self.faults:
            arguments.append(f"faults={list(self.faults)!r}")
        return f"Schedule({', '.join(arguments)})"

    @property
    def events(self) -> list[Event]:
        """What has happened, in turn."""
        return self._book.events

    @property
    def now(self) -> float:
        """The virtual time, in seconds."""
        return self._book.now

    def timeline(self) -> str:
        """The events as a picture of text: a row for each item, a column for each event."""
        return self._book.timeline()

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end in an event loop in virtual time, as ``asyncio.run`` does; return its result.

        Runs that begin in it and whose ``fn`` is a coroutine function follow the schedule. ``asyncio.sleep`` and every
        other timer cost nothing. If nothing can happen any more, the coroutine is ended by a `RuntimeError`.

        >>> import asyncio
        >>> from inturn import ordered_amap
        >>> from inturn.testing import Schedule
        >>> async def call(x):
        ...     await asyncio.sleep(3600)
        ...     return x * x
        >>> async def main():
        ...     return [result async for result in ordered_amap(call, range(4))]
        >>> schedule = Schedule(order=[2, 0])
        >>> schedule.run(main())
        [0, 1, 4, 9]
        >>> [event.index for event in schedule.events if event.what == "ended"], schedule.now
        ([2, 0, 1, 3], 3600.0)
        """
        from ._loop import run

        return run(self._book, coro)

    def opener(self, *, flat: bool) -> Opener:
        """How the pool of a run is made; for `inturn` itself."""
        pool = FlatSchedulePool if flat else SchedulePool
        return Opener(lambda job, slices: pool(job, self._book), lambda: _CONCURRENCY, batches=False)
