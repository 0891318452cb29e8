"""Error policies: functions that get a `Failure` and return what takes the item's place.

A policy runs in the consumer's thread when the item's turn comes, after all results before it. Two things are decided
earlier, as soon as the failure is noticed and in any thread (`decision_of`):

- that the item will run again (`retry` only: so that pauses of several items overlap), and
- that the run will end here (``"raise"`` and ``"abort"``: so that nothing later is started).

A function of the user's cannot be asked earlier, though an answer `Retry` would be welcome then: it may count on the
consumer's thread, on the order of the failures, and on all results before them having been delivered. So functions
for `retry` are apart: ``on``, ``after`` and ``on_retry`` promise none of that.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, TypeVar, overload

from inturn._base import checks

from .outcome import Failure

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    from typing_extensions import TypeVar as TypeVarWithDefault

    S = TypeVarWithDefault("S", default=NoReturn)
    """What a policy delivers in the place of an item: nothing, as long as no policy says so."""
    Named = Literal["raise", "abort", "skip"]
    OnError = Named | Callable[[Failure], "S | Skip | Retry"]

    class RetryOptions(TypedDict, total=False):
        backoff: float
        factor: float
        jitter: bool
        max_backoff: float
        after: Callable[[Failure], float | None] | None
        on_retry: Callable[[Failure], object] | None


__all__ = [
    "ABORT",
    "ENDS",
    "LATER",
    "RAISE",
    "SKIP",
    "Decide",
    "Decision",
    "Policy",
    "Retry",
    "RetryPolicy",
    "Skip",
    "ask",
    "decision_of",
    "discards_errors",
    "in_turn",
    "never_retries",
    "resolve",
    "retry",
    "sentinel",
]

T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)
On = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Failure], object]


class Skip(enum.Enum):
    """The type of `SKIP`."""

    SKIP = "SKIP"

    def __repr__(self) -> str:
        return "SKIP"


SKIP: Final = Skip.SKIP
"""What an error policy returns to leave the item out. From ``fn`` it is an ordinary value."""


class Retry:
    """What an error policy returns to have the item run again, ``after`` seconds from now.

    >>> def patient(failure):
    ...     return Retry(after=0.5) if failure.attempt < 5 else SKIP
    """

    __slots__ = ("after", "on_retry")

    def __init__(self, after: float = 0.0) -> None:
        self.after: float = checks.number("after", after)
        self.on_retry: Callable[[Failure], object] | None = None  # told if the item does run again

    def __repr__(self) -> str:
        return f"Retry(after={self.after})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Retry, (self.after,)


class Decision(enum.Enum):
    ENDS = "the run ends with this failure"
    LATER = "the consumer's thread decides, in turn"


ENDS: Final = Decision.ENDS
LATER: Final = Decision.LATER

Policy = Callable[[Failure], Any]
Decide = Callable[[Failure], "Retry | Decision"]


def _raise(failure: Failure) -> NoReturn:
    try:
        raise failure.error
    finally:
        del failure  # the traceback would hold the failure, which holds the error: a cycle


RAISE: Final[Policy] = _raise
ABORT: Final[Policy] = partial(_raise)  # another object than `RAISE`
NAMED: Final[dict[str, Policy]] = {
    "raise": RAISE,
    "abort": ABORT,
    "skip": lambda failure: SKIP,
    "return": lambda failure: failure,
}


def resolve(argument: str, given: object) -> Policy:
    """The policy that an ``on_error`` or ``then`` argument stands for."""
    if isinstance(given, str) and given in NAMED:
        return NAMED[given]
    cure = _cure(given)
    if not callable(given):
        allowed = f"{argument} must be one of {', '.join(map(repr, NAMED))} or a callable"
        if isinstance(given, str):
            raise ValueError(f"{allowed}, got {given!r}")
        raise TypeError(f"{allowed}, got {checks.shown(given)}{cure}")
    if cure:
        raise TypeError(f"{argument}={getattr(given, '__name__', given)} cannot be a policy{cure}")
    checks.plain(argument, given, "it is called in the consumer's thread, and what it returns takes the item's place")
    return given


def _cure(given: Any) -> str:
    if isinstance(given, type) and issubclass(given, BaseException):
        return f": write retry(on={given.__name__}), or a function of the Failure that looks at failure.error"
    for each, cure in _CURES:
        if given is each or (isinstance(each, type) and isinstance(given, each)):
            return cure
    return ""


def ask(policy: Policy, failure: Failure) -> Any:
    """What the policy puts in the place of the item.

    Raises:
        TypeError: It has returned a coroutine, which nobody would await.
    """
    value = policy(failure)
    if issubclass(type(value), Coroutine):
        value.close()
        raise TypeError("on_error returned a coroutine: a policy is not awaited, so make it a plain function")
    return value


def _name_of(policy: Policy) -> str | None:
    return next((name for name, each in NAMED.items() if each is policy), None)


def never_retries(policy: Policy) -> bool:
    """Whether it is known that the policy, when it is asked in turn, won't return a `Retry`."""
    if isinstance(policy, _Sentinel):
        return policy.factory is None and not isinstance(policy.value, Retry)
    return _name_of(policy) is not None


def discards_errors(policy: Policy) -> bool:
    """Whether nobody can see the error of an item for which the policy decides."""
    return _name_of(policy) == "skip" or (isinstance(policy, _Sentinel) and never_retries(policy))


_MISSING: Final = object()


class _Sentinel:
    """``sentinel(value)``, or ``sentinel(factory=factory)``."""

    __slots__ = ("factory", "value")

    def __init__(self, value: Any, factory: Callable[[Failure], Any] | None) -> None:
        self.value = value
        self.factory = factory

    def __call__(self, failure: Failure) -> Any:
        return self.value if self.factory is None else self.factory(failure)

    def __repr__(self) -> str:
        return f"sentinel({self.value!r})" if self.factory is None else f"sentinel(factory={self.factory!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (sentinel, (self.value,)) if self.factory is None else (partial(sentinel, factory=self.factory), ())


@overload
def sentinel(value: T) -> Callable[[Failure], T]: ...
@overload
def sentinel(*, factory: Callable[[Failure], T]) -> Callable[[Failure], T]: ...
def sentinel(value: Any = _MISSING, *, factory: Any = None) -> Callable[[Failure], Any]:
    """A policy that delivers a value in the place of an item that failed.

    >>> import inturn
    >>> list(inturn.ordered_map(lambda x: 1 / x, [1, 0, 2], on_error=inturn.sentinel(None)))
    [1.0, None, 0.5]
    >>> list(inturn.ordered_map(lambda x: 1 / x, [0], on_error=inturn.sentinel(factory=lambda f: f.index)))
    [0]

    Args:
        value: What is delivered, the same object each time.
        factory: Called with the `Failure` instead; what it returns is delivered.
    """
    if (value is _MISSING) == (factory is None):
        raise TypeError("sentinel takes either a value or factory=, one of the two")
    checks.callable_or_none("factory", factory)
    checks.plain("factory", factory, "what it returns takes the item's place")
    return _Sentinel(value, factory)


class RetryPolicy(Generic[S_co]):
    """What `retry` returns."""

    def __init__(self, **settings: Any) -> None:
        self.attempts: int = settings["attempts"]
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
        return {name: _name_of(value) or value for name, value in values.items() if value != _DEFAULTS[name]}

    def __repr__(self) -> str:
        return f"retry({', '.join(f'{name}={_code(value)}' for name, value in self._changed().items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(retry, **self._changed()), ()

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
                seconds = self.pause(failure.attempt)
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


def decision_of(policy: Policy) -> Decide:
    """What can be decided as soon as a failure is noticed."""
    if isinstance(policy, RetryPolicy):
        return policy.decide
    decision = ENDS if policy is RAISE or policy is ABORT else LATER
    return lambda failure: decision


def in_turn(policy: Policy) -> Policy:
    """The policy that is asked in the item's turn, for what was not decided early."""
    while isinstance(policy, RetryPolicy):
        policy = policy.then
    return policy


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
    if isinstance(on, (type, tuple)) or not callable(on):
        each: Any
        for each in on if isinstance(on, tuple) else (on,):
            if not (isinstance(each, type) and issubclass(each, BaseException)):
                raise TypeError(f"on must be an exception class, a tuple of them, or a function, got {each!r}")
    for name, function in (("on", on), ("after", after), ("on_retry", on_retry)):
        if name != "on" and function is not None and not callable(function):
            raise TypeError(f"{name} must be a function of the Failure or None, got {function!r}")
        checks.plain(name, function, "it is asked as soon as a failure is noticed, and nobody would await it")
    return RetryPolicy(
        attempts=checks.count("attempts", attempts),
        on=on,
        backoff=checks.number("backoff", backoff),
        factor=checks.number("factor", factor, least=1.0, allowed="a number"),
        jitter=checks.flag("jitter", jitter),
        max_backoff=checks.number("max_backoff", max_backoff),
        after=after,
        on_retry=on_retry,
        then=resolve("then", then),
    )


_DEFAULTS: Final[dict[str, Any]] = vars(retry()) | {"attempts": None}  # which is always shown

_CURES: Final[list[tuple[object, str]]] = [
    (SKIP, ': a policy returns SKIP; write "skip"'),
    (Failure, ': write "return" to have the Failure delivered'),
    (Retry, ": a policy returns Retry(); write retry(), or lambda failure: Retry()"),
    (sentinel, ": call it, sentinel(value)"),
    (retry, ": call it, retry()"),
]
"""What to write in place of something that is no policy, though it looks like one."""
