"""What a thread waits for, with or without a time-out."""

from __future__ import annotations

import threading
from queue import Empty

__all__ = ["LONG_S", "Alarm"]

LONG_S = 1e6
"""No single wait is longer, in seconds: the operating system's limits are met before patience is."""


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
