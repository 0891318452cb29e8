"""What one call became: a result, or an `Err` that says what went wrong.

A result travels bare (it may be any object at all); only a failure is wrapped, in the private class `Err`, which user
code can never return.

======== ======================================== =================== ==============
kind     what it is                               goes through policy gains a note
======== ======================================== =================== ==============
FAILED   an ``Exception`` of the call             yes                 yes
PASSING  ``SystemExit``, ``KeyboardInterrupt``, … no, raised in turn  yes
FATAL    what no item can survive                 no, raised in turn  no
SOURCE   an ``Exception`` of the source           no, raised in turn  no
======== ======================================== =================== ==============
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Final

from inturn._base.signals import is_ours, landed_here

from .shorten import shorten

__all__ = [
    "Err",
    "Failure",
    "Kind",
    "as_failure_kind",
    "detach",
    "failure_among",
    "failure_of",
    "note",
    "shorten",
    "without_our_frames",
]

_FIELDS: Final = ("index", "item", "error", "attempt", "elapsed", "delivered", "stage", "origin")
_MOST_NOTES = 16  # one error object raised for item after item must not grow without end


class Kind(enum.Enum):
    FAILED = "failed"
    PASSING = "passing"
    FATAL = "fatal"
    SOURCE = "source"


class Err:
    """The outcome of a call that failed, as it travels from worker to consumer."""

    __slots__ = ("attempt", "delivered", "elapsed", "error", "item", "kind")

    def __init__(
        self,
        error: BaseException,
        item: Any = None,
        kind: Kind = Kind.FAILED,
        attempt: int = 1,
        elapsed: float = 0.0,
        delivered: int = 0,
    ) -> None:
        self.error = error
        self.item = item
        self.kind = kind
        self.attempt = attempt
        self.elapsed = elapsed
        self.delivered = delivered


class Failure:
    """One item that failed: what an error policy is given, and what ``on_error="return"`` delivers.

    Attributes:
        index: Position of the item in the source, from 0.
        item: The argument, or the tuple of arguments where several iterables are zipped.
        error: What was raised.
        attempt: 1 for the first run of the item, 2 for the second, …
        elapsed: Seconds that the last attempt took. For an item that was run in a batch of tiny
            ones it may be too large by the batch's time slice, a few milliseconds.
        delivered: Elements delivered before the failure (flat map; else 0).
        stage: The ``name`` of its run, or None.
        origin: Position in the source of the first stage, from 0. It differs from `index` where the source of the
            run is another run that leaves items out or is a flat map.

    It pickles if `item` and `error` do. Two failures are equal if all of this is. Errors are equal if they have the
    same type and equal arguments. Items whose comparison has no answer, such as arrays of numbers, are equal only
    if they are the same object.
    """

    __slots__ = _FIELDS

    def __init__(
        self,
        index: int,
        item: Any,
        error: BaseException,
        attempt: int = 1,
        elapsed: float = 0.0,
        delivered: int = 0,
        stage: str | None = None,
        origin: int | None = None,  # None: as `index`, also in pickles of a version that had none
    ) -> None:
        self.index: int = index
        self.item: Any = item
        self.error: BaseException = error
        self.attempt: int = attempt
        self.elapsed: float = elapsed
        self.delivered: int = delivered
        self.stage: str | None = stage
        self.origin: int = index if origin is None else origin

    def __repr__(self) -> str:
        item, error = shorten(self.item), shorten(self.error, 200)
        where = "" if self.stage is None else f", stage={self.stage!r}"
        where += "" if self.origin == self.index else f", origin={self.origin}"
        return f"Failure(index={self.index}, item={item}, error={error}, attempt={self.attempt}{where})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Failure):
            return NotImplemented
        a, b = self.error, other.error  # not the same object, if one of them was pickled meanwhile
        if a is not b and (type(a) is not type(b) or not _equal(a.args, b.args)):
            return False
        return all(_equal(getattr(self, name), getattr(other, name)) for name in _FIELDS if name != "error")

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # mutable, and the item may not hash

    def __reduce__(self) -> tuple[Any, ...]:
        return Failure, tuple(getattr(self, name) for name in _FIELDS)


def _equal(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b)
    except Exception:  # arrays compare element by element, which is neither true nor false
        return False


def failure_of(item: Any) -> Failure | None:
    """The item if it is a failure that passes (36); told by its type, since an item may answer yes to anything."""
    return item if issubclass(type(item), Failure) else None


def failure_among(arguments: tuple[Any, ...]) -> Failure | None:
    """With several sources: the first of the arguments that is a failure."""
    return next((each for each in arguments if issubclass(type(each), Failure)), None)


def note(error: BaseException, index: int, item: object, stage: str | None, origin: int) -> None:
    """Say on the error which item it belongs to (guarantee 8); an error that refuses notes stays as it is."""
    try:
        notes = getattr(error, "__notes__", ())
        if len(notes) < _MOST_NOTES:
            where = [] if stage is None else [f"stage {stage!r}"]
            where += [] if origin == index else [f"item {origin} of the first stage"]
            text = f"item {index}: {shorten(item)}" + (f" ({', '.join(where)})" if where else "")
            if text not in notes:
                error.add_note(text)
    except Exception:
        pass


def as_failure_kind(error: BaseException) -> Kind:
    """Which errors of a call a policy may see; what landed in this library is none of them, and is raised."""
    if landed_here(error):
        raise error
    fails = isinstance(error, Exception) or type(error).__name__ == "CancelledError"
    return Kind.FAILED if fails else Kind.PASSING


def detach(error: BaseException) -> BaseException:
    """Make an error that was caught in a worker fit to travel (guarantee 11).

    ``StopIteration`` becomes ``RuntimeError``, as in a generator: it must never end the consumer's loop.
    """
    without_our_frames(error)
    if isinstance(error, (StopIteration, StopAsyncIteration)):
        wrapped = RuntimeError(f"fn raised {type(error).__name__}")
        wrapped.__cause__ = error
        return wrapped
    return error


def without_our_frames(error: BaseException) -> None:
    """Take our frames off the top of the error's traceback: their locals would keep later items and results alive."""
    tb = error.__traceback__
    while tb is not None and is_ours(tb.tb_frame):
        tb = tb.tb_next
    BaseException.with_traceback(error, tb)  # not by assignment, which a class may refuse
