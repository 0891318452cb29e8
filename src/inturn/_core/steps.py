"""The answers of `Run.advance`, what they mean is told in `consumer`, and the results that a handle holds."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Any, Final

__all__ = [
    "AGAIN",
    "BREATHE",
    "CLOSED",
    "DONE",
    "LEFT_OUT",
    "Raised",
    "Step",
    "Wait",
    "Watched",
    "found_nothing",
    "sooner",
]


class Step(enum.Enum):
    DONE = "all is delivered"
    CLOSED = "the run was closed from elsewhere"
    BREATHE = "the pulls took a while"
    AGAIN = "the head runs again"
    LEFT_OUT = "the head is left out"


DONE: Final = Step.DONE
CLOSED: Final = Step.CLOSED
BREATHE: Final = Step.BREATHE
AGAIN: Final = Step.AGAIN
LEFT_OUT: Final = Step.LEFT_OUT


class Wait:
    """Nothing can be delivered before something happens, or so many seconds have passed (None: however long)."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds


class Raised:
    """This error ends the run. It is returned and raised by the outermost frame, so that no frame keeps it alive."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
        if isinstance(error, (StopIteration, StopAsyncIteration)):  # it must not end the loop in silence
            self.error = RuntimeError(f"a function that the run has called raised {type(error).__name__}")
            self.error.__cause__ = error


_pop: Final = list.pop


class Watched(list[Any]):
    """Results that are taken and not yet delivered; it tells of each that is popped."""

    __slots__ = ("_after",)

    def __init__(self, results: Iterable[Any], after: Callable[[], object]) -> None:
        super().__init__(results)
        self._after = after

    def pop(self) -> Any:  # type: ignore[override]
        result = _pop(self)
        self._after()
        return result


def found_nothing(error: BaseException) -> bool:
    """Whether a ``pop`` of this library has raised it, since another thread has emptied what it pops from.

    The innermost frame tells: if it is a signal handler's, or one of the user's, the error comes from outside.
    """
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    where = None if tb is None else tb.tb_frame.f_globals.get("__name__")
    return type(error) is IndexError and str(where).partition(".")[0] == "inturn"


def sooner(one: float | None, other: float | None) -> float | None:
    """The shorter of two times to wait, where None is for ever."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
