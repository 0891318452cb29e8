"""What the workers and the consumer of a run share: its `Job`, and the `BasePool` of slots.

A `Job` never refers to the run's handle, so the handle can be collected while workers are busy.
Workers call `failed`, `ended` and `crash`. Anyone, at any moment, calls `stop` and `notify`: they
take no lock, so that a finaliser or a signal handler may call them.

How a run ends is one state, `Job.end`:

======== ===================================== =============================== ===================
state    what has happened                     what ``next`` does then         left by
======== ===================================== =============================== ===================
None     the run goes on                                                       `stop`, `crash`
CLOSED   its end, an error in turn, ``close``  ``StopIteration``
DROPPED  the last reference to the handle went (nobody could call it)
an error something failed that has no turn     raises it, once                 `Run.advance`
======== ===================================== =============================== ===================
"""

from __future__ import annotations

import contextvars
import enum
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from inturn._base.atomic import Once, Total, fence, remainder_of
from inturn._base.clock import clock
from inturn._base.events import Event, ThreadEvent
from inturn._engine.chunk import Chunk
from inturn._engine.window import NEVER, Window
from inturn._model.outcome import Err, Failure, Kind, as_failure_kind, detach, note
from inturn._model.policy import ENDS, Decide, Decision, Retry

from .origins import Origins
from .roles import Feeds, Timekeeper, Watches
from .slot import Call, Slot
from .steps import raised_for

if TYPE_CHECKING:
    from inturn._model.recorder import Recorder

    from .throttle import Throttle

__all__ = ["BasePool", "End", "Job", "drain"]

_MOST_AT_ONCE: Final = 1 << 20  # users write ``sys.maxsize``, and no system has so many threads


class End(enum.Enum):
    CLOSED = "closed"
    DROPPED = "dropped"


class BasePool(ABC):
    """Where the calls of a run go: its slots.

    The consumer calls `open`, `work`, `settle` and `retire`; the supervisor `grow`, `take_back` and
    `released`; anyone `stop`, and anyone but a finaliser or a signal handler the rest.
    """

    kind = "executor"  # what its workers are; others: thread, process, task, serial
    inline = False  # whether calls run in the consumer's thread, when it waits
    ahead = True  # whether items are pulled that cannot be run yet, as far as the window allows
    kills = False  # whether `stop` ends calls that run: `join` does not wait for their own end

    def __init__(self, job: Job) -> None:
        self.job = job

    def open(self) -> None:
        """The first ``next``."""
        self.job.supervisor.start()

    def work(self, *, block: bool) -> float | None:
        """Do what the consumer has to do before it sleeps; seconds until there is more, or None.

        With `block` it may take its time: else the consumer is a coroutine, and others want a turn.
        """
        return None

    @abstractmethod
    def has_capacity(self) -> bool:
        """Whether `notify` could have an effect."""

    @abstractmethod
    def notify(self, chunks: int) -> None:
        """So many chunks more may be claimed."""

    @abstractmethod
    def slots(self) -> list[Slot]: ...

    def running(self) -> int:
        return sum(slot.chunk is not None for slot in self.slots())

    def worker_of(self, slot: Slot) -> int:
        """What a trace knows the slot's worker by, which calls this; 0 if nobody knows."""
        return threading.get_ident()

    def look_in(self, seconds: float) -> None:
        """The limit lets nothing start before so many seconds have passed: look again then."""
        self.job.supervisor.look_in(seconds)

    def grow(self) -> float | None:
        """Start the workers that are wanted; seconds until the supervisor is to look again."""

    def take_back(self, chunk: Chunk) -> bool | None:
        """`Window.take_back` while no worker claims; None if that can't be had now."""
        return self.job.window.take_back(chunk)

    def rest(self, *, over: bool = False) -> None:
        """A worker waits for the consumer, who may need it for another run; or that is `over`."""

    def settle(self) -> None: ...  # wait while workers start that must not start beside user code
    def released(self) -> None: ...  # the supervisor leaves: no further worker is started
    def stop(self) -> None: ...  # let idle workers go; waits for nothing and takes no lock
    def retire(self) -> None: ...  # after `stop`: what may take locks, but must not wait
    def join(self) -> None: ...  # after `stop`: wait until only what was given up is left


def drain(chunk: Chunk | None) -> None:
    """What the chunk has not started never starts."""
    if chunk is not None:
        remainder_of(chunk.todo)


class Job:
    pool: BasePool
    supervisor: Timekeeper
    end: End | BaseException | None = None  # how the run has ended; `_end` sets it, once

    def __init__(
        self,
        fn: Callable[[Any], Any],
        window: Window,
        decide: Decide,
        timeout: float | None,
        concurrency: int,
        stage: str | None = None,
    ) -> None:
        self.stage = stage  # the `name` of the run
        self.origins: Origins | None = None  # where the source is a run
        self.fn = fn
        self.window = window
        self.decide = decide
        self.timeout = timeout
        self.concurrency = min(concurrency, _MOST_AT_ONCE)
        self.clock: Callable[[], float] = clock  # seconds; another one where time is not the system's
        self.throttle: Throttle | None = None
        self.context = contextvars.Context()
        self.deadline_at: float | None = None
        self.wake: Event = ThreadEvent()  # what the consumer sleeps by
        self.feeder: Feeds | None = None
        self.watcher: Watches | None = None
        self.farewell: Callable[[], object] | None = None  # what is to be shown when the run is dropped
        self.sleeping: list[int] = []  # the index the consumer sleeps for, if it does
        self.retried = Total()
        self.abandoned = 0
        self.fail_fast = False  # whether the first failure in time to which no policy gives a value ends the run
        self.aborted = Once()  # taken by that failure
        self.busy_s = Total()
        self.longest_s = 0.0  # that a chunk has taken
        self.pulling_s = 0.0  # that a feeder has spent in pulls
        self.last_end = 0.0
        self.trace: Recorder | None = None

    @property
    def stopped(self) -> bool:
        return self.end is not None

    def may_start(self) -> bool:
        return self.end is None and (self.deadline_at is None or self.clock() < self.deadline_at)

    def label(self, *parts: object) -> str:
        """The name of a thread, a process or a task of the run."""
        return "-".join(str(each) for each in ("inturn", self.stage, *parts) if each is not None)

    def failure(self, index: int, err: Err) -> Failure:
        """What a policy is given; in any thread."""
        fields = (index, err.item, err.error, err.attempt, err.elapsed, err.delivered)
        return Failure(*fields, self.stage, self.origin_of(index))

    def origin_of(self, index: int) -> int:
        """The position, in the source of the first stage, of what the item comes from."""
        return index if self.origins is None else self.origins.of(index)

    def note(self, index: int, err: Err) -> None:
        """Say on the error which item of which stage it belongs to."""
        note(err.error, index, err.item, self.stage, self.origin_of(index))

    def ready(self) -> int:
        """About how many chunks could be claimed; 0 by the limit: the pool will look again."""
        chunks, throttle = self.window.available(), self.throttle
        if chunks and throttle is not None and self.window.passing_at(0) is None:
            if (left := throttle.ask(self.clock, start=False)) is not None:
                self.pool.look_in(left)
            return int(left is None)
        return chunks

    def claim(self, most: int = NEVER) -> Chunk | None:
        """`Window.claim`, past the failures that need no worker, if deadline and limit allow it."""
        window, throttle = self.window, self.throttle
        if not self.may_start() or (window.passing is not None and self._pass_on() and not self.pool.ahead):
            return None  # what was passed on is delivered before the next call runs
        if throttle is not None:
            if not window.available():
                throttle.leave(self.clock)
                return None
            if (left := throttle.ask(self.clock, start=True)) is not None:
                self.pool.look_in(left)
                return None
        chunk = window.claim(most)
        if window.passing is not None:
            self._pass_on()  # those behind the chunk
        return chunk

    def _pass_on(self) -> bool:
        passed = self.window.pass_on()
        if passed is not None:
            self.rouse(passed.index, passed.size)
        return passed is not None

    def rouse(self, index: int, count: int = 1) -> None:
        """Wake the consumer if it waits for one of these items."""
        fence()  # what is to be found is written before we ask who looks for it
        for awaited in self.sleeping[:]:
            if index <= awaited < index + count:
                self.sleeping.clear()
                self.wake.set()

    def failed(self, chunk: Chunk, item: Any, error: BaseException, elapsed: float, kind: Kind | None = None) -> None:
        """The next item has failed: decide what can be decided, record the rest (guarantee 9)."""
        index = chunk.index + len(chunk.out)
        if kind is None:
            kind = as_failure_kind(error)
            error = detach(error)
        outcome: Any = Err(error, item, kind, chunk.attempt, elapsed)
        decided = self.decided(index, outcome)
        if self.trace is not None:
            self.trace.failed(chunk, len(chunk.out), self.clock())
        if isinstance(decided, Retry):
            outcome = Chunk.again(index, item, chunk.attempt + 1)
        elif decided is ENDS and not self._goes_on_until(index, outcome):
            return
        chunk.plain = False
        chunk.out.append(outcome)
        if isinstance(decided, Retry):
            self.retry(outcome, decided.after)

    def decided(self, index: int, err: Err, *, may_retry: bool = True) -> Retry | Decision:
        """What is decided at once; an error of the user's function replaces the item's."""
        if err.kind is not Kind.FAILED or self.stopped:  # of a run that is over, nobody is told, and nothing runs again
            return ENDS
        failure = self.failure(index, err)
        try:
            decided = self.decide(failure)
            if isinstance(decided, Retry):
                if not may_retry:
                    err.kind = Kind.PASSING
                    return ENDS
                if decided.on_retry is not None:
                    decided.on_retry(failure)
        except BaseException as error:
            err.error, err.kind = raised_for(error, err), Kind.PASSING
            decided = ENDS
        del failure, err  # the frames of the error's traceback keep this one
        return decided

    def retry(self, chunk: Chunk, after: float) -> None:
        self.retried.add(1)
        if after > 0:
            self.supervisor.later(after, chunk)
        else:
            self.window.again(chunk)
            self.pool.notify(1)

    def _goes_on_until(self, index: int, err: Err) -> bool:
        """The failure ends the run: in turn; with `fail_fast` now, then False (guarantee 33)."""
        if self.fail_fast:
            if not self.stopped and self.aborted.take():
                if err.kind is not Kind.FATAL:
                    self.note(index, err)
                self._end(err.error)
                self.stop()
            return False
        self.window.ends_at(index)
        fence()
        for slot in self.pool.slots():
            if slot.chunk is not None and slot.chunk.index + slot.chunk.size > index:
                drain(slot.chunk)
        return True

    def run(self, chunk: Chunk, slot: Slot, context: contextvars.Context | None = None) -> bool:
        """Run a chunk here, each item in a copy of `context` (guarantee 21); False if the worker must leave."""
        if self.timeout is not None:
            return self._run_watched(chunk, slot, context)
        fn, clock, append = self.fn, self.clock, chunk.out.append
        copy = (self.context if context is None else context).copy
        mark = clock()
        item = None
        try:
            for item in chunk.todo:
                try:
                    append(copy().run(fn, item))
                except BaseException as error:  # it travels to the consumer
                    now = clock()
                    self.failed(chunk, item, error, now - mark)
                    mark = now
        finally:
            # The frames of an error's traceback keep their callers' frames alive, also this one.
            del fn, append, item, chunk, self
        return True

    def _run_watched(self, chunk: Chunk, slot: Slot, context: contextvars.Context | None) -> bool:
        """The same under a time limit; False if a call was given up, and the worker must leave."""
        fn, clock = self.fn, self.clock
        copy = (self.context if context is None else context).copy
        item = call = error = result = None
        try:
            for item in chunk.todo:
                slot.call = call = Call(item, clock())
                self.supervisor.watch()  # after `call` is set: the supervisor may be about to rest
                error = result = None
                try:
                    result = copy().run(fn, item)
                except BaseException as caught:  # it travels to the consumer
                    error = caught
                if not call.settle():
                    return False
                slot.call = None
                if error is None:
                    chunk.out.append(result)
                else:
                    self.failed(chunk, item, error, clock() - call.started)
            return True
        finally:
            del fn, item, call, error, result, chunk, self, slot  # as above

    def begun(self, slot: Slot, chunk: Chunk) -> None:
        """A slot is about to run a chunk that was claimed."""
        slot.since = self.clock()
        if self.trace is not None:
            self.trace.begun(chunk, self.pool.worker_of(slot), self.clock)
        slot.chunk = chunk
        fence()
        if self.stopped or chunk.index > self.window.last_index:  # `slot.chunk` is set: see `stop`
            drain(chunk)
        elif slot.sliced:
            self.supervisor.watch()

    def ended(self, slot: Slot, chunk: Chunk) -> None:
        """The chunk has its outcomes; nobody writes to it any more."""
        now = self.clock()
        seconds = now - slot.since
        self.busy_s.add(seconds)
        self.longest_s = max(self.longest_s, seconds)
        self.last_end = now
        if self.trace is not None:
            self.trace.ended(chunk, slot.since, now)
        if not chunk.expired:  # else it was measured when its time slice was over
            self.window.measured(seconds, len(chunk.out))
        slot.chunk = None
        chunk.ended = True
        if self.stopped:
            self.supervisor.wake()  # it has stayed for calls like this one
        self.rouse(chunk.index, chunk.size)

    def crash(self, error: BaseException) -> None:
        """End the run with an error that has no turn."""
        self._end(error)
        self.notify()

    def _end(self, end: End | BaseException) -> None:
        """Who ends the run first says how, in one atomic step; from anywhere. Nothing waits for the limit then."""
        self.__dict__.setdefault("end", end)
        if self.throttle is not None:
            self.throttle.close(self.clock)

    def notify(self) -> None:
        """Wake the consumer, whatever it waits for."""
        self.wake.set()

    def stop(self, end: End = End.CLOSED) -> None:
        """The run is over: nothing is started any more."""
        self._end(end)
        fence()
        for slot in self.pool.slots():
            drain(slot.chunk)
        # Last, when nothing starts any more: it holds `enclosing`, and that this job, which is a cycle.
        self.context = contextvars.Context()
        self.pool.stop()
        if self.feeder is not None:
            self.feeder.stop()
        self.supervisor.wake()
        self.notify()
