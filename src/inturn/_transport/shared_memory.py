"""Memory that two processes share, for large payloads.

The problem: large objects are slow through a pipe. Named shared memory
(`multiprocessing.shared_memory`) leaves files behind when processes are killed. So a `Memory` has
no name: it is a memfd, or a temporary file that is unlinked before anything is written. The system
frees it when both sides have ended, however they end. On a full file system, writing to mapped
memory would kill the process by ``SIGBUS``. So space is allocated first, which is an ``OSError``.

Each worker process has two: the parent writes into *down*, the worker into *up*. The first page
holds a few numbers (`numbers`). Payloads follow, up to `MOST` bytes; then they go through the pipe,
until the writer starts again at the front (`clear`), when the reader has copied all of them.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
from typing import Any, Final

__all__ = ["Memory", "Where"]

MOST: Final = 1 << 28
"""Bytes that the payloads of one chunk may use in all; a single payload may be larger."""

_NO_MEMFD: Final = {errno.ENOSYS, errno.EPERM, errno.EINVAL}
_HEAD: Final = 4096
_STEP: Final = 1 << 20
_UNTRACKED: Final[dict[str, Any]] = {"trackfd": False} if sys.version_info >= (3, 13) else {}

Where = tuple[int, int]  # offset and length in bytes


class Memory:
    """One process's view of shared memory: one writes, the other calls `view`, each in one thread."""

    __slots__ = ("_end", "_map", "_page", "_size", "fd", "numbers")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._page = mmap.mmap(fd, _HEAD, **_UNTRACKED)
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
        os.close(self.fd)
        self.numbers.release()
        self._page.close()
        if self._map is not None:
            self._map.close()

    def clear(self) -> None:
        """Start again at the front: the reader has copied everything."""
        self._end = _HEAD

    def shrink(self) -> None:
        """Give the space back to the system: the reader has copied everything."""
        self.clear()
        if self._size > _HEAD:
            os.ftruncate(self.fd, _HEAD)  # what is mapped is not read before it is allocated again
            self._size = _HEAD

    def fill(self) -> None:
        """Accept nothing from now on."""
        self._end = MOST + 1

    def used(self) -> bool:
        """Whether anything was written since `clear`."""
        return self._end > _HEAD

    def stow(self, data: memoryview) -> Where | None:
        """Write the data; None if there is no room for it."""
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
        except (OSError, MemoryError):  # the file system is full: use the pipe
            return None
        self._end = -(-end // 64) * 64
        return begin, size

    def view(self, where: Where) -> memoryview:
        """The data, without a copy; release it before any other use of this memory."""
        begin, size = where
        return memoryview(self._reach(begin + size))[begin : begin + size]

    def _reach(self, end: int) -> mmap.mmap:
        """The mapping, at least `end` bytes long."""
        if self._map is None or len(self._map) < end:
            if self._map is not None:
                self._map.close()
                self._map = None
            self._map = mmap.mmap(self.fd, os.fstat(self.fd).st_size, **_UNTRACKED)
        return self._map


def _anonymous() -> int:
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("inturn", os.MFD_CLOEXEC)
        except OSError as error:
            if error.errno not in _NO_MEMFD:
                raise
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _allocate(fd: int, begin: int, end: int) -> None:
    """Allocate space on the file system; `OSError` if it is full (guarantee 28)."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, begin, end - begin)
        return
    zeros = bytes(min(_STEP, end - begin))
    os.lseek(fd, begin, os.SEEK_SET)
    while begin < end:
        begin += os.write(fd, zeros[: end - begin])
