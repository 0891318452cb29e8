"""`ordered_gather`: a run whose results are all kept; the first failure in time ends it."""

from __future__ import annotations

from typing import Any

from inturn._core.consumer import Run
from inturn._engine.window import NEVER, Window

from .driver import OrderedAmap

__all__ = ["GatherRun", "gather"]


class _Batches(Window):
    """A window that is refilled only when everything in it was delivered."""

    def room(self) -> int:
        begun = self.pulled % self.limit
        under_way = not begun and self.taken < self.pulled
        return 0 if self.exhausted or under_way else self.limit - begun


class GatherRun(Run):
    """The run of `ordered_gather` (guarantee 33): nothing bounds what is held but `batch_size`."""

    def __init__(self, *args: Any, batch_size: int | None, **settings: Any) -> None:
        super().__init__(*args, **settings, window=batch_size or NEVER, make_window=_Batches)
        self.job.fail_fast = True


async def gather(run: OrderedAmap[Any]) -> list[Any]:
    """Collect the results. What ends the run has its tasks awaited; for calls in threads an error does not wait."""
    try:
        return [result async for result in run]
    except BaseException:
        await run._leave()
        raise
