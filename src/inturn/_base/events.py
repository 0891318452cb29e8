"""What a thread waits for, and how it is woken.

One protocol, three media: `ThreadEvent` for threads, `LoopEvent` for coroutines (`_aio.events`), `PipeEvent` for a
thread that polls file descriptors (`_transport.wire`). ``set()`` wakes and may be called from anywhere: it takes no
lock that somebody may hold, so a finaliser or a signal handler may call it.
"""

from __future__ import annotations

import threading
from typing import Final, Protocol

from .atomic import fence
from .clock import clock
from .signals import raised_by_handler

__all__ = ["LONG_S", "Event", "Latch", "ThreadEvent"]

LONG_S = 1e6
"""The longest single wait, in seconds: the system's limit is lower than what users may ask for."""

_LOOK_S: Final = 0.1
"""How long the main thread waits at a time. A signal that comes when CPython has released the GIL to wait, and does not
wait yet, ends no wait: its handler would run only after that."""


class Event(Protocol):
    """Wakes somebody; each medium waits in its own way."""

    def set(self) -> None:
        """Wake; from anywhere."""


class ThreadEvent:
    """A binary semaphore: calls of `set` are not counted, and one that comes while nobody waits is remembered.

    Waiting happens in C, so an interrupt leaves one traceback. It is not a ``SimpleQueue``, since
    ``SimpleQueue.get(timeout=…)`` may wait for ever (seen with CPython 3.11): when its first try finds a lock that an
    earlier ``put`` left open, it works out the time that is left anew, and takes a negative one for no time-out at all.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake whoever waits, or the next one to wait."""
        try:
            self._lock.release()
        except RuntimeError as error:  # set already, and nobody has waited since
            if raised_by_handler(error):
                raise

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, and clear it; False after so many seconds without."""
        if threading.get_ident() == threading.main_thread().ident:
            until = None if timeout is None else clock() + timeout
            while timeout is None or timeout > _LOOK_S:
                if self._lock.acquire(timeout=_LOOK_S):
                    return True
                if until is not None:
                    timeout = until - clock()
        return self._lock.acquire(timeout=-1 if timeout is None else max(0.0, min(timeout, LONG_S)))


class Latch:
    """Something that happens once, and that any number of threads wait for.

    Each waits for an event of its own. One lock for all would not do: in ``with lock: pass`` a signal handler may raise
    after the lock was taken and before ``with`` knows, and then nobody else ever gets it (CPython issue 74174).
    """

    __slots__ = ("_waiting", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._waiting: list[ThreadEvent] = []

    def open(self) -> None:
        """It has happened; may be called from anywhere, and again."""
        self.is_open = True
        fence()
        for event in self._waiting[:]:  # a list, since without the GIL a deque is not copied in one step
            event.set()

    def wait(self) -> None:
        """Wait until it has happened."""
        event = ThreadEvent()
        self._waiting.append(event)
        fence()
        if not self.is_open:  # read after `open` can see our event
            event.wait()
