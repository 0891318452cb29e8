"""The engine of `ordered_flat_map`: a bounded lane of elements per item, in the order of the items.

Sans-IO, like `window`, whose order and bound it keeps. A *lane* is the outcome of an item, from the
moment a worker claims the item. So the window counts items, and the head is delivered while it
fills.

========== ================================= ================================================
phase      meaning                           left by
========== ================================= ================================================
OPEN       elements come, or may come        `finish`, `fail`, `pause` (producer)
PAUSING    it runs again when it is `due`    `reopen` (producer)
UNDECIDED  it failed before its first        `pause` or `leave` (consumer: its policy's answer)
           element, and may yet run again
ENDED      nothing more comes; ``error``     nothing
           tells why, if it failed
========== ================================= ================================================

A producer keeps its slot until the lane has ENDED. If a later item got the slot meanwhile, that
item could fill its buffer and wait for its turn, and the head would never find a slot to run again.

The producer (the item's slot; the supervisor when it gives the call up) calls `full`, ``append``,
`finish`, `fail`, `pause`, `reopen`; the consumer `ready`, ``pop``, `relieve`, `pause`, `leave`.
Anyone sets ``event``, which wakes the producer.

Invariants: ``len(buffer) <= size``; ``phase`` is written after what it announces, and read before
it; a lane that has made an element never is UNDECIDED or PAUSING: delivery can't be taken back.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from inturn._base.atomic import pop_or
from inturn._base.events import Event, ThreadEvent
from inturn._model.outcome import Err

from .chunk import Chunk
from .window import NEVER, Window

__all__ = ["NO_LANE", "Lane", "LaneWindow", "Phase"]

_GULP: Final = 8  # elements for which there is room before a waiting producer is woken, in a large buffer


class Phase(enum.Enum):
    OPEN = "elements may come"
    PAUSING = "it runs again after a pause"
    UNDECIDED = "the policy decides in turn whether it runs again"
    ENDED = "nothing more comes"


class Lane:
    """The elements of one item that are produced and not yet delivered."""

    def __init__(self, index: int, size: int, event: Event) -> None:
        self.index = index
        self.size = size
        self.enough = size - max(1, min(_GULP, size // _GULP))  # a producer is woken when so few are left
        self.event = event
        self.buffer: deque[Any] = deque()
        self.append = self.buffer.append
        self.pop = self.buffer.popleft
        self.producer_waits: deque[None] = deque()  # holds a token while the producer waits for room
        self.made = 0  # elements, counted before they are appended
        self.phase = Phase.OPEN
        self.error: Err | None = None
        self.due = 0.0  # when a pause is over, on the driver's clock

    def full(self) -> bool:
        return len(self.buffer) >= self.size

    def finish(self) -> None:
        self.phase = Phase.ENDED

    def fail(self, error: Err, *, undecided: bool) -> None:
        """No element follows, unless the policy has the item run again, which it may while `undecided`."""
        self.error = error
        self.phase = Phase.UNDECIDED if undecided and not self.made else Phase.ENDED

    def reopen(self) -> None:
        self.phase = Phase.OPEN

    def pause(self, due: float) -> None:
        """The item, which has made nothing, runs again at this moment; by producer or consumer."""
        assert not self.made
        self.error = None
        self.due = due
        self.phase = Phase.PAUSING

    def ready(self) -> bool:
        """Whether there is something to deliver, or, if it is then found empty, to decide."""
        return bool(self.buffer) or self.phase is Phase.ENDED or self.phase is Phase.UNDECIDED

    def relieve(self) -> None:
        """After ``pop``: wake the producer if it waits for room and there is enough now."""
        if len(self.buffer) <= self.enough and pop_or(self, self.producer_waits.pop) is None:
            self.event.set()

    def telling(self, after: Callable[[], object]) -> Lane:
        """The same lane, for the consumer; it tells of each element that is popped."""

        def pop() -> Any:
            element = self.pop()
            after()
            return element

        lane = Lane.__new__(Lane)  # with what the consumer looks at: once per item or element
        lane.index, lane.buffer, lane.producer_waits = self.index, self.buffer, self.producer_waits
        lane.enough, lane.event, lane.pop = self.enough, self.event, pop
        return lane

    def leave(self) -> None:
        """The policy has put something else in the item's place."""
        if self.phase is Phase.UNDECIDED:
            self.phase = Phase.ENDED
            self.event.set()


class LaneWindow(Window):
    _releases_outcomes = False  # its outcomes are lanes, which their producers hold and close

    def __init__(self, *args: Any, buffer: int, event: Callable[[], Event], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._buffer = buffer
        self._event = event

    def claim(self, most: int = NEVER) -> Chunk | None:
        """Take an item to run; its lane is ``chunk.out[0]``, also when the item runs again."""
        chunk = super().claim(most)
        if chunk is not None and not chunk.out:
            chunk.out.append(Lane(chunk.index, self._buffer, self._event()))
        return chunk

    def _outcomes_of(self, index: int, failures: list[Any]) -> list[Any]:
        lanes: list[Lane] = []
        for position, failure in enumerate(failures, index):
            lane = Lane(position, self._buffer, self._event())
            lane.made = 1
            lane.append(failure)
            lane.finish()
            lanes.append(lane)
        return lanes

    def _ready(self) -> bool:
        found = self._outcome()
        return found is not None and found[0].ready()

    def clear(self) -> None:
        for lane in self._lanes():
            lane.buffer.clear()  # a call that was given up may hold the lane for a long time
            lane.error = None
        super().clear()

    def waiting(self) -> int:
        """How many items have been produced to their end."""
        return sum(lane.phase is Phase.ENDED for lane in self._lanes())

    def _lanes(self) -> list[Lane]:
        return [lane for chunk, position in self._chunks() for lane in chunk.out[position:]]


NO_LANE: Final = Lane(-1, 1, ThreadEvent())
"""A lane from which nothing ever comes."""
