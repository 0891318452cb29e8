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
from types import MethodType
from typing import Any, Final

__all__ = [
    "ASYNC",
    "ASYNC_GENERATOR",
    "GENERATOR",
    "async_function",
    "async_generator_function",
    "async_result",
    "at_least_one",
    "concurrency_of",
    "count",
    "cpus",
    "flag",
    "function",
    "generator_function",
    "iterator",
    "iterators",
    "kind_of",
    "name_of",
    "no_others",
    "number",
    "seconds",
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
        raise TypeError(f"fn must be callable, got {_shown(fn)}{cure}")
    kind = kind_of(fn)
    if kind in cures:
        raise TypeError(f"fn is {kind} ({fn!r}): {cures[kind]}")


def kind_of(fn: Any) -> str:
    """What a function is whose call does nothing yet, else an empty text."""
    if async_function(fn):
        return ASYNC
    if async_generator_function(fn):
        return ASYNC_GENERATOR
    return GENERATOR if generator_function(fn) else ""


def async_function(fn: Any) -> bool:
    """Whether a call of it returns a coroutine."""
    return bool(_flags(fn) & 0x0080)  # CO_COROUTINE


def async_generator_function(fn: Any) -> bool:
    """Whether a call of it returns an async generator."""
    return bool(_flags(fn) & 0x0200)  # CO_ASYNC_GENERATOR


def generator_function(fn: Any) -> bool:
    """Whether a call of it returns a generator; one that can be awaited (`types.coroutine`) does not count."""
    return _flags(fn) & 0x0120 == 0x0020  # CO_GENERATOR without CO_ITERABLE_COROUTINE


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
        each.append(_iterator(source, len(each), len(sources)))
    if len(each) == 1:
        return each[0]
    # Not bare `zip`: it keeps the tuple that it has handed out last.
    return map(_copied, zip(*each, strict=True)) if strict else map(_together, *each)


def iterator(source: Any, position: int, sources: int) -> Any:
    """The iterator of a source that may be async."""
    if _has(source, "__aiter__"):
        return aiter(source)
    return _iterator(source, position, sources, "iterable or async iterable")


def _iterator(source: Any, position: int, sources: int, what: str = "iterable") -> Iterator[Any]:
    try:
        return iter(source)
    except TypeError:
        if _has(source, "__iter__"):
            raise  # an error of its own
        where = "the source" if sources == 1 else f"source {position + 1}"
        cure = "; for an async iterable use ordered_amap" if _has(source, "__aiter__") else ""
        raise TypeError(f"{where} must be {what}, got {_shown(source)}{cure}") from None


def _has(value: object, name: str) -> bool:
    return getattr(type(value), name, None) is not None  # None says that the class has it not


def _copied(items: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*items,)


def _together(*items: Any) -> tuple[Any, ...]:
    return items


def total_of(sources: tuple[Any, ...]) -> int | None:
    """How many items there will be, as far as the sources say: for progress only, because they may be wrong."""
    hints = [hint for hint in map(_hint, sources) if hint is not None]
    return min(hints, default=None)


def _hint(source: object) -> int | None:
    try:
        hint = operator.length_hint(source, -1)
    except Exception:  # a hint is a courtesy
        return None
    return None if hint < 0 else hint


# ---- numbers and flags ---------------------------------------------------------------------------


def count(name: str, value: object, allowed: str = "an int", *, least: int = 1) -> int:
    """A whole number of at least `least`; any integer type will do (NumPy's, for example)."""
    if _truth(value) or not _has(value, "__index__"):
        raise TypeError(f"{name} must be {allowed}, got {_shown(value)}")
    number = operator.index(value)  # type: ignore[arg-type]
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def at_least_one(name: str, value: object) -> int | None:
    return None if value is None else count(name, value, "an int or None")


def number(name: str, value: object, *, least: float = 0.0, allowed: str = "a number of seconds") -> float:
    """A finite number of at least `least`; any type that turns into a float will do (NumPy's, for example)."""
    given = _float(name, value, allowed)
    if not (given >= least and math.isfinite(given)):
        raise ValueError(f"{name} must be a finite number of at least {least:g}, got {value!r}")
    return given


def seconds(name: str, value: object) -> float | None:
    """A finite number above 0, or None."""
    if value is None:
        return None
    given = _float(name, value, "a number of seconds or None")
    if not (given > 0 and math.isfinite(given)):
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
    raise TypeError(f"{name} must be {allowed}, got {_shown(value)}{cure}") from None


def _truth(value: object) -> bool:
    """Whether it is a truth value: Python's, or NumPy's, which turns into a float as well."""
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def _shown(value: object) -> str:
    return f"{type(value).__name__}: {value!r}"


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {_shown(value)}")
    return value


def text(name: str, value: object) -> str | None:
    """A text that is not empty, or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a str or None, got {_shown(value)}")
    if value == "":
        raise ValueError(f"{name} must not be empty: leave it out, or pass None")
    return value


def window_of(window: object, chunksize: int | None) -> int | None:
    number = at_least_one("window", window)
    if number is not None and chunksize is not None and number < chunksize:
        raise ValueError(f"window must be at least chunksize={chunksize}, got {number}: a chunk must fit into it")
    return number


def concurrency_of(given: object, default: Callable[[], int]) -> int:
    """What was given is kept as it is, whatever length the sources claim: workers start as items need them."""
    number = at_least_one("concurrency", given)
    return default() if number is None else number


def cpus() -> int:
    """The CPUs available to this process."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
