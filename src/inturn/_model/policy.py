"""Error policies: functions that get a `Failure` and return what takes the item's place.

A policy runs in the consumer's thread when the item's turn comes. Two things are known earlier, by
whoever notices the failure, and are asked of a policy through `decide`:

- that the item will run again (`retry` only: so that pauses of several items overlap), and
- that the run will end here (``"raise"``: so that nothing later is started).

``decide(failure)`` returns a `Retry`, `ENDS`, or `LATER`; it must not block and may be called in any thread.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, TypeVar, overload

from inturn._base import checks

from .outcome import Failure

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    S = TypeVarWithDefault("S", default=NoReturn)
    """What a policy delivers in the place of an item: nothing, as long as no policy says so."""
    Named = Literal["raise", "skip"]
    OnError = Named | Callable[[Failure], "S | Skip | Retry"]

__all__ = [
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
    "resolve",
    "retry",
    "sentinel",
]

T = TypeVar("T")
S_co = TypeVar("S_co", covariant=True)


class Skip(enum.Enum):
    """The type of `SKIP`."""

    SKIP = "SKIP"

    def __repr__(self) -> str:
        return "SKIP"

    def __reduce_ex__(self, protocol: object) -> Any:
        return "SKIP"  # of `inturn`, by name


SKIP: Final = Skip.SKIP
"""What an error policy returns to leave the item out. From ``fn`` it is an ordinary value."""


class Retry:
    """What an error policy returns to have the item run again, ``after`` seconds from now.

    >>> def patient(failure):
    ...     return Retry(after=0.5) if failure.attempt < 5 else SKIP
    """

    __slots__ = ("after",)

    def __init__(self, after: float = 0.0) -> None:
        self.after: float = checks.number("after", after)

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


def _skip(failure: Failure) -> Skip:
    return SKIP


def _return(failure: Failure) -> Failure:
    return failure


RAISE: Final = _raise
NAMED: Final[dict[str, Policy]] = {"raise": RAISE, "skip": _skip, "return": _return}


def resolve(argument: str, given: object) -> Policy:
    """The policy that an ``on_error`` or ``then`` argument stands for."""
    if isinstance(given, str):
        if given not in NAMED:
            names = ", ".join(repr(name) for name in NAMED)
            raise ValueError(f"{argument} must be one of {names} or a callable, got {given!r}")
        return NAMED[given]
    if not callable(given):
        raise TypeError(f"{argument} must be a name or a callable, got {type(given).__name__}: {given!r}{_cure(given)}")
    cure = _cure(given)
    if cure:
        raise TypeError(f"{argument}={getattr(given, '__name__', given)} cannot be a policy{cure}")
    _check_plain(argument, given)
    return given


def _cure(given: Any) -> str:
    """What to write in place of something that is no policy, though it looks like one."""
    if given is retry:
        return ": call it, retry()"
    if given is sentinel:
        return ": call it, sentinel(value)"
    if given is Retry or isinstance(given, Retry):
        return ": a policy returns Retry(); write retry(), or lambda failure: Retry()"
    if given is SKIP:
        return ': a policy returns SKIP; write "skip"'
    if given is Failure:
        return ': write "return" to have the Failure delivered'
    if isinstance(given, type) and issubclass(given, BaseException):
        return f": write retry(on={given.__name__}), or a function of the Failure that looks at failure.error"
    return ""


def _check_plain(argument: str, function: Callable[..., Any]) -> None:
    """Refuse a function whose call does nothing yet."""
    kind = checks.kind_of(function)
    if kind:
        raise TypeError(
            f"{argument} must be a plain function, got {kind}: {function!r}; it is called in the consumer's thread, "
            "and what it returns takes the item's place"
        )


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


def decision_of(policy: Policy) -> Decide:
    """What can be decided as soon as a failure is noticed."""
    if isinstance(policy, RetryPolicy):
        return policy.decide
    if policy is RAISE:
        return _ends
    return _later


def _ends(failure: Failure) -> Decision:
    return ENDS


def _later(failure: Failure) -> Decision:
    return LATER


class RetryPolicy(Generic[S_co]):
    """What `retry` returns."""

    def __init__(
        self,
        attempts: int,
        on: type[BaseException] | tuple[type[BaseException], ...],
        backoff: float,
        factor: float,
        jitter: bool,
        max_backoff: float,
        then: Policy,
    ) -> None:
        self.attempts: int = attempts
        self.on: type[BaseException] | tuple[type[BaseException], ...] = on
        self.backoff: float = backoff
        self.factor: float = factor
        self.jitter: bool = jitter
        self.max_backoff: float = max_backoff
        self.then: Policy = then

    def __repr__(self) -> str:
        given = [f"attempts={self.attempts}"]
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                given.append(f"{name}={_code(value)}")
        return f"retry({', '.join(given)})"

    def __reduce__(self) -> tuple[Any, ...]:
        then = _name_of(self.then) or self.then
        return retry, (self.attempts, self.on, self.backoff, self.factor, self.jitter, self.max_backoff, then)

    def pause(self, attempt: int) -> float:
        """Seconds to wait after the failure of this attempt."""
        try:
            pause = min(self.backoff * self.factor ** (attempt - 1), self.max_backoff)
        except OverflowError:
            pause = self.max_backoff if self.backoff else 0.0
        if not self.jitter:
            return pause
        from random import uniform  # not at the top: `import inturn` stays light

        return pause * uniform(0.5, 1.0)

    def decide(self, failure: Failure) -> Retry | Decision:
        if isinstance(failure.error, self.on) and failure.attempt < self.attempts:
            return Retry(self.pause(failure.attempt))
        return decision_of(self.then)(failure)

    def __call__(self, failure: Failure) -> S_co | Skip | Retry:
        decided = self.decide(failure)
        return decided if isinstance(decided, Retry) else self.then(failure)


def _name_of(policy: Policy) -> str | None:
    return next((name for name, each in NAMED.items() if each is policy), None)


def _code(value: Any) -> str:
    """A repr that is the code which makes the value, as far as there is one."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_code, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, type):
        return value.__qualname__
    return repr(_name_of(value) or value)


def never_retries(policy: Policy) -> bool:
    """Whether it is known that the policy, when it is asked in turn, won't return a `Retry`."""
    if isinstance(policy, RetryPolicy):
        return never_retries(policy.then)
    if isinstance(policy, _Always):
        return not isinstance(policy.value, Retry)
    return any(policy is each for each in NAMED.values())


def discards_errors(policy: Policy) -> bool:
    """Whether nobody can see the error of an item for which the policy decides."""
    if isinstance(policy, RetryPolicy):
        return discards_errors(policy.then)
    return policy is _skip or (isinstance(policy, _Always) and never_retries(policy))


@overload
def retry(
    attempts: int = ...,
    on: type[BaseException] | tuple[type[BaseException], ...] = ...,
    backoff: float = ...,
    factor: float = ...,
    jitter: bool = ...,
    max_backoff: float = ...,
    then: Named = ...,
) -> RetryPolicy[NoReturn]: ...
@overload
def retry(
    attempts: int = ...,
    on: type[BaseException] | tuple[type[BaseException], ...] = ...,
    backoff: float = ...,
    factor: float = ...,
    jitter: bool = ...,
    max_backoff: float = ...,
    *,
    then: Callable[[Failure], T | Skip | Retry],
) -> RetryPolicy[T]: ...
@overload
def retry(
    attempts: int = ...,
    on: type[BaseException] | tuple[type[BaseException], ...] = ...,
    backoff: float = ...,
    factor: float = ...,
    jitter: bool = ...,
    max_backoff: float = ...,
    *,
    then: Literal["return"],
) -> RetryPolicy[Failure]: ...
def retry(
    attempts: int = 3,
    on: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    backoff: float = 0.1,
    factor: float = 2.0,
    jitter: bool = True,
    max_backoff: float = 60.0,
    then: Any = "raise",
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

    Args:
        attempts: Runs of an item in all, the first included; at least 1.
        on: The class, or the tuple of classes, of errors that are worth another attempt.
        backoff: Seconds before the second attempt; 0 for none.
        factor: What the pause is multiplied by after each further attempt; at least 1 (exponential back-off).
        jitter: Whether each pause is shortened at random, by up to half, so that items that failed
            together do not come back together.
        max_backoff: Seconds that no pause exceeds.
        then: The policy for what still fails, and for errors that are not ``on``.

    Raises:
        TypeError, ValueError: For arguments that cannot be meant, at the call.
    """
    classes = on if isinstance(on, tuple) else (on,)
    each: Any
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise TypeError(f"on must be an exception class or a tuple of them, got {each!r}")
    return RetryPolicy(
        checks.count("attempts", attempts),
        on,
        checks.number("backoff", backoff),
        checks.number("factor", factor, least=1.0, allowed="a number"),
        checks.flag("jitter", jitter),
        checks.number("max_backoff", max_backoff),
        resolve("then", then),
    )


_DEFAULTS: Final = {
    "on": Exception,
    "backoff": 0.1,
    "factor": 2.0,
    "jitter": True,
    "max_backoff": 60.0,
    "then": RAISE,
}
_MISSING: Final = object()


class _Always:
    """``sentinel(value)``."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, failure: Failure) -> Any:
        return self.value

    def __repr__(self) -> str:
        return f"sentinel({self.value!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return sentinel, (self.value,)


class _Made:
    """``sentinel(factory=factory)``."""

    __slots__ = ("factory",)

    def __init__(self, factory: Callable[[Failure], Any]) -> None:
        self.factory = factory

    def __call__(self, failure: Failure) -> Any:
        return self.factory(failure)

    def __repr__(self) -> str:
        return f"sentinel(factory={self.factory!r})"


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
    if factory is None:
        return _Always(value)
    if not callable(factory):
        raise TypeError(f"factory must be callable, got {type(factory).__name__}: {factory!r}")
    _check_plain("factory", factory)
    return _Made(factory)
