"""What is pickled by value, with cloudpickle: lambdas, closures, objects the receiver lacks.

The problem: cloudpickle pickles everything of ``__main__`` by value, and gives the functions of
each pickle a namespace of their own. In a worker that has the main module, this makes second copies
of its classes, and a lambda does not see what an initializer has assigned to a global variable. So
what is found in the main module is pickled by name if the receiver has the module, also inside a
closure. Other functions of the main module get the namespace of the receiver's main module, or one
stand-in for it in a worker of ours that has none. Names that exist there keep their values.

This module is imported only where cloudpickle is installed.
"""

from __future__ import annotations

import builtins
import io
import pickle
import sys
from collections import ChainMap
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final

import cloudpickle

from .by_name import PROTOCOL, Call, Main, registered

__all__ = ["dumps"]

_NAMES: Final = frozenset({"__main__", "__mp_main__"})

_stand_in: Final[dict[str, Any]] = {"__name__": "__main__"}
_arrived: Final[dict[str, Any]] = {}  # the values in the stand-in that came from pickles
_ABSENT: Final = object()


def dumps(thing: Any, main: Main, buffer_callback: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    file = io.BytesIO()
    _Pickler(file, main, buffer_callback).dump(thing)
    return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, main: Main, buffer_callback: Any) -> None:
        super().__init__(file, PROTOCOL, buffer_callback)
        tables: Any = registered(), cloudpickle.Pickler.dispatch_table
        self.dispatch_table = ChainMap(*tables)
        self._main = main
        self._home = Call(_namespace, main is Main.SAME)
        self._namespace = None if main is Main.LACKING else _main_namespace()

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is not FunctionType and not issubclass(kind, type):
            return super().reducer_override(obj)
        if self._main is Main.SAME and _is_found(obj):
            return NotImplemented  # by name
        reduced: Any = super().reducer_override(obj)
        by_name = reduced is NotImplemented
        if by_name or kind is not FunctionType or obj.__globals__ is not self._namespace:
            return reduced
        make, (code, _, *more), state, items, pairs, settle = reduced  # `_` is a namespace of its own
        return make, (code, self._home, *more), (settle, state), items, pairs, _settle


def _is_found(obj: Any) -> bool:
    """Whether the main module has this object under its qualified name."""
    if getattr(obj, "__module__", None) not in _NAMES:
        return False
    found: Any = sys.modules.get("__main__")
    for name in obj.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is obj


def _namespace(of_main: bool) -> dict[str, Any]:
    """The namespace for functions of our main module, in the receiver."""
    return _main_namespace() if of_main else _stand_in


def _main_namespace() -> dict[str, Any]:
    """The global variables of the main module's functions.

    `multiprocessing` imports the main module as ``__mp_main__`` in a worker, and copies that
    module's variables into ``__main__``. So a function that was defined there has the real ones.
    """
    names = vars(sys.modules["__main__"])
    for each in list(names.values()):  # the main module may be running, and define more
        if type(each) is FunctionType and each.__module__ == "__mp_main__":
            return each.__globals__
    return names


def _settle(function: FunctionType, state: tuple[Callable[..., object], tuple[Any, dict[str, Any]]]) -> None:
    """Set the function's state; global variables keep their values, unless those came from a pickle."""
    settle, (attributes, slots) = state
    names, there = slots["__globals__"], function.__globals__
    settle(function, (attributes, {**slots, "__globals__": {}}))
    there["__builtins__"] = builtins
    for name, value in names.items():
        if there is not _stand_in:
            there.setdefault(name, value)
        elif there.get(name, _ABSENT) is _arrived.get(name, _ABSENT):
            there[name] = _arrived[name] = value
