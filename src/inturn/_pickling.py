"""How functions, items, results and errors travel to another process: each by itself, so that none can hurt another."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from typing import Any, Final

__all__ = ["RemoteTraceback", "dumps_fn", "pack_error", "unpack_error"]

PROTOCOL: Final = pickle.HIGHEST_PROTOCOL
Packed = tuple[str, str, "bytes | None"]  # what it was, its traceback in words, itself if it pickles


class RemoteTraceback(Exception):
    """The cause of an error that came from another process: its traceback there, in words."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def dumps_fn(fn: Callable[..., Any]) -> bytes:
    """Pickle a function, a closure or lambda too where cloudpickle is installed."""
    try:
        blob = pickle.dumps(fn, PROTOCOL)
        if b"__main__" not in blob:
            return blob
        plain: BaseException | None = None
    except Exception as error:  # noqa: BLE001 - any object may refuse in any way
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
    if plain is None:
        return blob
    return cloudpickle.dumps(fn, PROTOCOL)  # type: ignore[no-any-return]


def pack_error(error: BaseException) -> Packed:
    """An error in a form that always travels."""
    words = "".join(traceback.format_exception(error))
    try:
        blob: bytes | None = pickle.dumps(error, PROTOCOL)
        pickle.loads(blob)  # type: ignore[arg-type]  # noqa: S301 - our own; many errors pickle and do not unpickle
    except Exception:  # noqa: BLE001
        blob = None
    try:
        text = f"{type(error).__qualname__}: {error}"
    except Exception:  # noqa: BLE001
        text = type(error).__qualname__
    return text, words, blob


def unpack_error(packed: Packed) -> BaseException:
    text, words, blob = packed
    error: BaseException | None = None
    if blob is not None:
        try:
            error = pickle.loads(blob)  # noqa: S301 - from a worker of the same run
        except Exception:  # noqa: BLE001
            error = None
    if not isinstance(error, BaseException):
        error = RuntimeError(text)
    error.__cause__ = RemoteTraceback(words)
    return error
