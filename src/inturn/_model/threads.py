"""``executor="thread"``: its settings, and what the settings of all workers have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Threads", "callable_or_none", "finalize"]


class Threads:
    """``executor="thread"`` with settings.

    Args:
        initializer: Called once in each thread before its first item. What it sets in its context (a
            `contextvars.ContextVar`) is seen by the calls in that thread. If it raises, the run ends with that error.
        initargs: Its arguments.
        finalizer: Called without arguments in each thread when it leaves, in the context of the initializer: for what
            only its own thread may close. Closing the run waits for it. It is not called if the initializer failed.
            If it raises, `threading.excepthook` shows the error, and nothing else comes of it.
        name: What the names of the threads begin with.

    >>> import inturn
    >>> list(inturn.ordered_map(str.upper, "abc", executor=inturn.Threads(name="shout")))
    ['A', 'B', 'C']
    """

    __slots__ = ("finalizer", "initargs", "initializer", "name")

    def __init__(
        self,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: Callable[[], object] | None = None,
        name: str = "inturn",
    ) -> None:
        callable_or_none("initializer", initializer)
        callable_or_none("finalizer", finalizer)
        self.initializer: Callable[..., object] | None = initializer
        self.initargs: tuple[Any, ...] = tuple(initargs)
        self.finalizer: Callable[[], object] | None = finalizer
        self.name: str = name

    def __repr__(self) -> str:
        return (
            f"Threads(initializer={self.initializer!r}, initargs={self.initargs!r}, "
            f"finalizer={self.finalizer!r}, name={self.name!r})"
        )


def callable_or_none(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable, got {type(value).__name__}: {value!r}")


def finalize(finalizer: Callable[[], object] | None) -> None:
    """Call a worker's finalizer; its error is nobody's but the hook's that shows what threads leave unhandled."""
    if finalizer is None:
        return
    try:
        finalizer()
    except BaseException as error:
        args = (type(error), error, error.__traceback__, threading.current_thread())
        threading.excepthook(threading.ExceptHookArgs(args))
