"""Functions that worker processes can import: what tests run that every driver must pass."""

import os
import time
from typing import Any


class Oops(Exception):
    """An error that nothing else raises."""


def double(x: int) -> int:
    return 2 * x


def add(x: int, y: int) -> int:
    return x + y


def same(x: Any) -> Any:
    return x


def pair(*args: Any) -> tuple[Any, ...]:
    return args


def first(*args: Any) -> Any:
    return args[0]


def fail_at(bad: frozenset[int], x: int) -> int:
    if x in bad:
        raise Oops(f"no {x}")
    return 2 * x


def raise_it(error: BaseException | None) -> None:
    if error is not None:
        raise error


def stop_at(bad: int, x: int) -> int:
    if x == bad:
        raise StopIteration("from fn")
    return x


def exit_at(bad: int, x: int) -> int:
    if x == bad:
        raise SystemExit(3)
    return x


def interrupt_at(bad: int, x: int) -> int:
    if x == bad:
        raise KeyboardInterrupt("from fn")
    return x


class Falsy(Exception):
    """An error that is false."""

    def __bool__(self) -> bool:
        return False


class Empty(Exception):
    """An error that is empty."""

    def __len__(self) -> int:
        return 0


class RefusesNotes(Exception):
    def add_note(self, note: str, /) -> None:
        raise RuntimeError("no notes here")


class Frozen(Exception):
    """Nothing can be set on it, so nothing can be noted."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("frozen")


class OddNotes(Exception):
    """`add_note` of the base class refuses, because `__notes__` is no list."""

    __notes__ = "not a list"


class Remade(Exception):
    """Raised anew where it is unpickled, as tblib has every error do."""

    def __reduce__(self) -> Any:
        return remade, ()


def remade() -> Remade:
    try:
        raise Remade
    except Remade as error:
        return error


def raise_remade(x: object) -> None:
    raise Remade


def raise_because_of_remade(x: object) -> None:
    raise Oops from remade()


def raise_group_of_remade(x: object) -> None:
    raise ExceptionGroup("a group", [remade()])


class Unreadable:
    """A result that can be pickled, and not unpickled."""

    def __init__(self, x: object) -> None: ...

    def __reduce__(self) -> Any:
        return raise_remade, (0,)


class Table:
    """Like a table of pandas: its repr has several lines, and a comparison has no answer."""

    def __repr__(self) -> str:
        return "   a  b\n" + "".join(f"{row}  {row}  {row}\n" for row in range(60))

    def __eq__(self, other: object) -> Any:
        return Table()

    def __bool__(self) -> bool:
        raise ValueError("the truth value of a table is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Prickly:
    """An item that cannot be compared, hashed, measured, shown, copied or tested for truth, only handed on."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("do not touch")

    __eq__ = __ne__ = __lt__ = __bool__ = __len__ = __repr__ = __sizeof__ = __iter__ = __copy__ = _refuse
    __hash__ = _refuse


def sleeping(seconds: float, i: Any = None) -> Any:
    time.sleep(seconds)
    return i


def slow_pid(i: Any) -> int:
    time.sleep(0.05)
    return os.getpid()


def meeting(directory, count, i):
    """Returns when so many calls have begun."""
    with open(f"{directory}/{i}", "w"):
        pass
    while len(os.listdir(directory)) < count:
        time.sleep(0.001)
    return i
