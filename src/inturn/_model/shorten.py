"""One short line that shows any object: for notes, for the repr of a `Failure`, and for messages.

Of large containers only a few members are shown, and asked for. Which method makes the repr is looked up on the type,
so that nothing is asked of the object but its repr.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

__all__ = ["one_line", "shorten"]

_WIDTH: Final = 60  # characters
_MEMBERS: Final = 6  # of a container
_LEVELS: Final = 3  # of containers within containers
_BRACKETS: Final[dict[Any, str]] = {list: "[]", tuple: "()", set: "{}", frozenset: "{}", dict: "{}", deque: "[]"}
_BARE: Final = (list, tuple, dict)  # written without the name of their class
_SLICED: Final[tuple[Any, ...]] = (str.__repr__, bytes.__repr__, bytearray.__repr__)


def shorten(item: object, width: int = _WIDTH) -> str:
    """Return one line of at most ``width`` characters that shows the item.

    It never raises: an item whose repr fails is shown by the name of its class.
    """
    return one_line(_repr(item, _LEVELS), width)


def one_line(text: str, width: int) -> str:
    """Return the text in one line; the middle of a long one is left out."""
    if len(text) > 10 * width:
        text = f"{text[: 5 * width]}...{text[-5 * width :]}"
    if len(text.splitlines()) > 1:
        text = " ".join(text.split())  # the columns of a table mean nothing in one line
    if len(text) <= width:
        return text
    head = (width - 3) // 2
    return f"{text[:head]}...{text[head + 3 - width :]}"


def _repr(item: Any, levels: int) -> str:
    kind = type(item)
    try:
        if kind.__repr__ in _SLICED or kind.__module__ == "array":
            return _repr_of_sequence(item)
        for base, brackets in _BRACKETS.items():
            if kind.__repr__ == base.__repr__:  # a subclass with a repr of its own keeps that
                members = dict.items(item) if base is dict else base.__iter__(item)
                text = _repr_of_members(members, brackets, levels, pairs=base is dict)
                return text if kind in _BARE or (kind is set and item) else f"{kind.__name__}({text})"
        return repr(item)
    except Exception:
        return f"<{kind.__name__} without repr>"


def _repr_of_sequence(item: Any) -> str:
    """A text, bytes, or an array of numbers: most of a long one is left out before its repr is made."""
    if len(item) <= _WIDTH:
        return repr(item)
    if isinstance(item, str):
        return repr(item[:_WIDTH] + item[-_WIDTH:])
    return f"{item[: _WIDTH // 3]!r}... (length {len(item)})"


def _repr_of_members(members: Iterable[Any], brackets: str, levels: int, *, pairs: bool) -> str:
    shown: list[str] = []
    for member in members:
        if len(shown) == _MEMBERS or levels == 0 or sum(map(len, shown)) > _WIDTH:
            shown.append("...")
            break
        shown.append(": ".join(_repr(each, levels - 1) for each in (member if pairs else (member,))))
    comma = "," if brackets == "()" and len(shown) == 1 else ""
    return f"{brackets[0]}{', '.join(shown)}{comma}{brackets[1]}"
