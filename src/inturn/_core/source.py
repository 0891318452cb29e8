"""Pulling: the one place where a synchronous source is advanced.

The consumer (with ``live`` the feeder) pulls by the handful: one item for certain, further ones
only while all of them have taken less than a millisecond. Each item can be claimed as soon as it is
pulled, so a source that blocks in the midst of a handful holds up nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from inturn._base.signals import raised_by_handler
from inturn._engine.window import NEVER
from inturn._model.outcome import Err, Kind, without_our_frames

from .job import Job

__all__ = ["HANDFUL_S", "Source"]

HANDFUL_S: Final = 0.001
_MOST: Final = 4096

_WITH_THE_SOURCE: Final = RuntimeError("the source has the error")

# Iterators that answer at once and never raise: they are advanced in C.
_SEQUENCES: Final[tuple[Any, ...]] = ((), [], range(0), range(1 << 100), "", b"", bytearray())
_PROMPT: Final = tuple(type(iter(each)) for each in _SEQUENCES)


class Source:
    def __init__(self, iterator: Iterator[Any], job: Job) -> None:
        self._iterator: Iterator[Any] | None = iterator
        self._prompt = type(iterator) in _PROMPT
        self._job = job
        self.errors: list[Exception] = []  # one, until its turn: its frames refer to this object
        add = job.window.add
        self._add = add if job.trace is None else job.trace.adding(add, job.clock)

    def pull(self, until: float) -> None:
        """Pull an item, and further ones until this moment; there must be room (guarantee 6)."""
        window, pool, watcher = self._job.window, self._job.pool, self._job.watcher
        room = window.room() if pool.ahead else 1  # who runs a call in its turn pulls its item in its turn
        iterator = self._iterator
        assert iterator is not None
        if self._prompt and room > 1:
            batch = list(islice(iterator, min(room, _MOST)))
            if not batch:
                self._finish(None)
                return
            if self._job.trace is not None:
                self._job.trace.pulled(len(batch), self._job.clock())
            fresh = window.extend(batch)
            if watcher is not None:
                watcher.pulled()
            pool.notify(fresh)
            pool.settle()
            return
        add, clock, origins = self._add, self._job.clock, self._job.origins
        while True:
            try:
                item = next(iterator)
            except Exception as error:  # of the source: it surfaces in its turn
                if raised_by_handler(error):
                    raise
                if isinstance(error, StopIteration):
                    self._finish(None)
                else:
                    without_our_frames(error)
                    self._fail(error)
                return
            if origins is not None:
                origins.pulled()
            fresh = add(item)
            if watcher is not None:
                watcher.pulled()
            if fresh and pool.has_capacity():
                pool.notify(fresh)
                pool.settle()
            room -= 1
            if not room or window.last_index != NEVER or clock() >= until:
                return

    def _fail(self, error: Exception) -> None:
        """Keep the error until its turn; not in the window if the consumer has pulled.

        The frames of its traceback refer to the run's handle. If threads of the run referred to the
        error, nobody could lose the run any more (guarantee 13).
        """
        if self._job.feeder is None:
            self.errors.append(error)
            error = _WITH_THE_SOURCE
        self._finish(Err(error, kind=Kind.SOURCE))

    def _finish(self, final: Err | None) -> None:
        self._iterator = None
        self._job.pool.notify(self._job.window.finish(final))
        self._job.pool.settle()
