"""Memory that two processes share, and large payloads that travel through it.

A `Memory` is anonymous: a memfd, or a temporary file whose name is gone before anybody writes to it. It is known by a
file descriptor alone, so nothing is left of it when both sides are gone, however they went; there is no name to leak
and nothing for the resource tracker to do. Space is really allocated before it is mapped, so a full file system is an
``OSError`` here and not a ``SIGBUS`` later.

Each worker process has two: the parent writes into *down*, the worker into *up*. The first page holds a few numbers
(`numbers`); the rest is the *hold*, which its writer fills from the front and uses again from the front once the
reader has answered. What is read out is copied, so a payload never changes after it has been delivered.

========= ===================================== ==================================
hold      how it is told                        left by
========= ===================================== ==================================
filling   ``_end`` grows with `stow`            `clear`, when the reader has all
full      the next payload would be past `MOST` `clear`; until then payloads go the other way, through the pipe
========= ===================================== ==================================
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from typing import Any, Final

__all__ = ["Memory", "Where"]

MOST: Final = 1 << 28
"""Bytes that the payloads of one chunk may take up in a hold; one payload alone may be larger."""

_NO_MEMFD: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL})
_HEAD: Final = 4096
_STEP: Final = 1 << 20
_UNTRACKED: Final[dict[str, Any]] = {"trackfd": False} if sys.version_info >= (3, 13) and os.name == "posix" else {}

Where = tuple[int, int]  # offset and length in bytes


class Memory:
    """One side's view of a piece of shared memory. One side writes, the other reads; each in one thread at a time."""

    __slots__ = ("_end", "_map", "_page", "_size", "fd", "numbers")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._page = _mapped(fd, _HEAD)
        self.numbers = memoryview(self._page).cast("q")
        self._map: mmap.mmap | None = None
        self._size = os.fstat(fd).st_size
        self._end = _HEAD

    @classmethod
    def create(cls) -> Memory:
        fd = _anonymous()
        try:
            _allocate(fd, 0, _HEAD)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.numbers.release()
        self._page.close()
        if self._map is not None:
            self._map.close()
            self._map = None

    # ---- the writer ------------------------------------------------------------------------------

    def clear(self) -> None:
        """The reader has taken everything out."""
        self._end = _HEAD

    def fill(self) -> None:
        """From now on there is no room for anything."""
        self._end = MOST + 1

    def used(self) -> bool:
        """Whether anything was stowed since `clear`."""
        return self._end > _HEAD

    def stow(self, data: memoryview) -> Where | None:
        """Copy the data in; None if there is no room for it."""
        begin, size = self._end, data.nbytes
        end = begin + size
        if end > MOST and begin > _HEAD:
            return None
        try:
            if end > self._size:
                wanted = -(-(end + end // 4) // _STEP) * _STEP
                _allocate(self.fd, self._size, wanted)
                self._size = wanted
            self._reach(end)[begin:end] = data
        except (OSError, MemoryError):  # full: the pipe is slower, but has room
            return None
        self._end = -(-end // 64) * 64
        return begin, size

    # ---- the reader ------------------------------------------------------------------------------

    def view(self, where: Where) -> memoryview:
        """What is there, in place: to be released before anything else is done with this memory."""
        begin, size = where
        return memoryview(self._reach(begin + size))[begin : begin + size]

    def _reach(self, end: int) -> mmap.mmap:
        """The mapping, at least up to there."""
        if self._map is None or len(self._map) < end:
            if self._map is not None:
                self._map.close()
                self._map = None
            self._map = _mapped(self.fd, os.fstat(self.fd).st_size)
        return self._map


def _mapped(fd: int, size: int) -> mmap.mmap:
    return mmap.mmap(fd, size, **_UNTRACKED)


def _anonymous() -> int:
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("inturn", os.MFD_CLOEXEC)
        except OSError as error:
            if error.errno not in _NO_MEMFD:
                raise
    import tempfile

    fd, path = tempfile.mkstemp(prefix="inturn-")
    os.unlink(path)  # noqa: PTH108 - pathlib is not needed for anything else here
    return fd


def _allocate(fd: int, begin: int, end: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, begin, end - begin)
        return
    zeros = bytes(min(_STEP, end - begin))
    os.lseek(fd, begin, os.SEEK_SET)
    while begin < end:
        begin += os.write(fd, zeros[: end - begin])
