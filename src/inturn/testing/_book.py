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
from ._timeline import Event, timeline

__all__ = ["Book", "Order", "rule_of"]

Order = Callable[[list[int]], int]


def rule_of(order: list[int] | Order | None, dice: random.Random | None) -> Order:
    """How one run chooses, of the items that can take a step, the one that does; they are in ascending order."""
    if callable(order):

        def ask(indices: list[int]) -> int:
            chosen = order(list(indices))
            if chosen not in indices:
                raise ValueError(f"order chose {chosen!r}, which is not among the items under way: {indices}")
            return chosen

        return ask
    if dice is not None:
        return dice.choice
    positions: dict[int, deque[int]] = {}  # where the list names an item, and has not been used for it
    for position, index in enumerate(order or ()):
        positions.setdefault(index, deque()).append(position)

    def follow(indices: list[int]) -> int:
        named = [(positions[index][0], index) for index in indices if positions.get(index)]
        if not named:
            return indices[0]
        index = min(named)[1]
        positions[index].popleft()
        return index

    return follow


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

    def begin_run(self) -> tuple[int, Order]:
        """The number of a run that begins, and its rule."""
        self._runs += 1
        return self._runs - 1, rule_of(self._order, self._dice)

    def fault_of(self, index: int, attempt: int) -> Fault | None:
        """What goes wrong with this attempt."""
        return next((fault for fault in self._faults if fault.meets(index, attempt)), None)

    def timeline(self) -> str:
        return timeline(self.title, self.events)
