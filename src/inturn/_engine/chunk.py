"""The nodes of the window's list: a `Chunk` is claimed, a `Backlog` is not. `window` states their rules."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

__all__ = ["NOWHERE", "Backlog", "Chunk", "Node"]


class Node:
    __slots__ = ("next",)

    next: Node


class Chunk(Node):
    """Consecutive items that one worker runs one after the other.

    The worker takes items from `todo` and appends one outcome each to `out`: a bare result, an `Err`, or
    a `Chunk` of one where the item runs again. ``out[i]`` belongs to item ``index + i``; what has been
    delivered is overwritten, so that nothing of it is kept.
    """

    __slots__ = ("attempt", "ended", "expired", "index", "out", "plain", "size", "todo")

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


NOWHERE: Final = Node()


class Backlog(Node):
    """Items that nobody has started, in order; `tail` is the node before it."""

    __slots__ = ("index", "items", "tail")

    def __init__(self, index: int, items: Iterable[Any], tail: Node) -> None:
        self.index = index
        self.items = deque(items)
        self.tail = tail
