"""The synchronous driver of lanes: the iterator that `ordered_flat_map` returns."""

from __future__ import annotations

from typing import Any

from inturn._base.signals import found_nothing
from inturn._core.flat_consumer import FlatRun
from inturn._engine.lanes import NO_LANE

from .driver import OrderedMap, Process, R_co

__all__ = ["OrderedFlatMap"]


class OrderedFlatMap(OrderedMap[R_co]):
    """An iterator over the elements of items, in order; also a context manager. Made by `ordered_flat_map`.

    Attributes:
        indexed: Whether it delivers ``(index of the item, element)``.
    """

    __module__ = "inturn"
    __slots__ = ()

    _nothing = NO_LANE  # `_held` is the head's lane, while elements can be taken from it
    _run: FlatRun  # pyright: ignore[reportIncompatibleVariableOverride]  # it is made with one, and keeps it

    def __next__(self) -> R_co:
        lane = self._held
        if lane.buffer and self._forks == Process.forks:
            try:
                element = lane.pop()
                if lane.producer_waits:
                    lane.relieve()
                return (lane.index, element) if self.indexed else element  # type: ignore[return-value]
            except BaseException as error:
                if not found_nothing(error):  # it comes from outside, and the element is lost
                    self._leave_behind_lost(error)
                    raise
        return self._next()  # type: ignore[no-any-return]

    def _step(self) -> Any:
        self._held = self._run.lane = NO_LANE  # one consumer at a time: a second one is to be told so
        try:
            return super()._step()  # named nowhere: the frames of an item's error keep this one
        finally:
            self._held = NO_LANE if self._run.job.stopped else self._run.lane  # closed meanwhile, from elsewhere
