"""Which item of the first stage an item of a later stage comes from.

A run whose source is another run asks that run, after each pull, for the origin of what it has just delivered. The
answer is the index of the item itself as long as no earlier stage leaves items out or is a flat map. So only origins
that differ from the index are kept, and only until the item was delivered.

Whoever pulls calls `pulled`; any thread calls `of`.
"""

from __future__ import annotations

from collections.abc import Callable

from inturn._engine.window import Window

__all__ = ["Origins"]


class Origins:
    """The origins of the items of a run whose source is another run.

    Guarantee 38.
    """

    def __init__(self, latest: Callable[[], int], window: Window) -> None:
        self._latest = latest  # the origin of what the source has delivered last
        self._window = window
        self._differing: dict[int, int] = {}
        self._oldest = 0  # nothing below this index is in `_differing`

    def pulled(self) -> None:
        """The next item has been pulled, and is not yet in the window."""
        index, origin, differing = self._window.pulled, self._latest(), self._differing
        if differing:
            delivered = self._window.last_delivered()  # a later stage may still ask for the origin of this one
            while self._oldest < delivered:
                differing.pop(self._oldest, None)
                self._oldest += 1
        else:
            self._oldest = index
        if origin != index:
            differing[index] = origin

    def of(self, index: int) -> int:
        return self._differing.get(index, index)
