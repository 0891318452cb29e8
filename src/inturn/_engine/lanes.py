"""The engine of `ordered_flat_map`: a bounded lane of elements per item, the lanes in the order of their items.

Sans-IO, like `window`, whose order and bound it keeps. A *lane* is the outcome of an item: it exists from the moment
a worker claims the item, and it is complete when no more elements come. So the window counts items, as always, and
the head's lane is delivered while it fills.

========== ================================= ============================================================
phase      meaning                           left by
========== ================================= ============================================================
OPEN       elements come, or may come        `finish`, `fail`, `pause` (producer)
PAUSING    it runs again when it is `due`    `reopen` (producer)
UNDECIDED  it failed before its first        `pause` or `leave` (consumer, when its policy has spoken)
           element, and may yet run again
ENDED      nothing more comes; ``error``     nothing
           tells why, if it failed
========== ================================= ============================================================

A producer keeps its slot from OPEN to ENDED, through all phases between. If the slot were given to a later item, that
item could fill its buffer and wait for its turn, and the head would never find a slot to run again.

Who may call what:

- *producer* (one at a time: the slot of the item; the supervisor when it gives the call up): `full`, ``append``,
  ``made``, `finish`, `fail`, `pause`, `reopen`, ``producer_waits``
- *consumer*: `ready`, `over`, ``pop``, `relieve`, `pause`, `leave`
- *anyone*: ``event``, which wakes the producer. The engine sets it and never looks at it: the driver waits for it.

Invariants: ``len(buffer) <= size`` at every moment; ``phase`` is written after what it announces, and read before it;
a lane that has made an element never is UNDECIDED or PAUSING: what was delivered can't be taken back.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from inturn._base.events import Event
from inturn._model.outcome import Err, Failure

from .chunk import Chunk
from .window import NEVER, Window

__all__ = ["NO_LANE", "Lane", "LaneWindow", "Phase"]

_GULP: Final = 8  # elements for which there is room before a waiting producer is woken, in a large buffer


class _Mute:
    def set(self) -> None:
        pass


class Phase(enum.Enum):
    OPEN = "elements may come"
    PAUSING = "it runs again after a pause"
    UNDECIDED = "the policy decides in turn whether it runs again"
    ENDED = "nothing more comes"


class Lane:
    """The elements of one item that are produced and not yet delivered."""

    __slots__ = (
        "append",
        "buffer",
        "due",
        "enough",
        "error",
        "event",
        "index",
        "made",
        "phase",
        "pop",
        "producer_waits",
        "size",
    )

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

    # ---- the producer ----------------------------------------------------------------------------

    def full(self) -> bool:
        return len(self.buffer) >= self.size

    def finish(self) -> None:
        """All elements have been appended."""
        self.phase = Phase.ENDED

    def fail(self, error: Err, *, undecided: bool) -> None:
        """No element follows, unless the policy has the item run again, which it may while `undecided`."""
        self.error = error
        self.phase = Phase.UNDECIDED if undecided and not self.made else Phase.ENDED

    def reopen(self) -> None:
        """The pause is over."""
        self.phase = Phase.OPEN

    # ---- producer or consumer --------------------------------------------------------------------

    def pause(self, due: float) -> None:
        """The item, which has made nothing, runs again at this moment."""
        assert not self.made
        self.error = None
        self.due = due
        self.phase = Phase.PAUSING

    # ---- the consumer ----------------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether there is something to deliver or to decide."""
        return bool(self.buffer) or self.over()

    def over(self) -> bool:
        """Whether no more elements come (as things are); ask before ``pop``: it is set after the last element."""
        return self.phase is Phase.ENDED or self.phase is Phase.UNDECIDED

    def relieve(self) -> None:
        """After ``pop``: wake the producer if it waits for room and there is enough now."""
        if len(self.buffer) <= self.enough:
            try:
                self.producer_waits.pop()
            except IndexError:
                return
            self.event.set()

    def leave(self) -> None:
        """The policy has put something else in the item's place."""
        if self.phase is Phase.UNDECIDED:
            self.phase = Phase.ENDED
            self.event.set()


class LaneWindow(Window):
    """A window whose outcomes are lanes."""

    _clears_outcomes = False  # its outcomes are lanes, which their producers hold and close

    def __init__(self, concurrency: int, limit: int | None, buffer: int, event: Callable[[], Event]) -> None:
        super().__init__(concurrency, limit, None, batch=False)
        self._buffer = buffer
        self._event = event

    def claim(self, most: int = NEVER) -> Chunk | None:
        """Take an item to run; its lane is ``chunk.out[0]``, also when the item runs again."""
        chunk = super().claim(most)
        if chunk is not None and not chunk.out:
            chunk.out.append(Lane(chunk.index, self._buffer, self._event()))
        return chunk

    def _outcomes_of(self, index: int, failures: list[Failure]) -> list[Any]:
        lanes = [Lane(index + position, self._buffer, self._event()) for position in range(len(failures))]
        for lane, failure in zip(lanes, failures, strict=True):
            lane.made = 1
            lane.append(failure)
            lane.finish()
        return list(lanes)

    def head(self) -> Lane | Err | None:
        """The lane to deliver from, or the error of the source; None if neither is there."""
        if self.taken == self.pulled:
            return self.final
        found = super()._outcome()
        return None if found is None else found[0]

    def _outcome(self) -> tuple[Any] | None:
        found = super()._outcome()
        return found if found is not None and found[0].ready() else None

    def drop(self) -> None:
        """The head has been delivered to its end; its lane stays with its chunk, which a slot may still look at."""
        if self.taken == self.pulled:
            self.final = None
            return
        self._position += 1
        self.taken += 1

    def clear(self) -> None:
        for lane in self._lanes():
            lane.buffer.clear()  # a call that was given up may hold the lane for a long time
            lane.error = None
        super().clear()

    def waiting(self) -> int:
        """How many items have been produced to their end."""
        return sum(lane.phase is Phase.ENDED for lane in self._lanes())

    def _lanes(self) -> list[Lane]:
        lanes: list[Lane] = []
        node, position = self._cursor, self._position
        while node is not self._main:
            if isinstance(node, Chunk):
                lanes += node.out[position:]
            node, position = node.next, 0
        return lanes


NO_LANE: Final = Lane(-1, 1, _Mute())
"""A lane from which nothing ever comes."""
