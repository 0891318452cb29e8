"""What ``fn`` of a flat map returns, wherever it was called: its elements, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inturn._base.signals import landed_here
from inturn._model.outcome import shorten

__all__ = ["aclose", "close", "elements_of"]


def elements_of(result: Any) -> Iterator[Any]:
    try:
        return iter(result)
    except TypeError:
        if hasattr(type(result), "__iter__"):
            raise  # an error of its own
        cure = "return [x] for a single element, [] for none, or use ordered_map"
        if hasattr(type(result), "__aiter__") or hasattr(type(result), "__await__"):
            cure = "for an async function use ordered_aflat_map"
        text = f"fn must return an iterable, got {type(result).__name__}: {shorten(result)}; {cure}"
        if hasattr(type(result), "__await__"):
            close(result)  # a coroutine that nobody awaits would warn
        raise TypeError(text) from None


def close(iterator: Any) -> None:
    """Close a generator, or what can be closed like one; what it raises then is nobody's any more."""
    try:
        iterator.close()
    except BaseException as error:  # dropped, as for calls that end after the run
        if landed_here(error):
            raise


async def aclose(iterator: Any) -> None:
    """Close an async generator, or what can be closed like one, in the same way; anything else is left alone."""
    if hasattr(iterator, "aclose"):
        try:
            await iterator.aclose()
        except Exception as error:
            if landed_here(error):
                raise
