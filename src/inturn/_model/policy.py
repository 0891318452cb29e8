"""Error policies: functions that get a `Failure` and return what takes the item's place.

A policy runs in the consumer's thread when the item's turn comes, after all results before it. Two things are known
earlier, by whoever notices the failure, and are asked of a policy through `decide`:

- that the item will run again (`retry` only: so that pauses of several items overlap), and
- that the run will end here (``"raise"`` and ``"abort"``: so that nothing later is started).

``decide(failure)`` returns a `Retry`, `ENDS`, or `LATER`; it must not block and may be called in any thread.

A function of the user's cannot be asked earlier, though an answer `Retry` would be welcome then: it may count on the
thread of the consumer, on the order of the failures, and on all results before them having been delivered. Even
among complete items the order would be another one: what runs again fails for the second time after what is behind it
has failed for the first. So functions for `retry` are apart: ``on``, ``after`` and ``on_retry`` promise none of that.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar, overload

from inturn._base import checks

from .outcome import Failure

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    S = TypeVarWithDefault("S", default=NoReturn)
    """What a policy delivers in the place of an item: nothing, as long as no policy says so."""
    Named = Literal["raise", "abort", "skip"]
    OnError = Named | Callable[[Failure], "S | Skip | Retry"]

__all__ = [
    "ABORT",
    "CURES",
    "ENDS",
    "LATER",
    "RAISE",
    "SKIP",
    "Decide",
    "Decision",
    "Early",
    "Policy",
    "Retry",
    "Skip",
    "ask",
    "check_plain",
    "decision_of",
    "discards_errors",
    "in_turn",
    "name_of",
    "never_retries",
    "resolve",
    "sentinel",
]

T = TypeVar("T")


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


def _abort(failure: Failure) -> NoReturn:
    _raise(failure)


def _skip(failure: Failure) -> Skip:
    return SKIP


def _return(failure: Failure) -> Failure:
    return failure


RAISE: Final = _raise
ABORT: Final = _abort
NAMED: Final[dict[str, Policy]] = {"raise": RAISE, "abort": ABORT, "skip": _skip, "return": _return}

CURES: Final[list[tuple[object, str]]] = [
    (SKIP, ': a policy returns SKIP; write "skip"'),
    (Failure, ': write "return" to have the Failure delivered'),
    (Retry, ": a policy returns Retry(); write retry(), or lambda failure: Retry()"),
]
"""What to write in place of something that is no policy, though it looks like one."""


def resolve(argument: str, given: object) -> Policy:
    """The policy that an ``on_error`` or ``then`` argument stands for."""
    if isinstance(given, str) and given in NAMED:
        return NAMED[given]
    if not callable(given):
        allowed = f"{argument} must be one of {', '.join(map(repr, NAMED))} or a callable"
        if isinstance(given, str):
            raise ValueError(f"{allowed}, got {given!r}")
        raise TypeError(f"{allowed}, got {type(given).__name__}: {given!r}{_cure(given)}")
    cure = _cure(given)
    if cure:
        raise TypeError(f"{argument}={getattr(given, '__name__', given)} cannot be a policy{cure}")
    check_plain(argument, given, "it is called in the consumer's thread, and what it returns takes the item's place")
    return given


def _cure(given: Any) -> str:
    if isinstance(given, Retry):
        given = Retry
    if isinstance(given, type) and issubclass(given, BaseException):
        return f": write retry(on={given.__name__}), or a function of the Failure that looks at failure.error"
    return next((cure for each, cure in CURES if each is given), "")


def check_plain(argument: str, function: Callable[..., Any], why: str) -> None:
    """Refuse a function whose call does nothing yet."""
    kind = checks.kind_of(function)
    if kind:
        raise TypeError(f"{argument} must be a plain function, got {kind}: {function!r}; {why}")


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


class Early:
    """A policy that decides some failures as soon as they are noticed, and leaves the others to the policy `then`."""

    then: Policy

    def decide(self, failure: Failure) -> Retry | Decision:
        raise NotImplementedError

    def __call__(self, failure: Failure) -> Any:
        raise NotImplementedError


def decision_of(policy: Policy) -> Decide:
    """What can be decided as soon as a failure is noticed."""
    if isinstance(policy, Early):
        return policy.decide
    if policy is RAISE or policy is ABORT:
        return _ends
    return _later


def in_turn(policy: Policy) -> Policy:
    """The policy that is asked in the item's turn, for what was not decided early."""
    while isinstance(policy, Early):
        policy = policy.then
    return policy


def _ends(failure: Failure) -> Decision:
    return ENDS


def _later(failure: Failure) -> Decision:
    return LATER


def name_of(policy: Policy) -> str | None:
    return next((name for name, each in NAMED.items() if each is policy), None)


def never_retries(policy: Policy) -> bool:
    """Whether it is known that the policy, when it is asked in turn, won't return a `Retry`."""
    if isinstance(policy, _Always):
        return not isinstance(policy.value, Retry)
    return any(policy is each for each in NAMED.values())


def discards_errors(policy: Policy) -> bool:
    """Whether nobody can see the error of an item for which the policy decides."""
    return policy is _skip or (isinstance(policy, _Always) and never_retries(policy))


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
    check_plain("factory", factory, "what it returns takes the item's place")
    return _Made(factory)


CURES.append((sentinel, ": call it, sentinel(value)"))
