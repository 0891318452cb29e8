"""The asynchronous driver of lanes: the iterator that `ordered_aflat_map` returns."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from inturn._core.flat_consumer import FlatRun
from inturn._engine.lanes import NO_LANE, Lane
from inturn._pools.flat_serial import FlatSerial

from .driver import NOTHING_READY, OrderedAmap

__all__ = ["OrderedAflatMap"]

R_co = TypeVar("R_co", covariant=True)


class _Elements:
    """What a lane holds, for the consumer to take."""

    __slots__ = ("_buffer", "_indexed", "_lane")

    def __init__(self, lane: Lane, *, indexed: bool) -> None:
        self._lane = lane
        self._buffer = lane.buffer
        self._indexed = indexed

    def __len__(self) -> int:
        return len(self._buffer)

    def pop(self) -> Any:
        lane = self._lane
        element = lane.pop()
        if lane.resting:
            lane.relieve()
        return (lane.index, element) if self._indexed else element


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
        run.lane, self._ready = NO_LANE, NOTHING_READY
        outcome = super()._deliver()
        if run.lane is not NO_LANE:
            self._ready = _Elements(run.lane, indexed=self.indexed)
        return outcome

    async def _wait(self, seconds: float | None) -> bool:
        self._ready = NOTHING_READY  # one consumer at a time: a second one is to be told so
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
