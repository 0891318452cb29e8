"""The nodes of the window's list: a `Chunk` is claimed, a `Backlog` is not. See `window`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["Backlog", "Chunk"]


class Chunk:
    """Consecutive items that one worker runs one after the other.

    The worker takes items from `todo` and appends one outcome each to `out`: a bare result, an `Err`, or
    a `Chunk` of one where the item runs again. ``out[i]`` belongs to item ``index + i``; what has been
    delivered is overwritten, so that nothing of it is kept.
    """

    __slots__ = ("attempt", "ended", "expired", "index", "next", "out", "plain", "size", "todo")

    next: Chunk | Backlog  # absent where it runs again, in the place of an outcome

    def __init__(self, index: int, size: int, attempt: int = 1) -> None:
        self.index = index
        self.size = size
        self.attempt = attempt
        self.todo: Iterator[Any] = iter(())
        self.out: list[Any] = []
        self.plain = True  # no Err and no Chunk in `out`; cleared before the first of them is appended
        self.ended = False
        self.expired = False  # its time slice is over: what it had not started was taken back

    @classmethod
    def again(cls, index: int, item: Any, attempt: int) -> Chunk:
        chunk = cls(index, 1, attempt)
        chunk.todo = iter((item,))
        return chunk


class Backlog:
    """Items that nobody has started, in order; `tail` is the node before it, if it is linked."""

    __slots__ = ("index", "items", "next", "tail")

    next: Chunk | Backlog

    def __init__(self, index: int, items: Iterable[Any], tail: Chunk | Backlog | None) -> None:
        self.index = index
        self.items = deque(items)
        self.tail = tail
