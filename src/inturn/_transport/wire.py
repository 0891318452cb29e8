"""Messages between a run and its worker processes, and what wakes a thread that waits for one.

A message on the link is its length in eight bytes, and a pickle. The worker's end blocks. The
parent's end does not: the parent waits for other things, too (see `handle.Handle`).
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from itertools import starmap
from typing import Final

__all__ = ["LENGTH", "PipeEvent", "frame", "pidfd", "read", "receive", "send"]

LENGTH: Final = struct.Struct("<q")


def frame(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + body


def send(fd: int, body: bytes) -> None:
    with memoryview(frame(body)) as data:
        sent = 0
        while sent < len(data):
            sent += os.write(fd, data[sent:])


def receive(fd: int) -> int:
    """Read the length of the next message; `read` its body next."""
    return int(LENGTH.unpack(read(fd, LENGTH.size))[0])


def read(fd: int, size: int) -> bytes | bytearray:
    data: bytes | bytearray = os.read(fd, size)
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise EOFError("the other end is closed")
        data = bytearray(data) if type(data) is bytes else data
        data += more
    return data


def pidfd(pid: int) -> int | None:
    """A descriptor that is readable when the process has ended; None where the system gives none."""
    with suppress(OSError, AttributeError):
        return os.pidfd_open(pid)
    return None


class PipeEvent:
    """An event for threads that poll file descriptors: once it is set, `fd` stays readable.

    It takes no lock, so anyone may set it, again and again. The consumer makes it, and may be
    interrupted there (guarantee 16): so one call into C makes the pipe and keeps it here.
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
