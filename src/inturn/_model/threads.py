"""``executor="thread"``: its settings, and what the settings of all workers have in common."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .workers import Workers

__all__ = ["Threads", "callable_or_none", "finalize", "initializer_or_none"]


class Threads(Workers):
    """``executor="thread"`` with settings.

    Args:
        initializer: Called once in each thread before its first item. What it sets in its context (a
            `contextvars.ContextVar`) is seen by the calls in that thread. If it raises, the run ends with that error.
        initargs: Its arguments.
        finalizer: Called without arguments in each thread when it leaves, in the context of the initializer: for what
            only its own thread may close. Closing the run waits for it. It is not called if the initializer failed.
            If it raises, `threading.excepthook` shows the error, and nothing else comes of it.
        name: What the names of the threads begin with.
        max_workers: The most threads at once. None: as many as the `concurrency` of a run; in a `with` block, at least
            ``min(32, cpus + 4)``, and as many as the highest `concurrency` of a run.

    As a context manager, it keeps its threads: in the block, all runs that are given it as `executor` share them,
    fairly, one after the other, at once or nested. The initializer then sees the context variables as of the beginning
    of the block. Leaving the block ends the threads, and open runs: their next ``next`` raises `RuntimeError`.
    Outside of a block, the threads live for one run.

    >>> import inturn
    >>> list(inturn.ordered_map(str.upper, "abc", executor=inturn.Threads(name="shout")))
    ['A', 'B', 'C']
    >>> with inturn.Threads() as workers:
    ...     for words in ["ab", "cd"]:
    ...         print(list(inturn.ordered_map(str.upper, words, executor=workers)))
    ['A', 'B']
    ['C', 'D']
    """

    __slots__ = ("finalizer", "initargs", "initializer", "max_workers", "name")

    def __init__(
        self,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: Callable[[], object] | None = None,
        name: str = "inturn",
        max_workers: int | None = None,
    ) -> None:
        from inturn._base.checks import at_least_one

        self._block = None
        initializer_or_none(type(self), initializer)
        callable_or_none("finalizer", finalizer)
        self.initializer: Callable[..., object] | None = initializer
        self.initargs: tuple[Any, ...] = tuple(initargs)
        self.finalizer: Callable[[], object] | None = finalizer
        self.name: str = name
        self.max_workers: int | None = at_least_one("max_workers", max_workers)

    def _settings(self) -> tuple[Any, ...]:
        return self.initializer, self.initargs, self.finalizer, self.name, self.max_workers

    def __repr__(self) -> str:
        return (
            f"Threads(initializer={self.initializer!r}, initargs={self.initargs!r}, "
            f"finalizer={self.finalizer!r}, name={self.name!r}, max_workers={self.max_workers!r})"
        )


def initializer_or_none(kind: type, value: object) -> None:
    cure = f"; write {kind.__name__}(max_workers={value})" if isinstance(value, int) else ""
    callable_or_none("initializer", value, cure)


def callable_or_none(name: str, value: object, cure: str = "") -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable, got {type(value).__name__}: {value!r}{cure}")


def finalize(finalizer: Callable[[], object] | None) -> None:
    """Call a worker's finalizer; its error is nobody's but the hook's that shows what threads leave unhandled."""
    if finalizer is None:
        return
    try:
        finalizer()
    except BaseException as error:
        args = (type(error), error, error.__traceback__, threading.current_thread())
        threading.excepthook(threading.ExceptHookArgs(args))
