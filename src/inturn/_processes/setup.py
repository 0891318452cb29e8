"""What a worker process does before its first item and after its last one.

A `Setup` is an argument of the process: under ``fork`` the child inherits it, and with the other
start methods `multiprocessing` pickles it when it starts the process. Only then can a lock, a queue
or a shared value be handed to the child.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from inturn._model.processes import Processes
from inturn._transport.pickling import Main, dumps

__all__ = ["Setup"]


class Setup:
    """The initializer, its arguments and the finalizer."""

    def __init__(self, settings: Processes, main: Main) -> None:
        self._calls = settings.initializer, settings.initargs, settings.finalizer
        self._main = main

    def __reduce__(self) -> tuple[Any, ...]:
        return _Packed, (dumps(self._calls, self._main),)

    def load(self) -> tuple[Callable[..., object] | None, tuple[Any, ...], Callable[[], object] | None]:
        return self._calls


class _Packed:
    """A `Setup` in a worker that was not forked; errors of `load` are sent to the parent."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    def load(self) -> Any:
        return pickle.loads(self._blob)  # trusted: from the parent
