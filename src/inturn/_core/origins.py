"""Which item of the first stage an item of a later stage comes from.

As long as no stage leaves items out or is a flat map, the origin of an item is its index: such
stages are *straight* (`Window.straight`). A stage is so until it leaves an item out, or pulls from
a source that is not straight, or that has delivered something to somebody else. From then on it
asks its source, after each pull, for the origin of what that has just delivered. Only origins that
differ from the index are kept, until the item was delivered. Any thread may call `of`.
"""

from __future__ import annotations

from typing import Any

from inturn._engine.window import Window

__all__ = ["Origins"]


class Origins:
    """The origins of the items of a run whose source is another run (guarantee 38)."""

    def __init__(self, source: Any, window: Window) -> None:
        self._source = source  # a `Run`, or what pulls one in a thread
        self._window = window
        self._straight = True  # whether all items so far have their index as origin
        self._differing: dict[int, int] = {}
        self._oldest = 0  # nothing below this index is in `_differing`

    def pulled(self) -> None:
        """The next item has been pulled, and is not yet in the window."""
        window = self._window
        index = window.pulled
        if self._straight:
            if self._source.straight and (index or not self._source.origin()):
                return
            self._straight = window.straight = False
        origin, differing = self._source.origin(), self._differing
        if differing:
            delivered = window.last_delivered()  # a later stage may still ask for the origin of this one
            while self._oldest < delivered:
                differing.pop(self._oldest, None)
                self._oldest += 1
        else:
            self._oldest = index
        if origin != index:
            differing[index] = origin

    def of(self, index: int) -> int:
        return self._differing.get(index, index)
