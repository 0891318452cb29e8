"""Messages between a run and its worker processes, and the ways to wake whoever waits for one.

A message on the link is eight bytes of length and a pickle. The worker's end blocks; the parent's end does not, since
the parent waits for other things besides (see `_process_handle.Handle`).

Both `Bell` and `Recall` may be used from anywhere: they take no lock. Who uses the descriptor has taken it out of a
deque, so it is never closed, and its number never given to another file, under a writer's hands.
"""

from __future__ import annotations

import os
import struct
import time
from collections import deque
from typing import Any, Final

__all__ = ["LENGTH", "Bell", "Recall", "frame", "read", "receive", "send"]

LENGTH: Final = struct.Struct("<q")


def frame(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + body


# ---- the worker's end, which blocks --------------------------------------------------------------


def send(fd: int, body: bytes) -> None:
    with memoryview(frame(body)) as data:
        sent = 0
        while sent < len(data):
            sent += os.write(fd, data[sent:])


def receive(fd: int) -> int:
    """The length of the next message, whose body is then to be `read`."""
    (length,) = LENGTH.unpack(read(fd, LENGTH.size))
    return length  # type: ignore[no-any-return]


def read(fd: int, size: int) -> bytes | bytearray:
    data = os.read(fd, size)
    if len(data) == size:
        return data
    whole = bytearray()
    while True:
        if not data:
            raise EOFError("the other end is closed")
        whole += data
        if len(whole) == size:
            return whole
        data = os.read(fd, size - len(whole))


# ---- to be used from anywhere --------------------------------------------------------------------


class Recall:
    """The writing end of a pipe into a worker: asks it to hand back what it has not started of a chunk."""

    __slots__ = ("_fds", "_wanted")

    def __init__(self, fd: int) -> None:
        self._fds = deque([fd])
        self._wanted: deque[int] = deque()

    def __call__(self, serial: int) -> None:
        self._wanted.append(serial)
        while self._wanted:  # looked at again after the descriptor is back: somebody may have come meanwhile
            try:
                fd = self._fds.pop()
            except IndexError:
                return  # closed, or whoever is asking just now asks for us too
            try:
                while self._wanted:
                    os.write(fd, LENGTH.pack(self._wanted.popleft()))
            except (OSError, IndexError):
                pass  # the worker is gone, or has been asked a thousand times; an interrupted handler's has been taken
            finally:
                self._fds.append(fd)

    def take(self) -> int:
        """The descriptor, to be closed (by the place's thread only, once)."""
        while True:
            try:
                return self._fds.pop()
            except IndexError:  # somebody is in the midst of a write, which does not block
                time.sleep(0)


class Bell:
    """Rung once, when the run is over: from then on `listening` is readable, for every place that polls it."""

    __slots__ = ("__weakref__", "_ringing", "listening")

    def __init__(self) -> None:
        self.listening, ringing = os.pipe()
        self._ringing = deque([ringing])

    def ring(self) -> None:
        try:
            fd = self._ringing.pop()
        except IndexError:
            return
        try:
            os.write(fd, b".")  # closing it would not do: a forked child may hold another copy
        finally:
            os.close(fd)

    def __del__(self) -> None:
        while True:
            try:
                os.close(self._ringing.pop())
            except (AttributeError, IndexError):
                break
        fd: Any = getattr(self, "listening", None)
        if fd is not None:
            os.close(fd)
