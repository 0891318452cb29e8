"""The asynchronous driver of lanes: the iterator that `ordered_aflat_map` returns."""

from __future__ import annotations

from typing import Any

from inturn._core.flat_consumer import FlatRun
from inturn._engine.lanes import NO_LANE

from .driver import OrderedAmap, R_co

__all__ = ["OrderedAflatMap"]


class OrderedAflatMap(OrderedAmap[R_co]):
    """An async iterator over elements, in the order of their items; also an async context manager.

    Made by `ordered_aflat_map`.

    Attributes:
        indexed: Whether it delivers ``(index of the item, element)``.
    """

    __module__ = "inturn"
    __slots__ = ()

    _nothing = NO_LANE  # `_held` is the head's lane, while elements can be taken from it
    _run: FlatRun  # pyright: ignore[reportIncompatibleVariableOverride]  # set once, by `__init__`

    async def __anext__(self) -> R_co:
        if self._held.buffer and self._clock() < self._breath:
            try:
                return self._take()  # type: ignore[no-any-return]
            except BaseException:  # a signal handler raised it, and the element is lost
                await self._leave()
                raise
        return await self._next()  # type: ignore[no-any-return]

    def _take(self) -> Any:
        lane = self._held
        element = lane.pop()
        if lane.producer_waits:
            lane.relieve()
        return (lane.index, element) if self.indexed else element

    async def _step(self) -> Any:
        if self._held.buffer:  # let other tasks run first
            await self._breathe()
            if self._held.buffer:
                return self._take()
        self._held = self._run.lane = NO_LANE  # so that a second consumer gets its error
        try:
            return await super()._step()
        finally:
            self._held = NO_LANE if self._run.job.stopped else self._run.lane
