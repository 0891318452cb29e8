"""Steps that are atomic: with the GIL, without it, and whatever a signal handler does in between.

With the GIL, threads can share an iterator over a list (each step is atomic), and all threads see writes in the same
order. Without the GIL, neither holds: the processor may let a thread read before others see its last write. If two
threads each write one thing and then read the other's, both may miss the other's write (Dekker's pattern).
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any, Final, Self

from .signals import found_nothing

__all__ = ["Link", "Once", "Total", "fence", "pop_or", "remainder_of", "taking"]

_END: Final = object()


def pop_or(otherwise: Any, pop: Callable[[], Any]) -> Any:
    """What `pop` returns; `otherwise` if another thread has emptied what it pops from."""
    try:
        return pop()
    except IndexError as error:
        if not found_nothing(error):
            raise
    return otherwise


class _Taking:
    """An iterator that several threads may take from."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = deque(items)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:  # not by `pop_or`: once per item
            return self._items.popleft()
        except IndexError as error:
            if not found_nothing(error):
                raise
        raise StopIteration

    def rest(self) -> list[Any]:
        """Take all from the right, so that a thread that takes from the left meanwhile leaves no gap."""
        items: list[Any] = []
        while (item := pop_or(_END, self._items.pop)) is not _END:
            items.append(item)
        items.reverse()
        return items


GIL = bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def taking(items: list[Any], *, keep: bool = True) -> Iterator[Any]:
    """An iterator that a worker runs through while others may take `remainder_of` it.

    The fastest form refers to all items until its end; without `keep`, items that were taken are released.
    """
    if not GIL:
        return _Taking(items)
    return iter(items) if keep else map(deque.popleft, repeat(deque(items), len(items)))


def remainder_of(iterator: Iterator[Any]) -> list[Any]:
    """Take all that is left of an iterator that `taking` returned, in one piece."""
    rest = getattr(iterator, "rest", None)  # of a `_Taking`, or of what stands for one
    return list(iterator) if rest is None else rest()


class Once:
    """A token that only one of several threads can take, so that something is done once."""

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token = {None: True}

    def take(self) -> bool:
        """True for the first caller; one atomic step, which a signal handler cannot divide."""
        return self._token.pop(None, False)

    def give_back(self) -> None:
        """Allow it to be taken again; only whoever has taken it may call this."""
        self._token[None] = True

    def taken(self) -> bool:
        return not self._token


class Link:
    """One of the states that something had, one after the other; `follow` makes another one the next.

    So a state changes without a lock: read the `latest` one, work out what comes next, and `follow` it. If another
    thread was faster, begin again. Nobody waits for a thread that was interrupted in the midst of it, or that ended
    there by an exception of a signal handler. A state that nothing refers to is freed, and those before it were.
    """

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next: dict[None, Self] = {}

    def follow(self, state: Self) -> bool:
        """Make it the next state: one atomic step; False if there is a next state already."""
        return self._next.setdefault(None, state) is state

    def after(self) -> Self | None:
        """The next state."""
        return self._next.get(None)

    def latest(self) -> Self:
        """The last state there is."""
        state = self
        while (after := state._next.get(None)) is not None:
            state = after
        return state


class Total:
    """A sum that several threads add to; anyone may read it."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._lock = None if GIL else threading.Lock()

    def add(self, amount: float) -> None:
        if self._lock is None:  # the GIL is not released between reading and writing
            self.value += amount
        else:
            with self._lock:
                self.value += amount


def fence() -> None:
    """All threads see what this thread has written, before it reads anything else."""
    if not GIL:
        barrier: list[None] = []
        barrier.append(None)  # locks and unlocks the list: an atomic exchange, which is a full barrier
