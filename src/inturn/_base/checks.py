"""Argument checks and defaults, once for all public functions.

A message names the argument, says what was received, and what is allowed.
"""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = [
    "async_function",
    "async_generator_function",
    "at_least_one",
    "buffer_of",
    "concurrency_of",
    "cpus",
    "function",
    "iterators",
    "known_length",
    "seconds",
    "total_of",
    "window_of",
]


def function(fn: object) -> None:
    if not callable(fn):
        raise TypeError(f"fn must be callable, got {type(fn).__name__}: {fn!r}")


def async_function(fn: Any) -> bool:
    """Whether a call of it returns a coroutine."""
    return _has_flag(fn, 0x0080)  # CO_COROUTINE


def async_generator_function(fn: Any) -> bool:
    """Whether a call of it returns an async generator."""
    return _has_flag(fn, 0x0200)  # CO_ASYNC_GENERATOR


def _has_flag(fn: Any, flag: int) -> bool:
    """Told without importing inspect."""
    while hasattr(fn, "func") and hasattr(fn, "keywords"):  # functools.partial
        fn = fn.func
    called = getattr(type(fn), "__call__", None)  # noqa: B004 - its code is wanted
    for each in (fn, getattr(fn, "__func__", None), called):
        code = getattr(each, "__code__", None)
        if code is not None and code.co_flags & flag:
            return True
    return False


def iterators(sources: tuple[Iterable[Any], ...], *, strict: bool) -> Iterator[Any]:
    """One iterator over the items: ``iter()`` of each source is taken here and now."""
    if not sources:
        raise TypeError("no iterable given: at least one is needed after fn")
    each: list[Iterator[Any]] = []
    for position, source in enumerate(sources, 1):
        try:
            each.append(iter(source))
        except TypeError:
            where = "the source" if len(sources) == 1 else f"source {position}"
            cure = "; for an async iterable use ordered_amap" if hasattr(source, "__aiter__") else ""
            raise TypeError(f"{where} must be iterable, got {type(source).__name__}: {source!r}{cure}") from None
    if len(each) == 1:
        return each[0]
    # Not bare `zip`: it keeps the tuple that it has handed out last.
    return map(_copied, zip(*each, strict=True)) if strict else map(_together, *each)


def _copied(items: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*items,)


def _together(*items: Any) -> tuple[Any, ...]:
    return items


def total_of(sources: tuple[Any, ...]) -> int | None:
    """How many items there will be, as far as the sources say."""
    hints = [hint for hint in map(_hint, sources) if hint is not None]
    return min(hints, default=None)


def _hint(source: object) -> int | None:
    try:
        hint = operator.length_hint(source, -1)
    except Exception:  # a hint is a courtesy
        return None
    return None if hint < 0 else hint


def known_length(sources: tuple[Any, ...]) -> int | None:
    """How many items there are, where a source knows for certain."""
    lengths = []
    for source in sources:
        try:
            lengths.append(len(source))
        except Exception:
            continue
    return min(lengths, default=None)


def at_least_one(name: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} must be an int or None, got {type(value).__name__}: {value!r}")
    number = operator.index(value)  # type: ignore[arg-type]
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
    return number


def seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(type(value), "__float__"):
        raise TypeError(f"{name} must be a number of seconds or None, got {type(value).__name__}: {value!r}")
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be a finite number of seconds above 0, got {value!r}")
    return number


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {type(value).__name__}: {value!r}")
    return value


def window_of(window: object, chunksize: int | None) -> int | None:
    number = at_least_one("window", window)
    if number is not None and chunksize is not None and number < chunksize:
        raise ValueError(f"window must be at least chunksize={chunksize}, got {number}: a chunk must fit into it")
    return number


def buffer_of(buffer: object) -> int:
    number = at_least_one("buffer", buffer)
    if number is None:
        raise TypeError("buffer must be an int, got None")
    return number


def cpus() -> int:
    """The CPUs available to this process."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def concurrency_of(given: object, default: Callable[[], int], length: int | None) -> int:
    number = at_least_one("concurrency", given)
    if number is None:
        number = default()
    return number if length is None else max(1, min(number, length))
