"""What a worker process does before its first item and after its last one.

It travels with the process object: under ``fork`` it is inherited as it is, and by the other methods it is pickled
while `multiprocessing` starts the process. In that moment alone a lock, a queue or a shared value can be handed on.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from inturn._model.processes import Processes
from inturn._transport.pickling import Main, dumps

__all__ = ["Setup"]


class Setup:
    """The settings of a run, as far as they concern its workers."""

    def __init__(self, settings: Processes, main: Main) -> None:
        self._calls = settings.initializer, settings.initargs, settings.finalizer
        self._main = main

    def __reduce__(self) -> tuple[Any, ...]:
        return _Packed, (dumps(self._calls, self._main),)

    def load(self) -> tuple[Callable[..., object] | None, tuple[Any, ...], Callable[[], object] | None]:
        return self._calls


class _Packed:
    """A `Setup` in a worker that was not forked: unpickled when there is somebody to be told of an error."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob

    def load(self) -> Any:
        return pickle.loads(self._blob)  # from the parent
