"""What a thread waits for, with or without a time-out; how one is started, and what is raised where none can be had."""

from __future__ import annotations

import sys
import threading
from queue import Empty
from typing import Final

from ._outcome import from_handler

__all__ = ["LONG_S", "NO_THREAD", "Alarm", "start"]

NO_THREAD: Final = (RuntimeError, MemoryError)
"""What starting a thread that can't be had raises; these very classes, since a signal handler may raise any other."""

LONG_S = 1e6
"""No single wait is longer, in seconds: the operating system's limits are met before patience is."""


def start(thread: threading.Thread) -> None:
    """Start a thread; what a signal handler raises in the midst of it is raised as it is.

    ``Thread.start`` waits in a ``Condition``, which answers an interrupt at the wrong moment with an error of its own,
    a ``RuntimeError`` at that: the interrupt would be taken for a lack of threads.
    """
    before = sys.exception()
    interrupt: BaseException | None = None
    try:
        thread.start()
    except BaseException as error:
        interrupt = error.__context__
        while not (interrupt is None or interrupt is before or _from_outside(interrupt)):
            interrupt = interrupt.__context__
        if interrupt is None or interrupt is before:
            raise
    if interrupt is not None:
        try:
            raise interrupt
        finally:
            del interrupt


def _from_outside(error: BaseException) -> bool:
    return type(error) is KeyboardInterrupt or from_handler(error)


class Alarm:
    """A binary semaphore: rings are not counted, and one that comes while nobody waits is remembered.

    Waiting happens in C, so an interrupt leaves one traceback; ringing takes no lock that anybody holds, so
    finalisers and signal handlers may. It is not a ``SimpleQueue`` because ``SimpleQueue.get(timeout=…)`` may wait
    for ever (seen with CPython 3.11): when its first try finds a lock that an earlier ``put`` left open, it works out
    the time that is left anew, and takes a negative one for no time-out at all.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def put(self, token: None = None) -> None:
        """Ring; from anywhere."""
        try:
            self._lock.release()
        except RuntimeError:  # it has rung already, and nobody has heard it yet
            pass

    def get(self, *, timeout: float | None = None) -> None:
        """Wait until it rings.

        Raises:
            Empty: After so many seconds without.
        """
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0.0, min(timeout, LONG_S))):
            raise Empty
