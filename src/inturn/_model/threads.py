"""``executor="thread"``: its settings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .workers import Workers

__all__ = ["Threads", "finalize"]


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

    __slots__ = ("name",)

    _parameters = ("initializer", "initargs", "finalizer", "name", "max_workers")

    def __init__(
        self,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: Callable[[], object] | None = None,
        name: str = "inturn",
        max_workers: int | None = None,
    ) -> None:
        super().__init__(initializer, initargs, finalizer, max_workers)
        self.name: str = name


def finalize(finalizer: Callable[[], object] | None) -> None:
    """Call a worker's finalizer; its error is nobody's but the hook's that shows what threads leave unhandled."""
    if finalizer is None:
        return
    try:
        finalizer()
    except BaseException as error:
        args = (type(error), error, error.__traceback__, threading.current_thread())
        threading.excepthook(threading.ExceptHookArgs(args))
