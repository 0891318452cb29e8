"""Exceptions that land in the library as those of signal handlers do: behind its calls to something in C."""

import gc
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

import inturn

LIBRARY = str(inturn.__path__[0])
_TOOL = 4


class Interruption:
    """Raises in this thread, behind the call that has the number, from 1, since it was armed. Made by `interruption`."""

    def __init__(self, codes: Collection[CodeType]) -> None:
        self._codes = codes
        self._thread = threading.get_ident()
        self._error: type[BaseException] | None = None
        self._wanted = -1
        self.calls = 0  # that there were since it was armed
        self.landed = ""  # where

    @contextmanager
    def armed(self, error: type[BaseException], number: int = -1) -> Iterator[None]:
        self.calls, self.landed, self._wanted, self._error = 0, "", number, error
        gc.disable()  # else it may land in a finaliser, where exceptions are lost
        try:
            yield
        finally:
            self._error = None
            gc.enable()

    def returned(self, code: CodeType, offset: int, function: Any, frame: Any) -> None:
        error = self._error
        counts = code in self._codes if self._codes else code.co_filename.startswith(LIBRARY)
        if error is None or not counts or threading.get_ident() != self._thread:
            return
        self.calls += 1
        if self.calls == self._wanted:
            self._error = None
            frame = sys._getframe(1)  # a handler is given the frame that it interrupts
            self.landed = f"{code.co_qualname}, line {frame.f_lineno}, behind {function!r}"
            raise error


@contextmanager
def interruption(codes: Collection[CodeType] = ()) -> Iterator[Interruption]:
    """For calls that any code of the library makes, or these codes of it."""
    made, monitoring = Interruption(codes), sys.monitoring
    monitoring.use_tool_id(_TOOL, "signals")
    monitoring.register_callback(_TOOL, monitoring.events.C_RETURN, made.returned)
    monitoring.set_events(_TOOL, monitoring.events.CALL)
    try:
        yield made
    finally:
        monitoring.set_events(_TOOL, 0)
        monitoring.free_tool_id(_TOOL)
