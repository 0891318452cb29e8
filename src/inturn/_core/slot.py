"""Where one call at a time runs, the call under a time limit there; `Star`, for several sources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inturn._base.atomic import Once
from inturn._engine.chunk import Chunk

__all__ = ["Call", "Slot", "Star"]


class Call(Once):
    """A call under a time limit: who settles it first, worker or supervisor, decides its end."""

    __slots__ = ("item", "started")

    settle = Once.take
    reopen = Once.give_back  # by the one who has settled it and goes on with it

    def __init__(self, item: Any, started: float) -> None:
        super().__init__()
        self.item = item
        self.started = started


class Slot:
    """Where one call at a time runs. Its worker writes these fields; anyone reads them."""

    __slots__ = ("call", "chunk", "since", "sliced")

    calls_here = True  # whether its thread makes the calls, in whatever context, while it has a chunk

    def __init__(self) -> None:
        self.chunk: Chunk | None = None
        self.since = 0.0  # when the chunk was begun
        self.sliced = False  # whether what the chunk does not start in its time slice is taken back
        self.call: Call | None = None  # the call under way, if it has a time limit

    def give_up(self) -> None: ...  # its call is late: nobody gets the outcome (supervisor only)


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
