"""What the runs of a schedule share: the rule by which the next step is chosen, the time, the faults and the events.

Virtual time is a number of seconds, 0 at first. Calls take no time. It moves only when no call can end, and then to the
next moment at which something happens: a call is given up (``timeout``), a pause before a retry is over, or the
``deadline`` is reached.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from ._fault import Fault
from ._timeline import timeline

__all__ = ["Book", "Event", "Order", "Script"]

Order = Callable[[list[int]], int]


class Event:
    """One thing that happened in a run.

    Attributes:
        time: When, in seconds of virtual time.
        what: ``"pulled"``, ``"started"``, ``"made"`` (one element, flat maps only), ``"ended"``, ``"failed"`` (an
            attempt), ``"given up"`` (by ``timeout``), ``"delivered"`` (a result, or one element), ``"done"`` (all of an
            item was delivered, flat maps only), ``"left out"``,
            ``"raised"`` (the error of this item ends the run), or ``"closed"`` (the run ended before the item did).
        index: The position of the item in the source, from 0.
        attempt: 1 for the first run of the item, 2 for the second, …
        run: Which of the runs that the schedule was given to: 0 for the first that began.
    """

    __slots__ = ("attempt", "index", "run", "time", "what")

    def __init__(self, time: float, what: str, index: int, attempt: int = 1, run: int = 0) -> None:
        self.time: float = time
        self.what: str = what
        self.index: int = index
        self.attempt: int = attempt
        self.run: int = run

    def _key(self) -> tuple[object, ...]:
        return self.time, self.what, self.index, self.attempt, self.run

    def __repr__(self) -> str:
        return f"Event(time={self.time:g}, what={self.what!r}, index={self.index}, attempt={self.attempt})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


class Script:
    """The rule by which one run chooses, of the items that can take a step, the one that does."""

    def __init__(self, order: list[int] | Order | None, dice: random.Random | None) -> None:
        self._rule = order if callable(order) else None
        self._dice = dice
        self._left: dict[int, deque[int]] = {}  # where the list names an item, and has not been used for it
        for position, index in enumerate(order if isinstance(order, list) else ()):
            self._left.setdefault(index, deque()).append(position)

    def choose(self, indices: list[int]) -> int:
        """One of these, which are in ascending order and not empty."""
        if self._rule is not None:
            chosen = self._rule(list(indices))
            if chosen not in indices:
                raise ValueError(f"order chose {chosen!r}, which is not among the items under way: {indices}")
            return chosen
        if self._dice is not None:
            return self._dice.choice(indices)
        named = [(self._left[index][0], index) for index in indices if self._left.get(index)]
        if not named:
            return indices[0]
        index = min(named)[1]
        self._left[index].popleft()
        return index


class Book:
    """The state of a schedule, which its runs read and write."""

    def __init__(self, order: list[int] | Order | None, seed: int | None, faults: tuple[Fault, ...]) -> None:
        self._order = order
        self._dice = None if seed is None else random.Random(seed)
        self._faults = faults
        self._runs = 0
        self.title = ""
        self.events: list[Event] = []
        self.now = 0.0
        self.in_loop = False  # whether an event loop moves the time

    def clock(self) -> float:
        """What the runs read in place of the system's clock."""
        return self.now

    def move_to(self, moment: float) -> None:
        """Let time pass until this moment."""
        self.now = max(self.now, moment)

    def begin_run(self) -> tuple[int, Script]:
        """The number of a run that begins, and its rule."""
        self._runs += 1
        return self._runs - 1, Script(self._order, self._dice)

    def fault_of(self, index: int, attempt: int) -> Fault | None:
        """What goes wrong with this attempt."""
        return next((fault for fault in self._faults if fault.meets(index, attempt)), None)

    def record(self, run: int, what: str, index: int, attempt: int = 1) -> None:
        self.events.append(Event(self.now, what, index, attempt, run))

    def timeline(self) -> str:
        return timeline(self.title, self.events)
