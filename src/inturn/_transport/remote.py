"""Loads: what `inturn` submits to an executor whose calls run in other processes.

It is not known beforehand whether such a worker has our main module. So objects are pickled by name
first; what the worker does not find comes back as `Outcome.LACKS`, and is then sent by value.
"""

from __future__ import annotations

import enum
import os
import pickle
import sys
from typing import Any, Final

from inturn._base.clock import clock
from inturn._base.signals import raised_by_handler

from .pickling import Main, dumps, lacks_main, note_result, note_unread, pack_error, unpack_error

__all__ = ["ANY", "Outcome", "main_file", "pack_item", "run_packed", "run_remote", "unpack_outcome"]


class Outcome(enum.Enum):
    RESULT = "a pickled result"
    ERROR = "a packed error of one item"
    LACKS = "a packed error: the item needs a main module that the worker does not have"
    UNREAD_FN = "a packed error: fn could not be unpickled, so no item was run"
    FN_LACKS = "a packed error: fn needs a main module that the worker does not have"


ANY: Final = ""
"""Instead of the file of a main module: whatever main module the worker has is accepted."""


def main_file() -> str | None:
    """The file of the main module; other programs have another one."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.normpath(path) if isinstance(path, str) else None


def pack_item(item: Any, main: Main) -> tuple[bool, Any]:
    try:
        return True, dumps(item, main)
    except Exception as error:  # it costs this item only
        if raised_by_handler(error):
            raise
        return False, pack_error(error)


def unpack_outcome(kind: Outcome, packed: Any) -> tuple[bool, Any]:
    """Whether it is a result, and the result or the error."""
    try:
        return (True, pickle.loads(packed)) if kind is Outcome.RESULT else (False, unpack_error(packed))
    except Exception as error:  # some results can be pickled but not unpickled
        return False, error


def _loads(blob: bytes, file: str | None, what: str) -> Any:
    try:
        if file != ANY and b"__main__" in blob and file != main_file():  # the same name may be another object there
            raise AttributeError(f"the worker has another module '__main__', from {main_file()}")
        return pickle.loads(blob)  # trusted: from the run that submitted it
    except BaseException as error:
        note_unread(error, f"{what} could not be unpickled in the worker")
        raise


def run_remote(
    fn_blob: bytes, items: list[tuple[bool, Any]], file: str | None, slice_s: float | None
) -> list[tuple[Outcome, Any, float]]:
    """Run a load, in another process; what is not started when the time slice ends is left.

    The `file` is that of the main module which pickled names refer to.
    """
    outcomes: list[tuple[Outcome, Any, float]] = []
    begun = clock()
    try:
        fn = _loads(fn_blob, file, "fn")
    except Exception as error:  # unpickling may raise any error
        return [(Outcome.FN_LACKS if lacks_main(error) else Outcome.UNREAD_FN, pack_error(error), 0.0)]
    for good, packed in items:
        mark = clock()
        if slice_s is not None and outcomes and mark - begun > slice_s:
            break
        if not good:
            outcomes.append((Outcome.ERROR, packed, 0.0))
            continue
        outcomes.append((*_outcome(fn, packed, file), clock() - mark))
        if outcomes[-1][0] is Outcome.ERROR and outcomes[-1][1][0].startswith("KeyboardInterrupt"):
            break  # the task was cancelled: Ray does it so
    return outcomes


def run_packed(load: bytes) -> list[tuple[Outcome, Any, float]]:
    """`run_remote` for a cluster, whose scheduler need not look into the load: the arguments are one pickle."""
    return run_remote(*pickle.loads(load))  # trusted: from the run that submitted it


def _outcome(fn: Any, packed: bytes, file: str | None) -> tuple[Outcome, Any]:
    try:
        try:
            item = _loads(packed, file, "the item")
        except AttributeError as error:
            if not lacks_main(error):
                raise
            return Outcome.LACKS, pack_error(error)
        result = fn(item)
        try:
            return Outcome.RESULT, dumps(result)
        except Exception as error:
            note_result(error, result)
            raise
    except BaseException as error:  # it is raised in the consumer
        return Outcome.ERROR, pack_error(error)
