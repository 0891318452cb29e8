"""Argument checks and defaults, once for all public functions.

A message names the argument, says what was received, and what is allowed. What users give may be any object at all,
also one that answers yes to every question (a mock, a proxy), so kinds are told by types and by what types have.
"""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from functools import partial
from itertools import starmap
from types import MethodType
from typing import Any, Final

__all__ = [
    "ASYNC",
    "ASYNC_GENERATOR",
    "GENERATOR",
    "async_result",
    "at_least_one",
    "callable_or_none",
    "count",
    "cpus",
    "flag",
    "function",
    "iterator",
    "iterators",
    "kind_of",
    "name_of",
    "no_others",
    "number",
    "plain",
    "seconds",
    "shown",
    "text",
    "total_of",
    "window_of",
]


ASYNC: Final = "an async function"
ASYNC_GENERATOR: Final = "an async generator function"
GENERATOR: Final = "a generator function"


def no_others(function: Callable[..., Any], unknown: dict[str, Any]) -> None:
    """Refuse options that the function does not have."""
    if unknown:
        from .unexpected import unexpected

        raise unexpected(function, unknown)


# ---- functions -----------------------------------------------------------------------------------


def function(fn: object, cures: dict[str, str]) -> None:
    """Refuse what cannot be called, and a kind of function (see `kind_of`) for which there is a cure."""
    if not callable(fn):
        cure = ": pass the function and its items, not what a call returns" if issubclass(type(fn), Coroutine) else ""
        raise TypeError(f"fn must be callable, got {shown(fn)}{cure}")
    kind = kind_of(fn)
    if kind in cures:
        raise TypeError(f"fn is {kind} ({fn!r}): {cures[kind]}")


def kind_of(fn: Any) -> str:
    """What a function is whose call does nothing yet, else an empty text."""
    flags = _flags(fn)
    if flags & 0x0080:  # CO_COROUTINE
        return ASYNC
    if flags & 0x0200:  # CO_ASYNC_GENERATOR
        return ASYNC_GENERATOR
    # CO_GENERATOR without CO_ITERABLE_COROUTINE: what `types.coroutine` makes can be awaited
    return GENERATOR if flags & 0x0120 == 0x0020 else ""


def plain(name: str, fn: object, why: str) -> None:
    """Refuse a function whose call does nothing yet."""
    kind = kind_of(fn)
    if kind:
        raise TypeError(f"{name} must be a plain function, got {kind}: {fn!r}; {why}")


def _flags(fn: Any) -> int:
    """The flags of the code that a call runs, as far as they can be seen; without importing inspect."""
    while isinstance(fn, (partial, MethodType)):
        fn = fn.func if isinstance(fn, partial) else fn.__func__
    each: Any
    for each in (fn, getattr(type(fn), "__call__", None)):  # noqa: B004 - its code is wanted
        if hasattr(type(each), "__code__"):  # functions, also compiled ones
            flags: int = each.__code__.co_flags
            return flags
    return 0


def name_of(fn: object) -> str:
    """What messages and a run's ``repr`` call it."""
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) and name else type(fn).__name__


def async_result(result: object) -> str | None:
    """The function to use instead where ``fn`` has returned what only an event loop can run."""
    if issubclass(type(result), Coroutine):
        return "ordered_amap"
    return "ordered_aflat_map" if issubclass(type(result), AsyncGenerator) else None


# ---- sources -------------------------------------------------------------------------------------


def iterators(sources: tuple[Iterable[Any], ...], *, strict: bool) -> Iterator[Any]:
    """One iterator over the items: ``iter()`` of each source is taken here and now."""
    if not sources:
        raise TypeError("no iterable given: at least one is needed after fn")
    each: list[Iterator[Any]] = []
    for source in sources:
        each.append(iterator(source, len(each), len(sources), may_be_async=False))
    if len(each) == 1:
        return each[0]
    # Not bare `zip`: it keeps the tuple that it has handed out last.
    return starmap(_together, zip(*each, strict=True)) if strict else map(_together, *each)


def iterator(source: Any, position: int, sources: int, *, may_be_async: bool = True) -> Any:
    """The iterator of a source."""
    if may_be_async and _has(source, "__aiter__"):
        return aiter(source)
    try:
        return iter(source)
    except TypeError:
        if _has(source, "__iter__"):
            raise  # an error of its own
        what = "iterable or async iterable" if may_be_async else "iterable"
        where = "the source" if sources == 1 else f"source {position + 1}"
        cure = "; for an async iterable use ordered_amap" if _has(source, "__aiter__") else ""
        raise TypeError(f"{where} must be {what}, got {shown(source)}{cure}") from None


def _has(value: object, name: str) -> bool:
    return getattr(type(value), name, None) is not None  # None says that the class has it not


def _together(*items: Any) -> tuple[Any, ...]:
    return items


def total_of(sources: tuple[Any, ...]) -> int | None:
    """How many items there will be, as far as the sources say: for progress only, because they may be wrong."""
    return min((hint for hint in map(_hint, sources) if hint >= 0), default=None)


def _hint(source: object) -> int:
    try:
        return operator.length_hint(source, -1)
    except Exception:  # a hint is a courtesy
        return -1


# ---- numbers and flags ---------------------------------------------------------------------------


def count(name: str, value: object, allowed: str = "an int", *, least: int = 1) -> int:
    """A whole number of at least `least`; any integer type will do (NumPy's, for example)."""
    if _truth(value) or not _has(value, "__index__"):
        raise TypeError(f"{name} must be {allowed}, got {shown(value)}")
    number = operator.index(value)  # type: ignore[arg-type]
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def at_least_one(name: str, value: object) -> int | None:
    return None if value is None else count(name, value, "an int or None")


def number(name: str, value: object, *, least: float = 0.0, allowed: str = "a number of seconds") -> float:
    """A finite number of at least `least`; any type that turns into a float will do (NumPy's, for example)."""
    given = _float(name, value, allowed)
    if not least <= given < math.inf:
        raise ValueError(f"{name} must be a finite number of at least {least:g}, got {value!r}")
    return given


def seconds(name: str, value: object) -> float | None:
    """A finite number above 0, or None."""
    if value is None:
        return None
    given = _float(name, value, "a number of seconds or None")
    if not 0 < given < math.inf:
        raise ValueError(f"{name} must be a finite number of seconds above 0, got {value!r}")
    return given


def _float(name: str, value: object, allowed: str) -> float:
    if not _truth(value) and (_has(value, "__float__") or _has(value, "__index__")):
        try:
            return float(value)  # type: ignore[arg-type]
        except OverflowError:
            return math.inf
        except (TypeError, ValueError):  # an array, for example
            pass
    cure = f": write {name}=value.total_seconds()" if _has(value, "total_seconds") else ""
    raise TypeError(f"{name} must be {allowed}, got {shown(value)}{cure}") from None


def _truth(value: object) -> bool:
    """Whether it is a truth value: Python's, or NumPy's, which turns into a float as well."""
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def shown(value: object) -> str:
    return f"{type(value).__name__}: {value!r}"


def callable_or_none(name: str, value: object, cure: str = "") -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable, got {shown(value)}{cure}")


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {shown(value)}")
    return value


def text(name: str, value: object) -> str | None:
    """A text that is not empty, or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a str or None, got {shown(value)}")
    if value == "":
        raise ValueError(f"{name} must not be empty: leave it out, or pass None")
    return value


def window_of(window: object, chunksize: int | None) -> int | None:
    number = at_least_one("window", window)
    if number is not None and chunksize is not None and number < chunksize:
        raise ValueError(f"window must be at least chunksize={chunksize}, got {number}: a chunk must fit into it")
    return number


def cpus() -> int:
    """The CPUs available to this process."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
