"""Messages between a run and its worker processes, and the ways to wake whoever waits for one.

A message on the link is eight bytes of length and a pickle. The worker's end blocks; the parent's end does not, since
the parent waits for other things besides (see `handle.Handle`).

`PipeEvent` and `Recall` may be used from anywhere and any number of times: they take no lock, and what
an interrupt leaves undone is done when they are used again.
"""

from __future__ import annotations

import os
import struct
from typing import Final

__all__ = ["LENGTH", "End", "PipeEvent", "Recall", "frame", "read", "receive", "send"]

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


class End:
    """A descriptor to write to, which is closed when nobody holds it any more, and so never under a writer's hands."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close it now: nobody else can hold it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


class Recall:
    """The writing end of a pipe into a worker: asks it to hand back what it has not started of a chunk."""

    __slots__ = ("_end",)

    def __init__(self, end: End) -> None:
        self._end: End | None = end

    def __call__(self, serial: int) -> None:
        end = self._end
        if end is not None:
            try:
                os.write(end.fd, LENGTH.pack(serial))
            except OSError:
                pass  # the worker is gone, or has been asked a thousand times

    def close(self) -> None:
        """Let go of the descriptor: the worker is gone."""
        self._end = None


class PipeEvent:
    """Set once, for threads that poll file descriptors: from then on `fd` is readable."""

    __slots__ = ("__weakref__", "_writing", "fd")

    def __init__(self) -> None:
        self.fd, self._writing = os.pipe()

    def set(self) -> None:
        os.write(self._writing, b".")  # closing it would not do: a forked child may hold another copy

    def __del__(self) -> None:
        try:
            os.close(self.fd)
            os.close(self._writing)
        except AttributeError:  # there was no descriptor to be had
            pass
