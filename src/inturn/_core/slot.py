"""Where one call at a time runs, and the call that is under a time limit there; `Star`, for several sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inturn._base.atomic import Once
from inturn._engine.chunk import Chunk

__all__ = ["Call", "Slot", "Star"]


class Call:
    """One call under a time limit: the first to settle it, the worker or the supervisor, decides its outcome."""

    __slots__ = ("item", "reopen", "settle", "started")

    def __init__(self, item: Any, started: float) -> None:
        self.item = item
        self.started = started
        token = Once()
        self.settle = token.take
        self.reopen = token.give_back  # by the one who has settled it and goes on with it


class Slot:
    """Where one call at a time runs. Its worker writes these fields; anyone reads them."""

    __slots__ = ("call", "chunk", "since", "sliced")

    def __init__(self) -> None:
        self.chunk: Chunk | None = None
        self.since = 0.0  # when the chunk was begun
        self.sliced = False  # whether the supervisor takes back what the chunk has not started in its time slice
        self.call: Call | None = None  # the call under way, if it has a time limit

    def give_up(self) -> None:
        """The call is given up: its outcome will be thrown away (supervisor only, where calls have limits)."""
        raise AssertionError(f"{type(self).__name__} has no calls to give up")


class Star:
    """``fn`` for items that are tuples of arguments."""

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, args: tuple[Any, ...]) -> Any:
        return self.fn(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return Star, (self.fn,)

    def __repr__(self) -> str:
        return repr(self.fn)
