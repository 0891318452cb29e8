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

from types import FrameType

__all__ = ["raised_by_handler"]


def raised_by_handler(error: BaseException) -> bool:
    """Whether the error's traceback goes through a signal handler (guarantee 10)."""
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None:
        if _was_given(tb.tb_next.tb_frame, tb.tb_frame):
            return True
        tb = tb.tb_next
    return False


def _was_given(frame: FrameType, interrupted: FrameType) -> bool:
    """Whether the frame's arguments hold this one, also as one of ``*args``."""
    code, values = frame.f_code, frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 0x04)  # CO_VARARGS
    for name in code.co_varnames[:count]:
        value = values.get(name)
        if value is interrupted or (type(value) is tuple and any(each is interrupted for each in value)):
            return True
    return False
