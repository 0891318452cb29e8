"""What every run has that a user holds, whichever driver it is of."""

from __future__ import annotations

__all__ = ["Handle"]


class Handle:
    """The base of the types of runs: it tells a run from everything else.

    Attributes:
        indexed: Whether it delivers ``(index, result)``.
    """

    __slots__ = ("indexed",)

    indexed: bool
