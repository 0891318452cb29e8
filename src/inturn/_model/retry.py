"""`retry`: the policy that decides as soon as a failure is noticed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, TypeVar, overload

from inturn._base import checks

from .outcome import Failure
from .policy import CURES, RAISE, Decision, Early, Policy, Retry, Skip, check_plain, decision_of, name_of, resolve

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    from .policy import Named

    class RetryOptions(TypedDict, total=False):
        backoff: float
        factor: float
        jitter: bool
        max_backoff: float
        after: Callable[[Failure], float | None] | None
        on_retry: Callable[[Failure], object] | None


__all__ = ["RetryPolicy", "retry"]

T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)
On = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Failure], object]

_DEFAULTS: Final[dict[str, Any]] = {
    "on": Exception,
    "backoff": 0.1,
    "factor": 2.0,
    "jitter": True,
    "max_backoff": 60.0,
    "after": None,
    "on_retry": None,
    "then": RAISE,
}


class RetryPolicy(Early, Generic[S_co]):
    """What `retry` returns."""

    def __init__(self, attempts: int, settings: dict[str, Any]) -> None:
        self.attempts: int = attempts
        self.on: On = settings["on"]
        self.backoff: float = settings["backoff"]
        self.factor: float = settings["factor"]
        self.jitter: bool = settings["jitter"]
        self.max_backoff: float = settings["max_backoff"]
        self.after: Callable[[Failure], float | None] | None = settings["after"]
        self.on_retry: Callable[[Failure], object] | None = settings["on_retry"]
        self.then: Policy = settings["then"]

    def _changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults."""
        values = {name: getattr(self, name) for name in _DEFAULTS}
        return {name: name_of(value) or value for name, value in values.items() if value != _DEFAULTS[name]}

    def __repr__(self) -> str:
        changed = [f"{name}={_code(value)}" for name, value in self._changed().items()]
        return f"retry({', '.join([f'attempts={self.attempts}', *changed])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(retry, self.attempts, **self._changed()), ()

    def pause(self, attempt: int) -> float:
        """Seconds to wait after the failure of this attempt, if nobody names them."""
        try:
            pause = min(self.backoff * self.factor ** (attempt - 1), self.max_backoff)
        except OverflowError:
            pause = self.max_backoff if self.backoff else 0.0
        if not self.jitter:
            return pause
        from random import uniform  # not at the top: `import inturn` stays light

        return pause * uniform(0.5, 1.0)

    def decide(self, failure: Failure) -> Retry | Decision:
        if failure.attempt < self.attempts and self._is_on(failure):
            seconds = None if self.after is None else self.after(failure)
            if seconds is None:
                again = Retry(self.pause(failure.attempt))
            else:
                again = Retry(checks.number("what after returns", seconds, allowed="a number of seconds or None"))
            again.on_retry = self.on_retry
            return again
        return decision_of(self.then)(failure)

    def _is_on(self, failure: Failure) -> bool:
        on = self.on
        return isinstance(failure.error, on) if isinstance(on, (type, tuple)) else bool(on(failure))

    def __call__(self, failure: Failure) -> S_co | Skip | Retry:
        """For a function of the user's that hands over to it, in the item's turn."""
        decided = self.decide(failure)
        return decided if isinstance(decided, Retry) else self.then(failure)


def _code(value: Any) -> str:
    """A repr that is the code which makes the value, as far as there is one."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_code, value))}{',' if len(value) == 1 else ''})"
    return value.__qualname__ if isinstance(value, type) else repr(value)


@overload
def retry(
    attempts: int = ..., on: On = ..., *, then: Literal["return"], **options: Unpack[RetryOptions]
) -> RetryPolicy[Failure]: ...
@overload
def retry(
    attempts: int = ..., on: On = ..., *, then: Named = ..., **options: Unpack[RetryOptions]
) -> RetryPolicy[NoReturn]: ...
@overload
def retry(
    attempts: int = ..., on: On = ..., *, then: Callable[[Failure], T | Skip | Retry], **options: Unpack[RetryOptions]
) -> RetryPolicy[T]: ...
def retry(
    attempts: int = 3,
    on: Any = Exception,
    backoff: float = 0.1,
    factor: float = 2.0,
    jitter: bool = True,
    max_backoff: float = 60.0,
    after: Callable[[Failure], float | None] | None = None,
    on_retry: Callable[[Failure], object] | None = None,
    then: Any = "raise",
    **unknown: Any,
) -> RetryPolicy[Any]:
    """A policy that runs a failed item again, after a growing pause, then hands over to another policy.

    >>> import inturn
    >>> tries = []
    >>> def flaky(x):
    ...     tries.append(x)
    ...     if len(tries) < 3:
    ...         raise OSError("busy")
    ...     return x
    >>> list(inturn.ordered_map(flaky, [7], on_error=inturn.retry(attempts=3, on=OSError, backoff=0)))
    [7]

    The item keeps its place in the order; while it pauses it occupies no worker, and pauses of
    several items overlap.

    ``on`` (if it is a function), ``after`` and ``on_retry`` are called as soon as the failure is noticed, in any
    thread, and in any order; in an async run in the thread of the loop. They must not wait. If one raises, the run ends
    with its error in the item's turn, as if a policy had raised it.

    Args:
        attempts: Runs of an item in all, the first included; at least 1.
        on: Which failures are worth another attempt: the class of their errors, a tuple of classes, or a
            function of the `Failure`.
        backoff: Seconds before the second attempt; 0 for none.
        factor: What the pause is multiplied by after each further attempt; at least 1 (exponential back-off).
        jitter: Whether each pause is shortened at random, by up to half, so that items that failed
            together do not come back together.
        max_backoff: Seconds that no growing pause exceeds.
        after: A function of the `Failure` that returns the seconds until the next attempt, as a
            *Retry-After* header says, or None for the growing pause.
        on_retry: A function of the `Failure` that is told of each further attempt, for logs.
        then: The policy for what still fails, and for failures that are not ``on``.

    Raises:
        TypeError, ValueError: For arguments that cannot be meant, at the call.
    """
    checks.no_others(retry, unknown)
    each: Any
    if isinstance(on, (type, tuple)) or not callable(on):
        for each in on if isinstance(on, tuple) else (on,):
            if not (isinstance(each, type) and issubclass(each, BaseException)):
                raise TypeError(f"on must be an exception class, a tuple of them, or a function, got {each!r}")
    for name, function in (("on", on), ("after", after), ("on_retry", on_retry)):
        if name != "on" and function is not None and not callable(function):
            raise TypeError(f"{name} must be a function of the Failure or None, got {function!r}")
        if callable(function):
            check_plain(name, function, "it is asked as soon as a failure is noticed, and nobody would await it")
    return RetryPolicy(
        checks.count("attempts", attempts),
        {
            "on": on,
            "backoff": checks.number("backoff", backoff),
            "factor": checks.number("factor", factor, least=1.0, allowed="a number"),
            "jitter": checks.flag("jitter", jitter),
            "max_backoff": checks.number("max_backoff", max_backoff),
            "after": after,
            "on_retry": on_retry,
            "then": resolve("then", then),
        },
    )


CURES.append((retry, ": call it, retry()"))
