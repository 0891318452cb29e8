"""What workers and the consumer share of a run (`Job`), and what runs in a worker.

A `Job` never refers to the run's handle, so the handle can be dropped and collected while workers are busy.

Who may call what: `failed`, `ended` and `crash` are for workers (and for whoever reports in a worker's
stead); `stop` and `notify` are for anyone, at any moment: they take no lock, so that a finaliser or a
signal handler may call them.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable
from queue import Empty
from time import perf_counter as clock
from typing import Any, Protocol

from inturn._base.alarm import Alarm
from inturn._base.gil import Total, fence
from inturn._engine.chunk import Chunk
from inturn._engine.window import Window
from inturn._model.outcome import Err, Failure, Kind, as_failure_kind, detach
from inturn._model.policy import ENDS, Decide, Retry

__all__ = ["Call", "Job", "Place", "Pool", "Star", "drain", "enclosing", "inside", "run_chunk", "run_watched"]

enclosing: contextvars.ContextVar[tuple[Job, ...]] = contextvars.ContextVar("inturn_enclosing", default=())
"""The jobs inside whose calls this code runs, the outermost first."""


def inside(job: Job) -> bool:
    """Whether this code runs inside a call of the job."""
    return job in enclosing.get()


class Star:
    """``fn`` for items that are tuples of arguments."""

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, args: tuple[Any, ...]) -> Any:
        return self.fn(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return Star, (self.fn,)

    def __repr__(self) -> str:
        return repr(self.fn)


class Call:
    """One call under a time limit: whoever settles it first, the worker or the warden, decides its outcome."""

    __slots__ = ("_open", "item", "started")

    def __init__(self, item: Any, started: float) -> None:
        self.item = item
        self.started = started
        self._open = [None]

    def settle(self) -> bool:
        try:
            self._open.pop()
        except IndexError:
            return False
        return True

    def reopen(self) -> None:
        """Whoever has settled it goes on with it."""
        self._open.append(None)


class Wake(Protocol):
    """What the consumer sleeps by: an `Alarm`, or the bell of an event loop."""

    def put(self, token: None, /) -> None:
        """Wake it; from anywhere."""

    def get(self, *, timeout: float | None) -> None:
        """Sleep; raises ``queue.Empty`` when that took too long (consumer only)."""


class Watch(Protocol):
    """Who looks at the clock for a run."""

    def arm(self) -> None:
        """There is something to watch in a place."""

    def later(self, seconds: float, chunk: Chunk, /) -> None:
        """The chunk is ready to run again after a pause."""

    def stop(self) -> None: ...
    def join(self) -> None: ...


class Place(Protocol):
    """Where one call at a time runs. Its worker writes these fields; anyone reads them."""

    chunk: Chunk | None
    since: float  # when the chunk was begun
    boxed: bool  # whether the warden is to take back what the chunk has not started in time
    call: Call | None  # the call under way, if it has a time limit

    def give_up(self) -> None:
        """The call is given up: its outcome will be thrown away (warden only)."""


class Pool(Protocol):
    """Where the calls of a run go."""

    @property
    def inline(self) -> bool:
        """Whether calls run in the consumer's thread, when it waits."""
        ...

    def open(self) -> None:
        """The first ``next`` (consumer only)."""

    def hungry(self) -> bool:
        """Whether `notify` could have an effect."""
        ...

    def places(self) -> list[Place]: ...
    def notify(self, chunks: int) -> None:
        """So many chunks more may be claimed. Anyone but a finaliser or a signal handler."""

    def take_back(self, chunk: Chunk) -> bool | None:
        """`Window.take_back` while no worker claims; None if that can't be had now (warden only)."""

    def wait(self, seconds: float | None) -> None:
        """Wait until the job is notified (consumer only)."""

    def stop(self) -> None:
        """Let idle workers go; from anywhere, waits for nothing and takes no lock."""

    def retire(self) -> None:
        """After `stop`, when an error ends the run: what may take locks, but must not wait (consumer only)."""

    def join(self) -> None:
        """Wait until nothing of the pool is left but what has been given up (after `stop`)."""

    def running(self) -> int: ...


def drain(chunk: Chunk | None) -> None:
    """What the chunk has not started never starts."""
    if chunk is not None:
        deque(chunk.todo, maxlen=0)


class Job:
    """What a run's workers need to know, and how they tell what has happened."""

    pool: Pool
    warden: Watch

    def __init__(
        self,
        fn: Callable[[Any], Any],
        window: Window,
        decide: Decide,
        timeout: float | None,
        concurrency: int,
    ) -> None:
        self.fn = fn
        self.window = window
        self.decide = decide
        self.timeout = timeout
        self.concurrency = concurrency
        self.context = contextvars.Context()
        self.deadline_at: float | None = None
        self.stopped = False
        self.dropped = False  # the run's handle is gone: nobody will come to end things
        self.crashed: BaseException | None = None
        self.wake: Wake = Alarm()
        self.sleeping: deque[int] = deque()  # the index the consumer sleeps for
        self.retried = Total()
        self.abandoned = 0
        self.busy_s = Total()
        self.last_end = 0.0

    def begin(self, context: contextvars.Context, deadline: float | None) -> float:
        """The first ``next``: the consumer's context is what calls will see."""
        self.context = context
        context.run(enclosing.set, (*context.get(enclosing, ()), self))
        started = clock()
        if deadline is not None:
            self.deadline_at = started + deadline
        return started

    def may_start(self) -> bool:
        return not self.stopped and (self.deadline_at is None or clock() < self.deadline_at)

    # ---- from the workers ------------------------------------------------------------------------

    def failed(self, chunk: Chunk, item: Any, error: BaseException, elapsed: float, kind: Kind | None = None) -> None:
        """The next item of the chunk has failed: decide what can be decided now, and record the rest."""
        index = chunk.index + len(chunk.out)
        if kind is None:
            kind = as_failure_kind(error)
            error = detach(error)
        outcome: Any = Err(error, item, kind, chunk.attempt, elapsed)
        decided: Any = ENDS
        if kind is Kind.FAILED:
            decided = self.decide(Failure(index, item, error, chunk.attempt, elapsed))
        if isinstance(decided, Retry):
            outcome = Chunk.again(index, item, chunk.attempt + 1)
        elif decided is ENDS:
            self._halt_at(index, chunk)
        chunk.plain = False
        chunk.out.append(outcome)
        if isinstance(decided, Retry):
            self.retry(outcome, decided.after)

    def retry(self, chunk: Chunk, after: float) -> None:
        self.retried.add(1)
        if after > 0:
            self.warden.later(after, chunk)
        else:
            self.window.again(chunk)
            self.pool.notify(1)

    def _halt_at(self, index: int, chunk: Chunk | None = None) -> None:
        self.window.halt_at(index)
        fence()
        drain(chunk)
        for place in self.pool.places():
            if place.chunk is not None and place.chunk.index > index:
                drain(place.chunk)

    def run(self, chunk: Chunk, place: Place, context: contextvars.Context | None = None) -> bool:
        """Run a claimed chunk in this thread; False if its worker has to leave.

        Each call has a copy of `context`, or of the consumer's.
        """
        if self.timeout is not None:
            return run_watched(chunk, self, place, context)
        run_chunk(chunk, self, context)
        return True

    def begun(self, place: Place, chunk: Chunk) -> None:
        """A place is about to run a chunk that was claimed."""
        place.since = clock()
        place.chunk = chunk
        fence()
        if self.stopped or chunk.index > self.window.halt:  # asked after `chunk` is set: see stop, _halt_at
            drain(chunk)
        elif place.boxed:
            self.warden.arm()

    def ended(self, place: Place, chunk: Chunk) -> None:
        """The chunk has its outcomes; nobody writes to it any more."""
        now = clock()
        seconds = now - place.since
        self.busy_s.add(seconds)
        self.last_end = now
        if chunk.out:
            self.window.measured(seconds, chunk.out)
        place.chunk = None
        chunk.ended = True
        if self.stopped:
            self.warden.stop()  # it has stayed for calls like this one
        sleeping = self.sleeping
        fence()
        if sleeping:
            try:
                if chunk.index <= sleeping[0] < chunk.index + chunk.size:
                    sleeping.pop()
                    self.wake.put(None)
            except IndexError:
                pass

    def crash(self, error: BaseException) -> None:
        """Something of ours broke: better a raised error than a run that hangs."""
        self.crashed = error
        self.notify()

    # ---- the consumer ----------------------------------------------------------------------------

    def sleep(self, seconds: float | None) -> None:
        """Wait, in C, until something wakes the consumer; it may be woken for nothing."""
        try:
            self.wake.get(timeout=seconds)
        except Empty:
            pass

    # ---- from anywhere ---------------------------------------------------------------------------

    def notify(self) -> None:
        """Wake the consumer, whatever it waits for."""
        self.wake.put(None)

    def stop(self) -> None:
        """Nothing is started any more."""
        self.stopped = True
        fence()
        for place in self.pool.places():
            drain(place.chunk)
        # Last, when nothing starts any more: it holds `enclosing`, and that this job, which is a cycle.
        self.context = contextvars.Context()
        self.pool.stop()
        self.warden.stop()
        self.notify()


def run_chunk(chunk: Chunk, job: Job, context: contextvars.Context | None = None) -> None:
    """Run the items of a chunk, each in a context of its own."""
    fn, copy, append = job.fn, (job.context if context is None else context).copy, chunk.out.append
    mark = clock()
    item = None
    try:
        for item in chunk.todo:
            try:
                append(copy().run(fn, item))
            except BaseException as error:  # it travels to the consumer
                now = clock()
                job.failed(chunk, item, error, now - mark)
                mark = now
    finally:
        # The frames of an error's traceback keep their callers' frames alive, this one among them.
        del fn, append, item, chunk, job


def run_watched(chunk: Chunk, job: Job, place: Place, context: contextvars.Context | None = None) -> bool:
    """`run_chunk` under a time limit; False if a call was given up, and its worker has to leave."""
    fn, copy = job.fn, (job.context if context is None else context).copy
    item = call = error = result = None
    try:
        for item in chunk.todo:
            place.call = call = Call(item, clock())
            job.warden.arm()  # after `call` is set: the warden may just be lying down
            error = result = None
            try:
                result = copy().run(fn, item)
            except BaseException as caught:  # it travels to the consumer
                error = caught
            if not call.settle():
                return False
            place.call = None
            if error is None:
                chunk.out.append(result)
            else:
                job.failed(chunk, item, error, clock() - call.started)
        return True
    finally:
        del fn, item, call, error, result, chunk, job, place  # as in `run_chunk`
