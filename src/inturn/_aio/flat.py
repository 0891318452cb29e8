"""The asynchronous driver of lanes: the iterator that `ordered_aflat_map` returns."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from inturn._core.flat_consumer import FlatRun
from inturn._engine.lanes import NO_LANE

from .driver import OrderedAmap

__all__ = ["OrderedAflatMap"]

R_co = TypeVar("R_co", covariant=True)


class OrderedAflatMap(OrderedAmap[R_co]):
    """An async iterator over elements, in the order of their items; also an async context manager.

    Made by `ordered_aflat_map`.

    Attributes:
        indexed: Whether it delivers ``(index of the item, element)``.
    """

    __module__ = "inturn"
    __slots__ = ("_lane",)

    _run: FlatRun  # pyright: ignore[reportIncompatibleVariableOverride]  # set once, by `__init__`

    def __init__(self, run: Any, source: Any, *, indexed: bool, name: str) -> None:
        super().__init__(run, source, indexed=indexed, name=name)
        self._lane = NO_LANE  # the head's, while its elements can be taken at once

    async def __anext__(self) -> R_co:
        if self._lane.buffer and self._clock() < self._breath:
            try:
                return self._take()  # type: ignore[no-any-return]
            except BaseException:  # a signal handler raised it, and the element is lost
                await self._leave()
                raise
        return await self._next()  # type: ignore[no-any-return]

    def _take(self) -> Any:
        lane = self._lane
        element = lane.pop()
        if lane.producer_waits:
            lane.relieve()
        return (lane.index, element) if self._run.indexed else element

    async def _step(self, loop: asyncio.AbstractEventLoop) -> Any:
        if self._lane.buffer:  # let other tasks run first
            await self._breathe()
            if self._lane.buffer:
                return self._take()
        self._lane = self._run.lane = NO_LANE  # so that a second consumer gets its error
        try:
            return await super()._step(loop)
        finally:
            self._lane = NO_LANE if self._run.job.stopped else self._run.lane

    def _finish(self) -> None:
        self._lane = NO_LANE
        super()._finish()
