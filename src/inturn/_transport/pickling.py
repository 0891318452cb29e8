"""How functions, items, results and errors travel to another process: each by itself, so that none can hurt another.

What a message carries for one item or result, told apart by its type:

============================= ================================================================
what                          stands for
============================= ================================================================
an atom                       itself: a small object of a type in `ATOMS`, which no aliasing can betray
``()``                        an item that could not be pickled; its error waits at the parent
``(head, buffers)``           a pickle (bytes, or its place in a `Memory`) and the large buffers that it refers to
``(None, (buffer,))``         a large ``bytes`` or ``bytearray``, without a pickle around it
``(packed, elapsed, None)``   an error, and the seconds after which it was raised
============================= ================================================================

A buffer is ``(writable, data or place)``.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .shared_memory import Memory, Where

__all__ = ["ATOMS", "LARGE", "RemoteTraceback", "dumps_fn", "is_atom", "pack", "pack_error", "unpack", "unpack_error"]

PROTOCOL: Final = pickle.HIGHEST_PROTOCOL
Packed = tuple[str, str, tuple[bytes, ...]]  # what it was, its traceback in words, itself and its causes if they pickle
_MOST_CAUSES: Final = 8

ATOMS: Final = frozenset({int, float, bool, type(None), str, bytes})
LARGE: Final = 1 << 16
"""Bytes from which a payload goes through shared memory; below, the pipe is as fast."""


class RemoteTraceback(Exception):
    """The cause of an error that came from another process: its traceback there, in words."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def dumps_fn(fn: Any, *, main_is_there: bool = False) -> bytes:
    """Pickle a function, a closure or lambda too where cloudpickle is installed.

    Args:
        fn: The function, or anything that holds functions.
        main_is_there: Whether the worker has the module ``__main__`` as we have it, so that its functions can travel by
            name.
    """
    try:
        blob = pickle.dumps(fn, PROTOCOL)
        if main_is_there or b"__main__" not in blob:
            return blob
        plain: BaseException | None = None
    except Exception as error:  # any object may refuse in any way
        blob, plain = b"", error
    try:
        import cloudpickle
    except ImportError:
        if plain is None:
            return blob
        raise TypeError(
            f"{fn!r} cannot be pickled ({plain}); define it at the top level of a module, "
            "or pip install 'inturn[pickle]' for lambdas and closures"
        ) from plain
    return cloudpickle.dumps(fn, PROTOCOL)  # type: ignore[no-any-return]


def pack_error(error: BaseException) -> Packed:
    """An error in a form that always travels, and the causes it was raised from as far as they travel."""
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
    while each is not None and len(blobs) < _MOST_CAUSES and (blob := _dumps_error(each)) is not None:
        blobs.append(blob)
        each = each.__cause__
    return text, words, tuple(blobs)


def _dumps_error(error: BaseException) -> bytes | None:
    try:
        blob = pickle.dumps(error, PROTOCOL)
        whole = isinstance(pickle.loads(blob), BaseException)  # our own; many errors pickle and do not unpickle
    except Exception:
        return None
    return blob if whole else None


def unpack_error(packed: Packed) -> BaseException:
    """The error, with its causes; the last of them is its traceback, in words."""
    text, words, blobs = packed
    chain = list(_loads_errors(blobs)) or [RuntimeError(text)]
    for error, cause in zip(chain, [*chain[1:], RemoteTraceback(words)], strict=True):
        try:
            error.__cause__ = cause
        except Exception:  # frozen exceptions exist
            pass
    return chain[0]


def _loads_errors(blobs: tuple[bytes, ...]) -> Iterator[BaseException]:
    for blob in blobs:
        try:
            error = pickle.loads(blob)  # from a worker of the same run
        except Exception:
            return
        if not isinstance(error, BaseException):
            return
        yield error


# ---- items and results ---------------------------------------------------------------------------


def is_atom(thing: Any) -> bool:
    kind = type(thing)
    return kind in ATOMS and not ((kind is bytes or kind is str) and len(thing) > LARGE)


def pack(thing: Any, memory: Memory | None) -> tuple[Any, ...]:
    """An item or a result in a form that travels alone; its large parts go into `memory` as far as there is room."""
    kind = type(thing)
    if (kind is bytes or kind is bytearray) and len(thing) > LARGE:
        return None, (_stow(memoryview(thing), memory, writable=kind is bytearray),)
    buffers: list[tuple[bool, Any]] = []

    def out_of_band(buffer: pickle.PickleBuffer) -> bool:
        with buffer.raw() as raw:
            if raw.nbytes < LARGE:
                return True
            buffers.append(_stow(raw, memory, writable=not raw.readonly))
        return False

    try:
        blob = pickle.dumps(thing, PROTOCOL, buffer_callback=out_of_band)
    except Exception as error:  # any object may refuse in any way
        buffers.clear()
        blob = _by_value(thing, error, out_of_band)
    if len(blob) > LARGE:
        return _stow(memoryview(blob), memory, writable=False)[1], tuple(buffers)
    return blob, tuple(buffers)


def _stow(data: memoryview, memory: Memory | None, *, writable: bool) -> tuple[bool, bytes | Where]:
    where = None
    if memory is not None:
        with data.cast("B") as flat:
            where = memory.stow(flat)
    return writable, bytes(data) if where is None else where


def _by_value(thing: Any, error: Exception, out_of_band: Callable[[pickle.PickleBuffer], bool]) -> bytes:
    try:
        import cloudpickle
    except ImportError:
        raise error from None
    return cloudpickle.dumps(thing, PROTOCOL, buffer_callback=out_of_band)  # type: ignore[no-any-return]


def unpack(packed: tuple[Any, ...], memory: Memory | None) -> Any:
    """What was packed, as an object of its own: nothing of it lies in `memory`."""
    head, buffers = packed
    parts = [_fetch(data, memory, writable=writable) for writable, data in buffers]
    if head is None:
        return parts[0]
    if type(head) is bytes:
        return pickle.loads(head, buffers=parts)  # from our own worker or parent
    assert memory is not None
    with memory.view(head) as view:
        return pickle.loads(view, buffers=parts)


def _fetch(data: bytes | Where, memory: Memory | None, *, writable: bool) -> bytes | bytearray:
    if type(data) is bytes:
        return bytearray(data) if writable else data
    assert memory is not None
    with memory.view(data) as view:  # type: ignore[arg-type]
        return bytearray(view) if writable else bytes(view)
