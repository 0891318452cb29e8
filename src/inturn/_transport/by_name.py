"""What travels by name: everything that the receiver can import, and whatever has a reducer."""

from __future__ import annotations

import copyreg
import enum
import pickle
from collections.abc import Callable
from typing import Any, Final

__all__ = ["PROTOCOL", "Main", "Pickler", "registered"]

PROTOCOL: Final = pickle.HIGHEST_PROTOCOL


class Main(enum.Enum):
    """What the receiver knows of this process's module ``__main__``, and so how what it defines travels."""

    SAME = "it has the module: everything that can be found there goes by name"
    OWN_WORKER = "a worker of ours without it: by value, and its functions share one namespace there, as they do here"
    LACKING = "a worker of somebody's without it: by value, each pickle with a namespace of its own"


class Pickler(pickle.Pickler):
    """Has the reducers that are `registered`."""


_usual: Final = copyreg.dispatch_table
_extra: Any = None  # those of `multiprocessing`, which is imported when first needed
_count = -1


def registered() -> dict[type, Callable[[Any], Any]]:
    """The reducers of `multiprocessing`, for sockets and the like, besides those of `copyreg`.

    `ForkingPickler` copies both for each object that it pickles.
    """
    global _extra, _count
    if _extra is None:
        from multiprocessing import connection, reduction

        del connection  # it was imported for the reducers that it registers
        _extra = reduction.ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    count = len(_extra) + len(_usual)
    if count != _count:
        Pickler.dispatch_table = {**_usual, **_extra}
        _count = count
    return Pickler.dispatch_table  # type: ignore[return-value]
