"""The consumer's side of a flat map, for both drivers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from inturn._base.atomic import pop_or
from inturn._base.events import Event, ThreadEvent
from inturn._engine.lanes import NO_LANE, Lane, LaneWindow, Phase
from inturn._engine.window import NEVER
from inturn._model.outcome import Err
from inturn._model.policy import never_retries

from .consumer import AGAIN, LEFT_OUT, Run
from .flat_job import FlatJob

__all__ = ["FlatRun"]


class FlatRun(Run):
    window: LaneWindow
    job: FlatJob
    _job_class = FlatJob

    def __init__(self, fn: Any, *, buffer: int, event: Callable[[], Event] = ThreadEvent, **settings: Any) -> None:
        self.lane = NO_LANE
        self._latest = -1  # the item whose element, or failure, was delivered last
        make_window = partial(LaneWindow, buffer=buffer, event=event)
        super().__init__(fn, chunksize=None, batch=False, make_window=make_window, **settings)
        self.window.straight = False
        self.job.asks = not never_retries(self.policy)

    def deliver(self) -> Any:
        """The next element of the head, or what takes the place of the rest; LEFT_OUT at its end.

        `lane` is where further elements can be taken from, as long as there are any.
        """
        window, indexed = self.window, self.indexed
        self.lane = NO_LANE
        lane = window.peek()
        if not isinstance(lane, Lane):
            return self.settle(lane)  # the error of the source
        self._latest = lane.index
        phase = lane.phase  # before the buffer: at the end of a lane, all that it has made is there
        outcome: Any = pop_or(AGAIN, lane.pop)
        if outcome is not AGAIN:
            if lane.producer_waits:
                lane.relieve()
            must_pull = self.source is not None and window.room() > 0 and window.last_index == NEVER
            if not must_pull and self.job.watcher is None and not self.one_by_one:
                self.lane = lane.telling(self.handed_over) if self._watched() else lane
            return (lane.index, outcome) if indexed else outcome
        if phase is Phase.OPEN or phase is Phase.PAUSING:  # another thread, which had seen this lane before, was faster
            return AGAIN
        if lane.error is None:
            window.drop()
            return LEFT_OUT
        lane.error.delivered = lane.made
        return self.settle(lane.error)

    def last_delivered(self) -> int:
        return self._latest

    def left(self) -> int | None:
        return None if self.job.end is None else 0  # nobody knows how many elements there are

    def forget(self) -> None:
        super().forget()
        self.lane = NO_LANE

    def _replace_head(self) -> None:
        lane = self.window.peek()
        assert isinstance(lane, Lane)
        super()._replace_head()
        lane.error = None
        lane.leave()

    def _again(self, err: Err, after: float) -> bool:
        lane = self.window.peek()
        assert isinstance(lane, Lane)
        if lane.phase is not Phase.UNDECIDED:
            return False
        self.job.retried.add(1)
        lane.pause(self.job.clock() + after)
        lane.event.set()
        return True
