"""Which exceptions come from a signal handler.

A handler that raises does so in the midst of whatever the main thread is doing: an `Exception` out
of a pull may be the source's own, which surfaces in its turn, or a handler's, which ends the run at
once. Its class does not tell (Celery's soft time limit is an ``Exception``), nor does its code: a
handler may be any object with ``__call__``, and may be replaced in the meantime.

What tells is how CPython calls it: with the number of the signal and *the frame that it
interrupts*. A call in a traceback that was given the very frame below it is a handler's; no other
call is.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from types import FrameType

__all__ = ["Dropping", "found_nothing", "is_ours", "landed_here", "raised_by_handler"]


def raised_by_handler(error: BaseException) -> bool:
    """Whether the error's traceback goes through a signal handler (guarantee 10)."""
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None:
        if _was_given(tb.tb_next.tb_frame, tb.tb_frame):
            return True
        tb = tb.tb_next
    return False


def landed_here(error: BaseException) -> bool:
    """Whether a signal handler raised it that interrupted this library, and not a function of the user's.

    The traceback begins with our frames, one of which the handler was given. Python's own handler of Ctrl-C has no
    frame. Nor has ``fn`` if it is written in C: what interrupts it counts as what interrupts us.
    """
    tb = error.__traceback__
    if threading.get_ident() != threading.main_thread().ident:  # where handlers run
        return False
    while tb is not None and is_ours(tb.tb_frame):
        inner = tb.tb_next
        if inner is None:
            return isinstance(error, KeyboardInterrupt)
        if _was_given(inner.tb_frame, tb.tb_frame):
            return True
        tb = inner
    return False


class Dropping(AbstractContextManager[None]):
    """`contextlib.suppress`, but for what a signal handler has raised."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> bool:
        return isinstance(error, self._kinds) and not raised_by_handler(error)


def is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "inturn"


def _was_given(frame: FrameType, interrupted: FrameType) -> bool:
    """Whether the frame's arguments hold this one, also as one of ``*args``."""
    code = frame.f_code
    takes_any = bool(code.co_flags & 0x04)  # CO_VARARGS
    if code.co_argcount < 2 and not takes_any:
        return False  # a handler takes two; before Python 3.13, `f_locals` may keep what it has shown
    values = frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount + takes_any
    for name in code.co_varnames[:count]:
        value = values.get(name)
        if value is interrupted or (type(value) is tuple and any(each is interrupted for each in value)):
            return True
    return False


def found_nothing(error: BaseException) -> bool:
    """Whether a ``pop`` of this library has raised it, since another thread has emptied what it pops from.

    The innermost frame tells: if it is a signal handler's, or one of the user's, the error comes from outside.
    """
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    return type(error) is IndexError and tb is not None and is_ours(tb.tb_frame)
