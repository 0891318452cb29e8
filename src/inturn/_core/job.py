"""What the workers and the consumer of a run share: its `Job`, the `Slot` of a call, the `BasePool` of slots.

A `Job` never refers to the run's handle, so the handle can be dropped and collected while workers are busy.

Who may call what: `failed`, `ended` and `crash` are for workers (and for whoever reports in a worker's
stead); `stop` and `notify` are for anyone, at any moment: they take no lock, so that a finaliser or a
signal handler may call them.

How a run ends is one state, `Job.end`:

======== ========================================== ==================================== ==================
state    what has happened                          what ``next`` does then              left by
======== ========================================== ==================================== ==================
None     the run goes on                                                                 `stop`, `crash`
CLOSED   its end, an error in turn, ``close``       ``StopIteration``
DROPPED  the last reference to the handle went      (there is nobody who could call it)
Crash    something failed that has no turn          raises its error, once               `take_crash`
======== ========================================== ==================================== ==================
"""

from __future__ import annotations

import contextvars
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from inturn._base.atomic import Once, Total, fence, remainder_of
from inturn._base.clock import clock
from inturn._base.events import Event, ThreadEvent
from inturn._engine.chunk import Chunk
from inturn._engine.window import NEVER, Window
from inturn._model.outcome import Err, Failure, Kind, as_failure_kind, detach, note
from inturn._model.policy import ENDS, Decide, Decision, Retry

from .calls import run_chunk, run_watched
from .end import CLOSED, Crash, End
from .origins import Origins
from .roles import Feeds, Timekeeper, Watches
from .slot import Slot

if TYPE_CHECKING:
    from inturn._model.recorder import Recorder

    from .throttle import Throttle

__all__ = ["BasePool", "Job", "drain", "enclosing", "inside"]

_MOST_AT_ONCE: Final = 1 << 20
"""So many calls run at once, at most: users write ``sys.maxsize`` for any number, and no system has so many threads."""

enclosing: contextvars.ContextVar[tuple[Job, ...]] = contextvars.ContextVar("inturn_enclosing", default=())
"""The jobs inside whose calls this code runs, the outermost first."""


def inside(job: Job) -> bool:
    """Whether this code runs inside a call of the job."""
    return job in enclosing.get()


class BasePool(ABC):
    """Where the calls of a run go: its slots."""

    kind = "executor"
    """What its workers are: ``thread``, ``process``, ``task``, ``serial``, or those of an executor passed in."""

    inline = False
    """Whether calls run in the consumer's thread, when it waits: `join` then has nothing to wait for."""

    ahead = True
    """Whether items are pulled that cannot be run yet, as far as the window allows."""

    kills = False
    """Whether `stop` ends calls that run, so that `join` does not wait for them to end by themselves."""

    def __init__(self, job: Job) -> None:
        self.job = job

    # ---- the consumer ----

    def open(self) -> None:
        """The first ``next``."""
        self.job.supervisor.start()

    def work(self, *, block: bool) -> float | None:
        """Do what the consumer has to do itself before it sleeps; seconds until there is more to do, or None.

        With `block` it may take its time: else the consumer is a coroutine, and others want a turn.
        """
        return None

    def settle(self) -> None:
        """After `notify`: hold still while workers are started that must not be started beside code of the user."""

    # ---- anyone but a finaliser or a signal handler ----

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
        """What a trace knows the worker of the slot by, in which this is called; 0 if there is no telling."""
        return threading.get_ident()

    def look_in(self, seconds: float) -> None:
        """The limit lets nothing start before so many seconds have passed: look again then."""
        self.job.supervisor.look_in(seconds)

    # ---- the supervisor ----

    def grow(self) -> float | None:
        """It was woken, or something is due: start the workers that are wanted; seconds until it is to look again."""

    def take_back(self, chunk: Chunk) -> bool | None:
        """`Window.take_back` while no worker claims; None if that can't be had now."""
        return self.job.window.take_back(chunk)

    def released(self) -> None:
        """The supervisor leaves: no further worker is started."""

    def rest(self, *, over: bool = False) -> None:
        """A worker begins to wait for the consumer, who may wait for other runs on these workers; or that is `over`."""

    # ---- the end ----

    def stop(self) -> None:
        """Let idle workers go; from anywhere, waits for nothing and takes no lock."""

    def retire(self) -> None:
        """After `stop`, when an error ends the run: what may take locks, but must not wait (consumer only)."""

    def join(self) -> None:
        """Wait until nothing of the pool is left but what has been given up (after `stop`)."""


def drain(chunk: Chunk | None) -> None:
    """What the chunk has not started never starts."""
    if chunk is not None:
        remainder_of(chunk.todo)


class Job:
    """What a run's workers need to know, and how they tell what has happened."""

    pool: BasePool
    supervisor: Timekeeper
    end: End | Crash | None = None  # how the run has ended; `_end` sets it, once

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
        self.sleeping: deque[int] = deque()  # the index the consumer sleeps for
        self.retried = Total()
        self.abandoned = 0
        self.fail_fast = False  # whether the first failure in time to which no policy gives a value ends the run
        self.aborted = 0  # failures that did
        self._failing = Once()
        self.busy_s = Total()
        self.longest_s = 0.0  # that a chunk has taken
        self.pulling_s = 0.0  # that a feeder has spent in pulls
        self.last_end = 0.0
        self.trace: Recorder | None = None

    def begin(self, context: contextvars.Context, deadline: float | None) -> float:
        """The first ``next``: the consumer's context is what calls will see (guarantee 2)."""
        self.context = context
        context.run(enclosing.set, (*context.get(enclosing, ()), self))
        started = self.clock()
        if deadline is not None and (self.deadline_at is None or started + deadline < self.deadline_at):
            self.deadline_at = started + deadline  # else that of a later stage comes first
        return started

    @property
    def stopped(self) -> bool:
        """Nothing is started any more."""
        return self.end is not None

    @property
    def crashed(self) -> bool:
        """The next `next` raises an error that has no turn."""
        return type(self.end) is Crash

    def may_start(self) -> bool:
        return self.end is None and (self.deadline_at is None or self.clock() < self.deadline_at)

    def label(self, *parts: object) -> str:
        """The name of a thread, a process or a task of the run."""
        stage = () if self.stage is None else (self.stage,)
        return "-".join(map(str, ("inturn", *stage, *parts)))

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

    # ---- from whoever has a free slot ------------------------------------------------------------

    def ready(self) -> int:
        """About how many chunks could be claimed now; if none because of the limit, the pool will look again."""
        chunks = self.window.available()
        if chunks and self.throttle is not None and not self.window.passes(0):
            return int(self.throttle.allows(self))
        return chunks

    def claim(self, most: int = NEVER) -> Chunk | None:
        """`Window.claim`, if something may start now, past the failures that need no worker.

        Called by one worker at a time. If the limit lets nothing start yet, the pool will look again.
        """
        window, throttle = self.window, self.throttle
        if not self.may_start() or (window.passing is not None and self._pass_on() and not self.pool.ahead):
            return None  # what was passed on is delivered before the next call runs
        if throttle is not None:
            if not window.available():
                throttle.leave(self)
                return None
            if (left := throttle.take(self)) is not None:
                self.pool.look_in(left)
                return None
        chunk = window.claim(most)
        if window.passing is not None:
            self._pass_on()  # those behind the chunk
        return chunk

    # ---- from the workers ------------------------------------------------------------------------

    def _pass_on(self) -> bool:
        passed = self.window.pass_on()
        if passed is None:
            return False
        self.rouse(passed.index, passed.size)
        return True

    def rouse(self, index: int, count: int = 1) -> None:
        """Wake the consumer if it waits for one of these items."""
        fence()  # what is to be found is written before we ask who looks for it
        sleeping = self.sleeping
        if sleeping:
            try:
                if index <= sleeping[0] < index + count:
                    sleeping.pop()
                    self.wake.set()
            except IndexError:
                pass

    def failed(self, chunk: Chunk, item: Any, error: BaseException, elapsed: float, kind: Kind | None = None) -> None:
        """The next item of the chunk has failed: decide what can be decided now, and record the rest.

        Guarantee 9.
        """
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
        elif decided is ENDS and not self._goes_on_until(index, outcome, chunk):
            return
        chunk.plain = False
        chunk.out.append(outcome)
        if isinstance(decided, Retry):
            self.retry(outcome, decided.after)

    def decided(self, index: int, err: Err, *, may_retry: bool = True) -> Retry | Decision:
        """What is decided of a failure as soon as it is noticed.

        An error of a function of the user's ends the run, in the item's turn and in place of the item's error.
        """
        if err.kind is not Kind.FAILED:
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
            raised = detach(error)
            if raised is not err.error and raised.__cause__ is None:
                raised.__cause__ = err.error
            err.error, err.kind = raised, Kind.PASSING
            decided = ENDS
        try:
            return decided
        finally:
            del failure, err  # the frames of the error's traceback keep this one

    def retry(self, chunk: Chunk, after: float) -> None:
        self.retried.add(1)
        if after > 0:
            self.supervisor.later(after, chunk)
        else:
            self.window.again(chunk)
            self.pool.notify(1)

    def _goes_on_until(self, index: int, err: Err, chunk: Chunk | None = None) -> bool:
        """This failure ends the run: in its turn, or, if `fail_fast`, at once, and then this is False.

        Guarantee 33.
        """
        if self.fail_fast:
            if not self.stopped and self._failing.take():
                self.aborted = 1
                if err.kind is not Kind.FATAL:
                    self.note(index, err)
                self._end(Crash(err.error))
                self.stop()
            return False
        self.window.end_at(index)
        fence()
        drain(chunk)
        for slot in self.pool.slots():
            if slot.chunk is not None and slot.chunk.index > index:
                drain(slot.chunk)
        return True

    def run(self, chunk: Chunk, slot: Slot, context: contextvars.Context | None = None) -> bool:
        """Run a claimed chunk in this thread; False if its worker has to leave.

        Each call has a copy of `context`, or of the consumer's.
        """
        if self.timeout is not None:
            return run_watched(chunk, self, slot, context)
        run_chunk(chunk, self, context)
        return True

    def begun(self, slot: Slot, chunk: Chunk) -> None:
        """A slot is about to run a chunk that was claimed."""
        slot.since = self.clock()
        if self.trace is not None:
            self.trace.begun(chunk, self.pool.worker_of(slot), self.clock)
        slot.chunk = chunk
        fence()
        if self.stopped or chunk.index > self.window.last_index:  # asked after `chunk` is set: see stop, _end_at
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
        """End the run with an error that has no turn: an interrupted pull, a fault of ours, the interpreter's exit."""
        self._end(Crash(error))
        self.notify()

    def _end(self, end: End | Crash) -> None:
        """Who ends the run first says how; one atomic step, from anywhere."""
        self.__dict__.setdefault("end", end)

    # ---- the consumer ----------------------------------------------------------------------------

    def take_crash(self) -> BaseException | None:
        """The error that is to be raised now; once, and nothing refers to it afterwards."""
        end = self.end
        if type(end) is not Crash:
            return None
        self.end = CLOSED
        return end.error

    def sleep(self, seconds: float | None) -> None:
        """Wait, in C, until something wakes the consumer; it may be woken for nothing."""
        assert isinstance(self.wake, ThreadEvent)
        self.wake.wait(seconds)

    # ---- from anywhere ---------------------------------------------------------------------------

    def notify(self) -> None:
        """Wake the consumer, whatever it waits for."""
        self.wake.set()

    def stop(self, end: End = CLOSED) -> None:
        """The run is over: nothing is started any more."""
        self._end(end)
        fence()
        for slot in self.pool.slots():
            drain(slot.chunk)
        # Last, when nothing starts any more: it holds `enclosing`, and that this job, which is a cycle.
        self.context = contextvars.Context()
        if self.throttle is not None:
            self.throttle.leave(self)
        self.pool.stop()
        if self.feeder is not None:
            self.feeder.stop()
        self.supervisor.wake()
        self.notify()
