"""How a run has ended: the values of `Job.end`, whose table stands in `job`."""

from __future__ import annotations

import enum
from typing import Final

__all__ = ["CLOSED", "DROPPED", "Crash", "End"]


class End(enum.Enum):
    CLOSED = "closed"
    DROPPED = "dropped"


CLOSED: Final = End.CLOSED
DROPPED: Final = End.DROPPED


class Crash:
    """The run has ended with this error, which has no turn."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
