"""What `Threads` and `Processes` have in common: settings, and the `with` block in which workers outlive a run.

The workers themselves belong to a *store* (see `inturn._pools.store`), which the first run in the block makes.

======= ================================ =====================================================
block   condition                        left by
======= ================================ =====================================================
none    ``_block`` is None               ``__enter__``
open    not ``block.left``               ``__exit__``; the loss of the last reference
left    ``block.left``                   ``__enter__``, which makes another block
foreign ``block.pid`` is another         (for this process there is no block)
======= ================================ =====================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Self

from inturn._base import checks

__all__ = ["Block", "Workers"]


class Block:
    """One ``with`` block."""

    def __init__(self) -> None:
        self.left = False  # whether it was left: its workers end, and no run may use them
        self.pid = os.getpid()
        self.stores: dict[None, Any] = {}  # holds the store, once there is one
        self.context: Context = copy_context()

    def leave(self, *, wait: bool) -> None:
        """End the workers, unless they are another process's. Without `wait`, it may be called from anywhere."""
        if self.pid == os.getpid():
            self.left = True
            for store in list(self.stores.values()):
                store.close(wait=wait)


class Workers:
    """The base of `Threads` and `Processes`."""

    __slots__ = ("__weakref__", "_block", "finalizer", "initargs", "initializer", "max_workers")

    _parameters: tuple[str, ...]

    _ends_calls = False
    """Whether leaving the block ends calls that run, so that Ctrl-C may wait for it."""

    def __init__(self, initializer: Any, initargs: Any, finalizer: Any, max_workers: Any) -> None:
        self._block: Block | None = None
        self.initializer: Callable[..., object] | None = initializer
        cure = f"; write {type(self).__name__}(max_workers={initializer})" if isinstance(initializer, int) else ""
        checks.callable_or_none("initializer", initializer, cure)
        checks.callable_or_none("finalizer", finalizer)
        self.initargs: tuple[Any, ...] = tuple(initargs)
        self.finalizer: Callable[[], object] | None = finalizer
        self.max_workers: int | None = checks.at_least_one("max_workers", max_workers)

    def __enter__(self) -> Self:
        block = self._current()
        if block is not None and not block.left:
            raise RuntimeError(f"this {type(self).__name__} is in use by a `with` block already: make another one")
        self._block = Block()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._block is not None:
            self._block.leave(wait=self._ends_calls or kind is None or not issubclass(kind, KeyboardInterrupt))

    def _current(self) -> Block | None:
        """The block whose workers a run is to use; None if it has to make its own."""
        block = self._block
        return None if block is None or block.pid != os.getpid() else block

    def _settings(self) -> tuple[Any, ...]:
        """What the settings were made with, in the order of the parameters."""
        return tuple(getattr(self, name) for name in self._parameters)

    def __repr__(self) -> str:
        settings = map("{}={!r}".format, self._parameters, self._settings())
        return f"{type(self).__name__}({', '.join(settings)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._settings()

    def __del__(self) -> None:
        try:
            if self._block is not None:
                self._block.leave(wait=False)
        except AttributeError:  # it was never finished, or the interpreter is on its way out
            pass
