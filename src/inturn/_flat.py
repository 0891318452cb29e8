"""The synchronous driver of lanes: what a place does for an item, and the iterator that `ordered_flat_map` returns.

A place produces one item from its first element to its end; it rests, in C, while the lane is full, while the item
pauses before it runs again, and while its policy has not yet decided (see `_lanes`). It is woken by the lane's bell:
by the consumer when there is room or a decision, and by `FlatJob.stop`. ``timeout`` counts the time outside of these
rests.

============ ===================================== =================================================
a call       how it is told                        left by
============ ===================================== =================================================
unlimited    ``timeout`` is None                   its end
producing    its `Call` is open                    handing over an element; its end; `give_up`
handing over its `Call` is settled by its thread   the thread, which opens it again
resting      ``place.call`` is None                its bell, with a new `Call` that started earlier
given up     its `Call` is settled by the warden   its thread comes back, closes the iterator and leaves
============ ===================================== =================================================
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from time import perf_counter as clock
from typing import Any, Final, TypeVar

from . import _sync
from ._lanes import NO_LANE, Lane, LaneWindow, Phase
from ._outcome import Err, Failure, Kind, as_failure_kind, detach, shorten
from ._policy import ENDS, LATER, Decide, Policy, Retry, decision_of, never_retries
from ._run import AGAIN, LEFT_OUT, Raised, Run
from ._serial import Serial
from ._source import Source
from ._sync import OrderedMap
from ._window import Chunk
from ._worker import LONG_S, Call, Job, Place

__all__ = ["FlatJob", "FlatRun", "FlatSerial", "OrderedFlatMap", "elements_of"]

R_co = TypeVar("R_co", covariant=True)

_NONE: Final = object()


def elements_of(result: Any) -> Iterator[Any]:
    """An iterator over what ``fn`` returned."""
    try:
        return iter(result)
    except TypeError:
        if hasattr(type(result), "__iter__"):
            raise  # an error of its own
        cure = "return [x] for a single element, [] for none, or use ordered_map"
        if hasattr(type(result), "__aiter__"):
            cure = "for an async generator function use ordered_aflat_map"
        text = f"fn must return an iterable, got {type(result).__name__}: {shorten(result)}; {cure}"
        if hasattr(type(result), "__await__"):
            close(result)  # a coroutine that nobody awaits would warn
        raise TypeError(text) from None


def close(iterator: Any) -> None:
    """Close a generator, or what can be closed like one; what it raises then is nobody's any more."""
    try:
        iterator.close()
    except BaseException:  # noqa: BLE001, S110 - as for calls that end after the run
        pass


class FlatJob(Job):
    """A job whose items produce into lanes."""

    window: LaneWindow

    def __init__(
        self, fn: Any, window: LaneWindow, decide: Decide, timeout: float | None, concurrency: int, policy: Policy
    ) -> None:
        super().__init__(fn, window, decide, timeout, concurrency)
        self._asks = not never_retries(policy)

    # ---- from the places -------------------------------------------------------------------------

    def failed(self, chunk: Chunk, item: Any, error: BaseException, elapsed: float, kind: Kind | None = None) -> None:
        """The item has failed, after what its lane has made."""
        lane = chunk.out[0]
        if kind is None:
            kind = as_failure_kind(error)
            error = detach(error)
        decided: Any = ENDS
        if kind is Kind.FAILED:
            delivered = lane.made - len(lane.buffer)
            decided = self.decide(Failure(chunk.index, item, error, chunk.attempt, elapsed, delivered))
        again = isinstance(decided, Retry)
        if again and lane.made:
            decided, again = ENDS, False
        if decided is ENDS:
            self._halt_at(chunk.index)
        err = Err(error, item, kind, chunk.attempt, elapsed)
        undecided = decided is LATER and self._asks and not lane.made
        if again or undecided:
            chunk.todo = iter((item,))
            chunk.attempt += 1
        if again:
            self.retried += 1
            lane.pause(clock() + decided.after)
        else:
            lane.fail(err, undecided=undecided)
            self.rouse(lane.index)

    def ended(self, place: Place, chunk: Chunk) -> None:
        super().ended(place, chunk)
        lane = chunk.out[0]
        if lane.phase is not Phase.ENDED and not self.stopped:
            self.window.again(chunk)  # its call was given up: the next place takes up where this one was

    def rouse(self, index: int) -> None:
        """Wake the consumer if it waits for this item."""
        try:
            if self.sleeping[0] == index:
                self.sleeping.pop()
                self.wake.put(None)
        except IndexError:
            pass

    def run(self, chunk: Chunk, place: Place) -> bool:
        lane = chunk.out[0]
        while self.cleared(lane):
            item = next(chunk.todo, _NONE)
            if item is _NONE:  # drained: it never starts
                break
            if not self.context.copy().run(produce, chunk, lane, item, self, place):
                return False
        return True

    def cleared(self, lane: Lane) -> bool:
        """Wait until the item may produce; False if it never will."""
        while not self.stopped:
            if lane.phase is Phase.OPEN:
                return True
            if lane.phase is Phase.ENDED:
                return False
            left = None
            if lane.phase is Phase.PAUSING:
                left = lane.due - clock()
                if left <= 0:
                    lane.reopen()
                    continue
            try:
                lane.bell.get(timeout=left and min(left, LONG_S))  # type: ignore[attr-defined]
            except Empty:
                pass
        return False

    def rest(self, lane: Lane) -> bool:
        """Wait for room in the lane; False if the run is over."""
        while lane.full() and not self.stopped:
            lane.resting.append(None)
            if lane.full() and not self.stopped:  # asked after `resting` is set: see `relieve`, `stop`
                lane.bell.get()  # type: ignore[attr-defined]
            lane.resting.clear()
        return not self.stopped

    # ---- from anywhere ---------------------------------------------------------------------------

    def stop(self) -> None:
        super().stop()
        for place in self.pool.places():
            chunk = place.chunk
            if chunk is not None and chunk.out:
                chunk.out[0].bell.put(None)


def produce(chunk: Chunk, lane: Lane, item: Any, job: FlatJob, place: Place) -> bool:
    """Run the item once, in its context, into its lane; False if the call was given up, and its thread has to go."""
    sleeping, index, append = job.sleeping, lane.index, lane.append
    started = clock()  # shifted by the time spent waiting for room
    mine = True
    error: BaseException | None = None
    iterator: Any = None
    call = _limit(item, started, job, place)
    try:
        iterator = elements_of(job.fn(item))
        take = iterator.__next__
        while not job.stopped:
            if lane.full():
                mine = _settled(call, place)
                call = None
                rested = clock()
                if not mine or not job.rest(lane):
                    break
                started += clock() - rested
                call = _limit(item, started, job, place)
            try:
                element = take()
            except StopIteration:
                mine = _settled(call, place)
                if mine:
                    lane.finish()
                    job.rouse(index)
                return mine
            if call is not None and not call.settle():
                mine = False
                break
            lane.made += 1
            append(element)
            del element  # it may be delivered now, and nobody else keeps it
            if call is not None:
                call.reopen()
            if sleeping:
                job.rouse(index)
    except BaseException as caught:  # noqa: BLE001 - it travels to the consumer
        error = caught
    try:
        mine = mine and _settled(call, place)
        if error is None:  # the run is over, or the call was given up
            close(iterator)
        elif mine:
            job.failed(chunk, item, error, clock() - started)
        return mine
    finally:
        del error


def _limit(item: Any, started: float, job: Job, place: Place) -> Call | None:
    """Put the call under its time limit, if there is one."""
    if job.timeout is None:
        return None
    place.call = call = Call(item, started)
    job.warden.arm()  # after `call` is set: the warden may just be lying down
    return call


def _settled(call: Call | None, place: Place) -> bool:
    """Take the call from under its time limit; False if it was given up."""
    if call is None:
        return True
    if not call.settle():
        return False
    place.call = None
    return True


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
                    self._item = next(chunk.todo, _NONE)
                    self._context = job.context.copy()
                    self._spent = 0.0
                if self._item is not _NONE:
                    self._context.run(self._advance, chunk, lane)
            finally:
                self._free.append(None)
            if job.stopped:
                self.stop()
        if lane.phase is Phase.ENDED:
            job.ended(self, chunk)

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
        except BaseException as error:  # noqa: BLE001 - it travels to the consumer
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

    def __init__(self, fn: Any, *, buffer: int, **settings: Any) -> None:
        self._buffer = buffer
        super().__init__(fn, chunksize=None, batch=False, **settings)

    def _window_of(self, concurrency: int, limit: int | None, chunksize: int | None, batch: bool) -> LaneWindow:
        return LaneWindow(concurrency, limit, self._buffer, SimpleQueue)

    def _job_of(self, fn: Any, timeout: float | None, concurrency: int) -> FlatJob:
        return FlatJob(fn, self.window, decision_of(self.policy), timeout, concurrency, self.policy)

    def _again(self, err: Err, after: float) -> bool:
        lane = self.window.head()
        assert isinstance(lane, Lane)
        if lane.phase is not Phase.UNDECIDED:
            return False
        self.job.retried += 1
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
        self._lane = NO_LANE  # elements are popped from it without further ado

    def __next__(self) -> R_co:
        if self._forks == _sync._forks:
            lane = self._lane
            try:
                element = lane.pop()
            except IndexError:
                pass
            else:
                if lane.resting:
                    lane.relieve()
                return (lane.index, element) if self.indexed else element  # type: ignore[return-value]
        return self._next()  # type: ignore[no-any-return]

    def _step(self) -> Any:
        self._lane = NO_LANE  # one consumer at a time: a second one is to be told so
        return super()._step()

    def _deliver(self) -> Any:
        """The next element of the head, or what takes the place of the rest; LEFT_OUT where the item has ended."""
        run, window = self._run, self._run.window
        lane = window.head()
        if not isinstance(lane, Lane):
            return super()._deliver()
        over = lane.over()
        try:
            element = lane.pop()
        except IndexError:
            if not over:
                return AGAIN
        else:
            if lane.resting:
                lane.relieve()
            if not run.shows_progress:
                self._lane = lane
                if self._over:  # closed meanwhile, from elsewhere
                    self._lane = NO_LANE
            return (lane.index, element) if self.indexed else element
        if lane.error is None:
            window.drop()
            outcome: Any = LEFT_OUT
        else:
            lane.error.delivered = lane.made
            outcome = run.settle(lane.error)
            if outcome is AGAIN or type(outcome) is Raised:
                return outcome
            lane.error = None
            lane.leave()
        if self._feeder is not None:
            self._feeder.room()
        if outcome is LEFT_OUT:
            return outcome
        return (lane.index, outcome) if self.indexed else outcome

    def _finish(self) -> None:
        self._lane = NO_LANE
        super()._finish()

    def close(self) -> None:
        if self._forks == _sync._forks:
            self._lane = NO_LANE
        super().close()

    close.__doc__ = OrderedMap.close.__doc__
