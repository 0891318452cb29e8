"""What is pickled by name: objects that the receiver can import. Reducers are applied, too."""

from __future__ import annotations

import copyreg
import enum
import pickle
from collections.abc import Callable
from typing import Any, Final

__all__ = ["PROTOCOL", "Call", "Main", "Pickler", "registered"]

PROTOCOL: Final = pickle.HIGHEST_PROTOCOL


class Main(enum.Enum):
    """What the receiver knows of our module ``__main__``: how its objects are to be pickled."""

    SAME = "it has the module: objects are pickled by name"
    OWN_WORKER = "a worker process of ours without it: by value, functions share one namespace"
    LACKING = "the worker of another library without it: by value, a namespace for each pickle"


class Call:
    """When it is unpickled, it is what this call returns."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


class Pickler(pickle.Pickler):
    """Applies the reducers that are `registered`."""


_usual: Final = copyreg.dispatch_table
_extra: Any = None  # the reducers of `multiprocessing`, imported when first needed
_count = -1


def registered() -> dict[type, Callable[[Any], Any]]:
    """The reducers of `copyreg` and those of `multiprocessing` (for sockets, connections, …).

    They are merged again only when a table has grown; `ForkingPickler` merges for each object.
    """
    global _extra, _count
    if _extra is None:
        from multiprocessing import connection, reduction

        del connection  # imported only because it registers reducers
        _extra = reduction.ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    count = len(_extra) + len(_usual)
    if count != _count:
        Pickler.dispatch_table = {**_usual, **_extra}
        _count = count
    return Pickler.dispatch_table  # type: ignore[return-value]
