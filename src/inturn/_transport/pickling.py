"""How functions, items, results and errors are pickled for another process: each one separately.

Guarantee 26: items of one batch share no objects, and an error costs its own item only. In a
message, one item or result has one of these forms, which differ by type:

============================ ====================================================================
form                         meaning
============================ ====================================================================
an atom                      itself: a small immutable object of a type in `ATOMS`
``()``                       an item that could not be pickled; the parent keeps its error
``(head, buffers)``          a pickle (bytes, or its position in a `Memory`) and its large buffers
``(None, (buffer,))``        a large ``bytes`` or ``bytearray``, without a pickle
``(packed, elapsed, None)``  an error, and the seconds after which it was raised
============================ ====================================================================

A buffer is ``(writable, data or position)``.
"""

from __future__ import annotations

import io
import pickle
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

from inturn._base.signals import Dropping, raised_by_handler

from .by_name import PROTOCOL, Main, Pickler, registered
from .shared_memory import Memory, Where

__all__ = [
    "ATOMS",
    "LARGE",
    "PROTOCOL",
    "Main",
    "RemoteTraceback",
    "dumps",
    "dumps_fn",
    "has_cloudpickle",
    "is_atom",
    "lacks_main",
    "note_result",
    "note_unread",
    "noted",
    "pack",
    "pack_error",
    "unpack",
    "unpack_error",
]

Packed = tuple[str, str, list[bytes]]  # type and text; traceback as text; pickles of it and its causes
_MOST_CAUSES: Final = 8

ATOMS: Final = frozenset({int, float, bool, type(None), str, bytes})
_CONTAINERS: Final = frozenset({tuple, list, dict, set, frozenset})
_FEW: Final = 16  # elements; to look at more would cost more time than the faster pickler saves
LARGE: Final = 1 << 16
"""Payloads of more bytes go through shared memory; for smaller ones the pipe is as fast."""


class RemoteTraceback(Exception):
    """The cause of an error that came from another process: its traceback there, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


HINT: Final = "pip install 'inturn[pickle]'"
CURE: Final = "the worker lacks what the main module defines now: put it into a module of its own"


def noted(error: BaseException, text: str) -> BaseException:
    """The error, with a note unless it refuses notes."""
    with Dropping(Exception):
        error.add_note(text)
    return error


def has_cloudpickle() -> bool:
    with suppress(ImportError):
        import cloudpickle

        return bool(cloudpickle)
    return False


def dumps(
    thing: Any,
    main: Main = Main.SAME,
    buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
    starts_over: Callable[[], object] | None = None,
) -> bytes:
    """Pickle by name what the receiver has, and by value what it lacks, if cloudpickle is there.

    That may take a second attempt, which passes all buffers again: `starts_over` is called before.
    """
    if _is_plain(thing):
        return pickle.dumps(thing, PROTOCOL)
    registered()
    file = io.BytesIO()
    try:
        Pickler(file, PROTOCOL, buffer_callback=buffer_callback).dump(thing)
    except Exception as error:  # an object may refuse to be pickled with any error
        if raised_by_handler(error):
            raise
        if not has_cloudpickle():
            if isinstance(error, (pickle.PicklingError, AttributeError)):
                noted(error, f"what cannot be found by its name in a module needs cloudpickle: {HINT}")
            raise
    else:
        blob = file.getvalue()
        if main is Main.SAME or b"__main__" not in blob or not has_cloudpickle():
            return blob  # without cloudpickle, the receiver's error names the cure
    from . import by_value

    if starts_over is not None:
        starts_over()
    return by_value.dumps(thing, main, buffer_callback)


def _is_plain(thing: Any) -> bool:
    """Whether it is an atom or a small container of atoms: no reducer can apply to it."""
    kind = type(thing)
    if kind in ATOMS:
        return True
    if kind not in _CONTAINERS or len(thing) > _FEW or not ATOMS.issuperset(map(type, thing)):
        return False
    return kind is not dict or ATOMS.issuperset(map(type, thing.values()))


def dumps_fn(fn: Any, main: Main = Main.SAME) -> bytes:
    """Pickle a function (guarantee 25); the `TypeError` of one that cannot be pickled names the cure."""
    try:
        return dumps(fn, main)
    except Exception as error:  # an object may refuse to be pickled with any error
        if raised_by_handler(error):
            raise
        cure = "define it at the top level of a module"
        if not has_cloudpickle():
            cure += f", or {HINT} for lambdas and closures"
        raise TypeError(f"{fn!r} cannot be pickled ({error}); {cure}") from error


def lacks_main(error: BaseException) -> bool:
    """Whether unpickling failed because this process has no main module, or a different one."""
    return isinstance(error, AttributeError) and "_main__" in str(error)


def note_unread(error: BaseException, text: str) -> BaseException:
    """The error of unpickling, with a note; and with the cure if the main module is missing."""
    noted(error, text)
    if lacks_main(error):
        noted(error, CURE if has_cloudpickle() else f"{CURE}, or {HINT}")
    return error


_STREAMS: Final[dict[type, str]] = {
    GeneratorType: "fn is a generator function: ordered_flat_map delivers its elements",
    AsyncGeneratorType: "fn is an async generator function: ordered_aflat_map delivers its elements",
    CoroutineType: "fn is an async function: ordered_amap awaits it",
}


def note_result(error: BaseException, result: Any) -> BaseException:
    """The error of a result that cannot be pickled, with a note, and the cure if there is one."""
    noted(error, f"the result, a {type(result).__qualname__}, could not be pickled in the worker process")
    cure = _STREAMS.get(type(result))
    return error if cure is None else noted(error, cure)


def pack_error(error: BaseException) -> Packed:
    """An error in a form that can always be sent (guarantee 25), with its causes if they can be."""
    try:
        words = "".join(traceback.format_exception(error))
    except Exception:  # its `__str__` may be broken
        words = "".join(traceback.format_tb(error.__traceback__))
    try:
        text = f"{type(error).__qualname__}: {error}"
    except Exception:
        text = type(error).__qualname__
    blobs: list[bytes] = []
    each: BaseException | None = error
    with Dropping(Exception):  # neither one that cannot be pickled nor its causes can be sent
        while each is not None and len(blobs) < _MOST_CAUSES:
            blobs.append(dumps(each))
            each = each.__cause__
    return text, words, blobs


def unpack_error(packed: Packed) -> BaseException:
    """The error, with its causes; the last cause is its traceback as text."""
    text, words, blobs = packed
    chain: list[BaseException] = []
    with Dropping(BaseException):  # many errors can be pickled but not unpickled
        for blob in blobs:
            each = pickle.loads(blob)  # trusted: from a worker of the same run
            if not isinstance(each, BaseException):
                break
            chain.append(each)
    chain = chain or [RuntimeError(text)]
    for error, cause in zip(chain, [*chain[1:], RemoteTraceback(words)], strict=True):
        without_tracebacks(error)
        with Dropping(Exception):  # frozen exceptions exist
            error.__cause__ = cause
    return chain[0]


def without_tracebacks(error: BaseException) -> None:
    """Take off what an error, and those it refers to, made while it was unpickled: the text has the real traceback.

    tblib, which Dask brings along, has every error do so. The frames would refer to ours, which hold the error: a cycle
    (guarantee 12).
    """
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        BaseException.with_traceback(each, None)  # not by assignment, which a class may refuse
        todo += each.__cause__, each.__context__
        if isinstance(each, BaseExceptionGroup):
            todo += each.exceptions


def is_atom(thing: Any) -> bool:
    kind = type(thing)
    return kind in ATOMS and not ((kind is bytes or kind is str) and len(thing) > LARGE)


def pack(thing: Any, memory: Memory | None, main: Main = Main.SAME) -> tuple[Any, ...]:
    """Pickle an item or a result; its large parts are put into `memory` if there is room."""
    kind = type(thing)
    if (kind is bytes or kind is bytearray) and len(thing) > LARGE:
        return None, (_stow(memoryview(thing), memory, writable=kind is bytearray),)
    buffers: list[tuple[bool, bytes | Where]] = []

    def out_of_band(buffer: pickle.PickleBuffer) -> bool:
        with buffer.raw() as raw:
            if raw.nbytes < LARGE:
                return True
            buffers.append(_stow(raw, memory, writable=not raw.readonly))
        return False

    blob = dumps(thing, main, out_of_band, buffers.clear)
    if len(blob) > LARGE:
        return _stow(memoryview(blob), memory, writable=False)[1], tuple(buffers)
    return blob, tuple(buffers)


def _stow(data: memoryview, memory: Memory | None, *, writable: bool) -> tuple[bool, bytes | Where]:
    where = None
    if memory is not None:
        with data.cast("B") as flat:
            where = memory.stow(flat)
    return writable, bytes(data) if where is None else where


def unpack(packed: tuple[Any, ...], memory: Memory) -> Any:
    """The object that was packed; it keeps no reference to `memory`."""
    head, buffers = packed
    parts = [_fetch(data, memory, writable=writable) for writable, data in buffers]
    if head is None:
        return parts[0]
    if type(head) is bytes:
        return pickle.loads(head, buffers=parts)  # trusted: from our own worker or parent
    with memory.view(head) as view:
        return pickle.loads(view, buffers=parts)


def _fetch(data: bytes | Where, memory: Memory, *, writable: bool) -> bytes | bytearray:
    if isinstance(data, bytes):
        return bytearray(data) if writable else data
    with memory.view(data) as view:
        return bytearray(view) if writable else bytes(view)
