"""`ordered_gather`: a run whose results are all kept; the first failure in time ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inturn._core.consumer import Run
from inturn._core.job import Job
from inturn._engine.chunk import Chunk
from inturn._engine.window import NEVER, Window
from inturn._model.outcome import Err, Kind

from .driver import OrderedAmap

__all__ = ["GatherRun", "gather"]


class _Batches(Window):
    """A window that is refilled only when everything in it was delivered."""

    def __init__(self, concurrency: int, size: int, *, batch: bool) -> None:
        super().__init__(concurrency, size, None, batch=batch)
        self._batch_size = size

    def room(self) -> int:
        begun = self.pulled % self._batch_size
        if self.exhausted or (not begun and self.taken < self.pulled):
            return 0
        return self._batch_size - begun


class _FailFast(Job):
    """A job that ends with the first failure in time to which no policy gives a value."""

    def _end_at(self, index: int, chunk: Chunk | None = None) -> None:
        super()._end_at(-1, chunk)

    def failed(self, chunk: Chunk, item: Any, error: BaseException, elapsed: float, kind: Kind | None = None) -> None:
        super().failed(chunk, item, error, elapsed, kind)
        outcome = chunk.out[-1]
        if self.window.last_index < 0 and self.end is None and type(outcome) is Err:
            if outcome.kind is not Kind.FATAL:
                self.note(chunk.index + len(chunk.out) - 1, outcome)
            self.crash(outcome.error)


class GatherRun(Run):
    """The run of `ordered_gather` (guarantee 33): nothing bounds what is held but `batch_size`."""

    batch_size: int | None = None

    def __init__(self, *args: Any, batch_size: int | None, **settings: Any) -> None:
        self.batch_size = batch_size
        super().__init__(*args, **settings, window=NEVER)

    def _window_of(self, concurrency: int, limit: int | None, chunksize: int | None, batch: bool) -> Window:
        if self.batch_size is None:
            return super()._window_of(concurrency, limit, chunksize, batch)
        return _Batches(concurrency, self.batch_size, batch=batch)

    def _job_of(self, fn: Callable[[Any], Any], timeout: float | None, concurrency: int) -> Job:
        job = super()._job_of(fn, timeout, concurrency)
        return _FailFast(fn, self.window, job.decide, timeout, concurrency, self.stage)


async def gather(run: OrderedAmap[Any]) -> list[Any]:
    async with run:
        return [result async for result in run]
