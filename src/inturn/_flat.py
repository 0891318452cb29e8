"""The synchronous driver of lanes: the iterator that `ordered_flat_map` returns, its run, and ``"serial"``."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter as clock
from typing import Any, TypeVar

from . import _sync
from ._alarm import Alarm
from ._chunk import Chunk
from ._elements import close, elements_of
from ._flat_job import NOTHING, FlatJob
from ._lanes import NO_LANE, Bell, Lane, LaneWindow, Phase
from ._outcome import Err
from ._policy import decision_of
from ._run import AGAIN, LEFT_OUT, Raised, Run
from ._serial import Serial
from ._source import Source
from ._sync import OrderedMap
from ._window import NEVER

__all__ = ["FlatRun", "FlatSerial", "OrderedFlatMap"]

R_co = TypeVar("R_co", covariant=True)


class FlatSerial(Serial):
    """``executor="serial"``: each element is produced in the consumer's thread, when it is delivered.

    Whoever works with the iterator holds the token in ``_free``, so that `stop`, which may come from anywhere, never
    closes a generator that is running.
    """

    def __init__(self, job: FlatJob) -> None:
        super().__init__(job)
        self._flat = job
        self._free = deque([None])
        self._item: Any = None
        self._iterator: Iterator[Any] | None = None
        self._context = contextvars.Context()
        self._spent = 0.0

    def wait(self, seconds: float | None) -> None:
        """Produce one element of the head; or start it, or let it pause."""
        job = self._flat
        if self.chunk is None:
            chunk = job.window.claim() if job.may_start() else None
            if chunk is None:  # a live source
                job.sleep(seconds)
                return
            job.begun(self, chunk)
        chunk = self.chunk
        assert chunk is not None
        lane = chunk.out[0]
        if lane.phase is Phase.PAUSING:
            left = lane.due - clock()
            if left > 0:
                job.sleep(left if seconds is None else min(left, seconds))
                return
            lane.reopen()
        if lane.phase is Phase.OPEN:
            self._free.pop()
            try:
                if self._iterator is None:
                    self._item = next(chunk.todo, NOTHING)
                    self._context = job.context.copy()
                    self._spent = 0.0
                if self._item is not NOTHING:
                    self._context.run(self._advance, chunk, lane)
            finally:
                self._free.append(None)
            if job.stopped:
                self.stop()
        if lane.phase is Phase.ENDED:
            job.ended(self, chunk)

    def pause(self) -> float | None:
        """Seconds until `wait` has something to do; None if that takes something from elsewhere."""
        if self.chunk is None:
            return 0.0 if self._flat.window.available() and self._flat.may_start() else None
        lane: Lane = self.chunk.out[0]
        return max(0.0, lane.due - clock()) if lane.phase is Phase.PAUSING else 0.0

    def _advance(self, chunk: Chunk, lane: Lane) -> None:
        job, item, begun = self._flat, self._item, clock()
        try:
            if self._iterator is None:
                self._iterator = elements_of(job.fn(item))
            try:
                element = next(self._iterator)
            except StopIteration:
                self._iterator = self._item = None
                lane.finish()
                return
            lane.made += 1
            lane.append(element)
            self._spent += clock() - begun
        except BaseException as error:  # it travels to the consumer
            self._iterator = self._item = None
            job.failed(chunk, item, error, self._spent + clock() - begun)

    def stop(self) -> None:
        """Close the iterator, unless it is running: then `wait` does."""
        try:
            self._free.pop()
        except IndexError:
            return
        try:
            iterator, self._iterator = self._iterator, None
            self._item = None
            if iterator is not None:
                self._context.run(close, iterator)
        finally:
            self._free.append(None)


class FlatRun(Run):
    """The consumer's side of a run whose outcomes are lanes."""

    window: LaneWindow
    job: FlatJob

    def __init__(self, fn: Any, *, buffer: int, bell: Callable[[], Bell] = Alarm, **settings: Any) -> None:
        self._buffer = buffer
        self._bell = bell
        self.lane = NO_LANE
        super().__init__(fn, chunksize=None, batch=False, **settings)

    def _window_of(self, concurrency: int, limit: int | None, chunksize: int | None, batch: bool) -> LaneWindow:
        return LaneWindow(concurrency, limit, self._buffer, self._bell)

    def _job_of(self, fn: Any, timeout: float | None, concurrency: int) -> FlatJob:
        return FlatJob(fn, self.window, decision_of(self.policy), timeout, concurrency, self.policy)

    def deliver(self, *, bulk: bool, indexed: bool) -> Any:
        """The next element of the head, or what takes the place of the rest; LEFT_OUT where the item has ended.

        With ``bulk``, `lane` is where further elements can be taken from, as long as there are any.
        """
        window = self.window
        lane = window.head()
        if not isinstance(lane, Lane):
            return super().deliver(bulk=False, indexed=indexed)
        over = lane.over()
        try:
            outcome: Any = lane.pop()
        except IndexError:
            if not over:
                return AGAIN
        else:
            if lane.resting:
                lane.relieve()
            if bulk and (window.room() <= 0 or window.halt != NEVER):  # else `next` has to pull
                self.lane = lane
            return (lane.index, outcome) if indexed else outcome
        if lane.error is None:
            window.drop()
            return LEFT_OUT
        lane.error.delivered = lane.made
        outcome = self.settle(lane.error)
        if outcome is AGAIN or type(outcome) is Raised:
            return outcome
        lane.error = None
        lane.leave()
        return (lane.index, outcome) if indexed and outcome is not LEFT_OUT else outcome

    def _again(self, err: Err, after: float) -> bool:
        lane = self.window.head()
        assert isinstance(lane, Lane)
        if lane.phase is not Phase.UNDECIDED:
            return False
        self.job.retried.add(1)
        lane.pause(clock() + after)
        lane.bell.put(None)
        return True


class OrderedFlatMap(OrderedMap[R_co]):
    """An iterator over the elements of items, in order; also a context manager. Made by `ordered_flat_map`.

    Attributes:
        indexed: Whether it delivers ``(index of the item, element)``.
    """

    __slots__ = ("_lane",)

    _run: FlatRun

    def __init__(self, run: FlatRun, source: Source, *, live: bool, indexed: bool, name: str) -> None:
        super().__init__(run, source, live=live, indexed=indexed, name=name)
        self._bulk = not run.shows_progress
        self._lane = NO_LANE  # elements are taken from it without further ado

    def __next__(self) -> R_co:
        if self._forks == _sync._forks:
            lane = self._lane
            try:
                element = lane.pop()
                if lane.resting:
                    lane.relieve()
                return (lane.index, element) if self.indexed else element  # type: ignore[return-value]
            except IndexError:
                pass
            except BaseException:  # from a signal handler, and the element is lost
                self._leave()
                raise
        return self._next()  # type: ignore[no-any-return]

    def _step(self) -> Any:
        self._lane = self._run.lane = NO_LANE  # one consumer at a time: a second one is to be told so
        try:
            return super()._step()  # named nowhere: the frames of an item's error keep this one
        finally:
            self._lane = NO_LANE if self._over else self._run.lane  # closed meanwhile, from elsewhere

    def _finish(self) -> None:
        self._lane = NO_LANE
        super()._finish()

    def _leave(self) -> None:
        self._lane = NO_LANE
        super()._leave()
