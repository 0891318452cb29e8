"""The asynchronous driver of lanes: the iterator that `ordered_aflat_map` returns."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, TypeVar

from inturn._core.flat_consumer import FlatRun
from inturn._engine.lanes import NO_LANE, Lane
from inturn._pools.flat_serial import FlatSerial

from .driver import OrderedAmap, nothing_held

__all__ = ["OrderedAflatMap"]

R_co = TypeVar("R_co", covariant=True)


def _take(lane: Lane) -> Any:
    """The next element; IndexError if there is none."""
    element = lane.pop()
    if lane.resting:
        lane.relieve()
    return element


def _take_indexed(lane: Lane) -> Any:
    return lane.index, _take(lane)


class OrderedAflatMap(OrderedAmap[R_co]):
    """An async iterator over elements, in the order of their items; also an async context manager.

    Made by `ordered_aflat_map`.

    Attributes:
        indexed: Whether it delivers ``(index of the item, element)``.
    """

    __slots__ = ()

    _run: FlatRun

    def _deliver(self) -> Any:
        run = self._run
        run.lane = NO_LANE
        outcome = super()._deliver()
        if run.lane is not NO_LANE:
            self._pop = partial(_take_indexed if self.indexed else _take, run.lane)
        return outcome

    async def _wait(self, seconds: float | None) -> bool:
        self._pop = nothing_held  # one consumer at a time: a second one is to be told so
        return await super()._wait(seconds)

    async def _doze(self, seconds: float | None) -> bool:
        pool = self._run.job.pool
        if not isinstance(pool, FlatSerial):
            return await super()._doze(seconds)
        pause = pool.pause()
        if pause is None:
            return await super()._doze(seconds)
        if pause <= 0.0:
            pool.wait(0.0)
        await asyncio.sleep(pause if seconds is None else min(pause, seconds))
        return True
