"""What can go wrong with a call: it `Fails`, its worker dies (`Dies`), or it never ends (`Hangs`)."""

from __future__ import annotations

from typing import ClassVar

from inturn._base import checks
from inturn._model.processes import WorkerDied

__all__ = ["Dies", "Fails", "Fault", "Hangs"]

_SIGKILL = 9


class Fault:
    """Something that goes wrong with one item: the base of `Fails`, `Dies` and `Hangs`.

    Args:
        index: The position of the item in the source, from 0.
        attempt: The attempt that it happens to: 1 is the first. None: every attempt.
        after: In a flat map, the number of elements that the item produces before it happens.
    """

    __slots__ = ("after", "attempt", "index")

    def __init__(self, index: int, attempt: int | None = 1, *, after: int = 0) -> None:
        self.index: int = checks.count("index", index, least=0)
        self.attempt: int | None = None if attempt is None else checks.count("attempt", attempt)
        self.after: int = checks.count("after", after, least=0)

    def meets(self, index: int, attempt: int) -> bool:
        """Whether it happens to this attempt of the item."""
        return index == self.index and self.attempt in {None, attempt}

    def error(self, index: int, attempt: int) -> BaseException | None:
        """The error that the attempt ends with; None if it does not end."""
        return None

    def _arguments(self) -> list[str]:
        return [repr(self.index)]

    def __repr__(self) -> str:
        arguments = self._arguments()
        if self.attempt != 1:
            arguments.append(f"attempt={self.attempt}")
        if self.after:
            arguments.append(f"after={self.after}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and repr(other) == repr(self)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # compared by value


class Fails(Fault):
    """This attempt of the item raises the error: `fn` is not called.

    >>> from inturn import ordered_map
    >>> from inturn.testing import Fails, Schedule
    >>> list(ordered_map(abs, [-1, -2, -3], executor=Schedule(faults=[Fails(1, OSError)]), on_error="skip"))
    [1, 3]

    Args:
        error: An exception, or an exception class, which is called with a text.
        index, attempt, after: As for `Fault`.
    """

    __slots__ = ("_error",)

    def __init__(
        self,
        index: int,
        error: BaseException | type[BaseException] = RuntimeError,
        attempt: int | None = 1,
        *,
        after: int = 0,
    ) -> None:
        super().__init__(index, attempt, after=after)
        given: object = error
        if not isinstance(given, BaseException) and not (isinstance(given, type) and issubclass(given, BaseException)):
            raise TypeError(f"error must be an exception or an exception class, got {error!r}")
        self._error = error

    def error(self, index: int, attempt: int) -> BaseException:
        if isinstance(self._error, BaseException):
            return self._error.with_traceback(None)
        return self._error(f"attempt {attempt} of item {index} fails on purpose")

    def _arguments(self) -> list[str]:
        error = self._error
        return [repr(self.index), error.__qualname__ if isinstance(error, type) else repr(error)]


class Dies(Fault):
    """The worker of this attempt dies: the item fails with `WorkerDied`, as if SIGKILL had hit a worker process."""

    __slots__ = ()

    def error(self, index: int, attempt: int) -> BaseException:
        return WorkerDied.of(index, -_SIGKILL)


class Hangs(Fault):
    """This attempt never ends: `fn` is not called.

    A ``timeout`` gives it up, in virtual time. If nothing can end the wait, neither a ``timeout`` nor a ``deadline``,
    `next` raises an error that says so, where a real executor would wait for ever.
    """

    __slots__ = ()
