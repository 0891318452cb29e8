"""Messages between a run and its worker processes, and what wakes a thread that waits for one.

A message on the link is its length in eight bytes, and a pickle. The worker's end blocks. The
parent's end does not: the parent waits for other things, too (see `handle.Handle`).

`PipeEvent` and `Recall` may be used by any thread, a finaliser or a signal handler, any number of
times. They take no lock. If an interrupt prevents a call, a later call does the same.
"""

from __future__ import annotations

import os
import struct
from itertools import starmap
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
    """Read the length of the next message; `read` its body next."""
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


# ---- for any thread ------------------------------------------------------------------------------


class End:
    """A descriptor to write to, closed with the last reference: so never while a thread writes."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Close it now: there is no other reference."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


class Recall:
    """Asks a worker, through a pipe, to hand back the items of a chunk that it has not started."""

    __slots__ = ("_end",)

    def __init__(self, end: End) -> None:
        self._end: End | None = end

    def __call__(self, serial: int) -> None:
        end = self._end
        if end is not None:
            try:
                os.write(end.fd, LENGTH.pack(serial))
            except OSError:
                pass  # the worker has ended, or the pipe is full of recalls

    def close(self) -> None:
        """The worker has ended: drop the descriptor."""
        self._end = None


class PipeEvent:
    """An event for threads that poll file descriptors: once it is set, `fd` stays readable.

    The consumer makes it, and may be interrupted there. So one call into C makes the pipe and keeps it here (guarantee
    16).
    """

    __slots__ = ("__weakref__", "_ends")

    def __init__(self) -> None:
        self._ends: list[tuple[int, int]] = []  # reading, writing
        self._ends.extend(starmap(os.pipe, ((),)))

    @property
    def fd(self) -> int:
        return self._ends[0][0]

    def set(self) -> None:
        os.write(self._ends[0][1], b".")  # not close: a forked child may hold a copy

    def __del__(self) -> None:
        for ends in getattr(self, "_ends", ()):  # none if that was interrupted, or the system had no descriptor
            for fd in ends:
                os.close(fd)
