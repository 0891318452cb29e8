"""The answers of `Run.advance` (see `consumer`), and the results that a handle holds."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Any

from inturn._model.outcome import Err, detach

__all__ = [
    "AGAIN",
    "BREATHE",
    "CLOSED",
    "DONE",
    "LEFT_OUT",
    "Raised",
    "Wait",
    "Watched",
    "no_end",
    "raised_for",
    "sooner",
]


class Step(enum.Enum):
    DONE = "all is delivered"
    CLOSED = "the run was closed from elsewhere"
    BREATHE = "the pulls took a while"
    AGAIN = "the head runs again"
    LEFT_OUT = "the head is left out"


DONE, CLOSED, BREATHE, AGAIN, LEFT_OUT = Step


class Wait:
    """Nothing can be delivered before something happens, or so many seconds have passed (None: however long)."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds


class Raised:
    """This error ends the run. It is returned and raised by the outermost frame, so that no frame keeps it alive."""

    def __init__(self, error: BaseException) -> None:
        self.error = no_end(error)


def no_end(error: BaseException) -> BaseException:
    """The error as it may leave ``next``: one that would end the loop in silence becomes another."""
    if not isinstance(error, (StopIteration, StopAsyncIteration)):
        return error
    told = RuntimeError(f"a function that the run has called raised {type(error).__name__}")
    told.__cause__ = error
    return told


def raised_for(error: BaseException, err: Err) -> BaseException:
    """What is raised for an item when a policy, or a function for `retry`, has raised `error`."""
    raised = detach(error)
    if raised is not err.error and raised.__cause__ is None:
        raised.__cause__ = err.error
    return raised


class Watched(list[Any]):
    """Results that are taken and not yet delivered; it tells of each that is popped."""

    __slots__ = ("_after",)

    def __init__(self, results: Iterable[Any], after: Callable[[], object]) -> None:
        super().__init__(results)
        self._after = after

    def pop(self) -> Any:  # type: ignore[override]
        result = list.pop(self)
        self._after()
        return result


def sooner(one: float | None, other: float | None) -> float | None:
    """The shorter of two times to wait, where None is for ever."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
