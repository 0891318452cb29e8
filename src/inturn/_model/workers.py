"""What `Threads` and `Processes` have in common: the `with` block in which workers outlive a run.

The workers themselves belong to a *store* (see `inturn._pools.store`). The first run that is given
the settings within the block makes it; a `Block` is where it is found.

======= ================================ =====================================================
block   condition                        left by
======= ================================ =====================================================
none    ``_block`` is None               ``__enter__``
open    not ``block.left``               ``__exit__``; the loss of the last reference
left    ``block.left``                   ``__enter__``, which makes another block
foreign ``block.pid`` is not this        (for this process there is no block)
        process
======= ================================ =====================================================
"""

from __future__ import annotations

import os
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Protocol, Self

__all__ = ["Block", "Workers"]


class Store(Protocol):
    """What a block needs of the store of its workers."""

    def close(self, *, wait: bool) -> None: ...


class Block:
    """One ``with`` block.

    Attributes:
        left: Whether it was left: its workers end, and no run may use them.
        stores: Holds the store, once there is one.
        context: The context variables as of its beginning.
    """

    __slots__ = ("context", "left", "pid", "stores")

    def __init__(self) -> None:
        self.left = False
        self.pid = os.getpid()
        self.stores: dict[None, Store] = {}
        self.context: Context = copy_context()

    def leave(self, *, wait: bool) -> None:
        """End the workers, unless they are another process's. Without `wait`, it may be called from anywhere."""
        if self.pid == os.getpid():
            self.left = True
            for store in list(self.stores.values()):
                store.close(wait=wait)


class Workers:
    """The base of `Threads` and `Processes`."""

    __slots__ = ("__weakref__", "_block")

    _ends_calls = False
    """Whether leaving the block ends calls that run, so that Ctrl-C may wait for it."""

    _block: Block | None

    def __enter__(self) -> Self:
        block = self._current()
        if block is not None and not block.left:
            raise RuntimeError(f"this {type(self).__name__} is in use by a `with` block already: make another one")
        self._block = Block()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        block = self._current()
        if block is not None:
            block.leave(wait=self._ends_calls or kind is None or not issubclass(kind, KeyboardInterrupt))

    def _current(self) -> Block | None:
        """The block whose workers a run is to use; None if it has to make its own."""
        block = self._block
        return None if block is None or block.pid != os.getpid() else block

    def _settings(self) -> tuple[Any, ...]:
        """What the settings were made with, in the order of the parameters."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._settings()

    def __del__(self) -> None:
        try:
            block = self._block
            if block is not None:
                block.leave(wait=False)
        except AttributeError:  # it was never finished, or the interpreter is on its way out
            pass
