"""``executor="thread"``: its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Threads"]


class Threads:
    """``executor="thread"`` with settings.

    Args:
        initializer: Called once in each thread before its first item. If it raises, the run ends with that error.
        initargs: Its arguments.
        name: What the names of the threads begin with.

    >>> import inturn
    >>> list(inturn.ordered_map(str.upper, "abc", executor=inturn.Threads(name="shout")))
    ['A', 'B', 'C']
    """

    __slots__ = ("initargs", "initializer", "name")

    def __init__(
        self,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        name: str = "inturn",
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, got {type(initializer).__name__}: {initializer!r}")
        self.initializer: Callable[..., object] | None = initializer
        self.initargs: tuple[Any, ...] = tuple(initargs)
        self.name: str = name

    def __repr__(self) -> str:
        return f"Threads(initializer={self.initializer!r}, initargs={self.initargs!r}, name={self.name!r})"
