"""Executors that are not ours: only their `submit` and the public methods of the futures are used.

A *flight* is one chunk on its way through the executor, from `submit` until its future is done. At most
`concurrency` are under way; each one that lands lets the next one start, in whichever thread it lands, so work goes on
while the consumer is away.

What is submitted is the `Flight` itself. If the executor's workers share this process it is called as it is: it has
the consumer's context, its outcomes can be read while it runs, and its rest can be taken back. If it is pickled, it
turns into `run_travelled`, which works by itself and sends the outcomes with the future's result.

======== ========================================== ==================================================
flight   how it is told                             left by
======== ========================================== ==================================================
queued   its ticket is there                        its call; being pickled; a rescue; a cancel
running  ``chunk`` is set, ``away`` is None         the call's end; `give_up`
away     ``away`` is set                            the future's end; `give_up`
landed   not in ``_flights``; its permit is back
======== ========================================== ==================================================

It lands when its call and its future have ended, in whatever order: futures may be cancelled by anybody.

A run inside a call of another run on the same executor may wait for a queue that it is itself holding up. Such a
run *rescues* its head: its supervisor cancels the head's future and runs the chunk in a thread of its own.

The consumer submits in its own thread, unlike all else that takes locks (see `supervisor`): the
first ``submit`` of a ``ProcessPoolExecutor`` may fork all its workers, which must not happen beside code of the user.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import repeat
from time import perf_counter as clock
from typing import Any, Final

from inturn._core.job import BasePool, Job, Slot, enclosing, inside
from inturn._core.signals import raised_by_handler
from inturn._core.threads import CallThread, must_not_wait
from inturn._engine.chunk import Chunk
from inturn._engine.window import BOX_S
from inturn._model.outcome import Kind
from inturn._transport.pickling import Main, has_cloudpickle
from inturn._transport.remote import Outcome, unpack_outcome

from .futures import check_future, copy_of, drives, tells_of_the_end
from .submission import Flight

__all__ = ["Borrowed"]

_PATIENCE_S: Final = 0.005  # how long a nested run leaves its head in the queue
_DRIVE_S: Final = 0.05


class Borrowed(BasePool):
    """A pool that is somebody's executor, or one that `build` makes for this run, which is then shut down."""

    def __init__(self, job: Job, executor: Any, build: Callable[[int], Any] | None, *, boxes: bool) -> None:
        super().__init__(job)
        self.executor: Any = executor  # None when it is let go
        self.boxes = boxes
        self._build = build
        self._flights: dict[Flight, None] = {}
        self._permits: deque[None] = deque(repeat(None, job.concurrency))
        self._claiming = threading.Lock()  # only ever tried by the consumer: see `notify`
        self._submitting: set[int] = set()
        self._patience_s = _PATIENCE_S
        self._head_since: float | None = None  # when the supervisor has first seen the head in the queue
        self._retired = False
        self._nested = False
        self.main = Main.SAME  # what is assumed of its workers, until one of them knows better
        self.fn_blobs: dict[Main, bytes] = {}
        self.broken = False  # a future has said so, and nothing has been submitted since

    def bars(self, job: Job) -> bool:
        """In the midst of a `submit` the executor's locks are held; see `may_wait`."""
        return not inside(self.job)

    def open(self) -> None:
        if self._build is not None:
            executor = self._build(self.job.concurrency)
            for name in ("submit", "shutdown"):
                if not hasattr(executor, name):
                    raise TypeError(f"executor= returned {type(executor).__name__}, which has no {name}()")
            self.executor = executor
        self._nested = any(getattr(each.pool, "executor", None) is self.executor for each in enclosing.get())
        super().open()

    # ---- consumer, supervisor, workers ---------------------------------------------------------------

    def hungry(self) -> bool:
        return bool(self._permits)

    def slots(self) -> list[Slot]:
        return list(self._flights)

    def take_back(self, chunk: Chunk) -> bool | None:
        taken: bool | None = self._alone(self.job.window.take_back, chunk)
        return taken

    def _alone(self, act: Callable[..., Any], *args: Any) -> Any:
        """Act while nobody claims; None if the run is over before that can be had."""
        if threading.get_ident() in self._submitting:
            return act(*args)
        while not self._claiming.acquire(timeout=BOX_S):
            if self.job.stopped:
                return None
        try:
            return act(*args)
        finally:
            self._claiming.release()
            self.notify()  # for those who tried meanwhile

    def notify(self, chunks: int = 1) -> None:
        """Submit while there is something to run and a permit to run it.

        One thread claims at a time. Others do not wait for it: it looks again after it has let go, so a signal
        handler in its midst blocks nobody.
        """
        me = threading.get_ident()
        if me in self._submitting:
            return  # a call that ended within `submit`, or a handler in its midst: the loop below goes on
        while self._permits and self.job.window.available() and self.job.may_start():
            if not self._claiming.acquire(blocking=False):
                return
            try:
                self._submitting.add(me)
                flight = self._board()
                if flight is not None:
                    self._submit(flight)
            finally:
                self._submitting.discard(me)
                self._claiming.release()
        if self._nested and self.job.sleeping:
            self.job.supervisor.wake()  # the head may be in the queue now, or find no permit: it looks after it

    def _board(self) -> Flight | None:
        try:
            self._permits.pop()
        except IndexError:
            return None
        chunk = self.job.window.claim()
        if chunk is None:
            self._permits.append(None)
            return None
        flight = Flight(self, chunk)
        self._flights[flight] = None
        return flight

    @must_not_wait
    def _submit(self, flight: Flight) -> None:
        try:
            future = flight.future = self.executor.submit(flight)  # it is there as long as `_flights` has one
            check_future(future)
        except Exception as error:  # shut down, broken, or out of threads
            if raised_by_handler(error):
                raise
            self._over(flight, error, Kind.FATAL)  # or has it queued the call all the same?
            return
        future.add_done_callback(partial(self._done, flight))
        flight.hooked = True

    def _done(self, flight: Flight, future: Any) -> None:
        """The flight's future is done (in any thread)."""
        if flight.rescued:
            return  # the rescuer lands it
        error: BaseException | None = None
        kind = Kind.FAILED
        try:
            if future.cancelled():
                error, kind = RuntimeError("the executor cancelled the call"), Kind.FATAL
            elif (error := future.exception()) is not None:
                if tells_of_the_end(error):
                    self.broken, kind = True, Kind.FATAL
                elif flight.unfit is not None:
                    error, kind = flight.unfit, Kind.FATAL
            elif flight.away is not None and not flight.given_up:
                self._unpack(flight, future.result())
        except BaseException as fault:  # of ours
            self.job.crash(fault)
        self._over(flight, error, kind)

    def _over(self, flight: Flight, error: BaseException | None, kind: Kind) -> None:
        """Nothing more comes from the executor; what has no outcome by now fails, unless it just runs here."""
        flight.done = True
        if flight.away is None and flight.board():
            flight.ended = True
            error = RuntimeError("the executor has not made the call") if error is None else error
        if not flight.lands():
            return  # the future has ended before the call, which lands it
        try:
            if error is not None and not self.job.stopped:
                self._fail(flight, error, kind)
        except BaseException as fault:  # of ours
            self.job.crash(fault)
        self.land(flight)

    def land(self, flight: Flight) -> None:
        self._flights.pop(flight, None)
        flight.future = None
        if not flight.given_up:
            flight.left.open()
        self._permits.append(None)
        if self.broken:
            self.job.supervisor.wake()  # its own locks may be held while it says so (CPython 3.12): see `grow`
        elif self.job.stopped:
            self.retire()
            self._let_go()
        else:
            self.notify()

    # ---- loads that travel -----------------------------------------------------------------------

    def _fail(self, flight: Flight, error: BaseException, kind: Kind) -> None:
        """Every item of the load that has no outcome yet fails."""
        job, chunk = self.job, flight.load
        if flight.given_up or chunk.ended or (flight.call is not None and not flight.call.settle()):
            return
        for item in list(chunk.todo) if flight.away is None else flight.away:
            job.failed(chunk, item, copy_of(error) if kind is Kind.FAILED else error, 0.0, kind)
        self._end(flight)

    def _unpack(self, flight: Flight, outcomes: list[tuple[Outcome, Any, float]]) -> None:
        job, chunk = self.job, flight.load
        if flight.call is not None and not flight.call.settle():
            return
        items = flight.away or []
        seconds = 0.0
        if outcomes and outcomes[0][0] in {Outcome.UNREAD_FN, Outcome.FN_LACKS}:
            kind, packed, _ = outcomes[0]
            outcomes = []
            if kind is Outcome.UNREAD_FN or not self._goes_by_value(flight):
                _, error = unpack_outcome(kind, packed)
                for item in items:
                    job.failed(chunk, item, error, 0.0, Kind.FATAL)
                items = []
        for item, (kind, packed, elapsed) in zip(items, outcomes, strict=False):
            seconds += elapsed
            if kind is Outcome.LACKS and self._goes_by_value(flight):
                self._again(chunk, item)
                continue
            came, outcome = unpack_outcome(kind, packed)
            if came:
                chunk.out.append(outcome)
            else:
                job.failed(chunk, item, outcome, elapsed)
        flight.since = clock() - seconds  # the way and the queue do not count
        rest = items[len(outcomes) :]
        if rest:
            chunk.todo = iter(rest)
            self.take_back(chunk)
        self._end(flight)

    def _goes_by_value(self, flight: Flight) -> bool:
        """What the main module defines, and the worker of this flight lacks, may be sent again by value."""
        if flight.main is not Main.SAME or not has_cloudpickle():
            return False
        self.main = Main.LACKING
        return True

    def _again(self, chunk: Chunk, item: Any) -> None:
        """The item has not begun: it runs again in its place."""
        fresh = Chunk.again(chunk.index + len(chunk.out), item, chunk.attempt)
        chunk.plain = False
        chunk.out.append(fresh)
        self.job.window.again(fresh)

    def _end(self, flight: Flight) -> None:
        if flight.chunk is None:
            flight.since = clock()
        self.job.ended(flight, flight.load)

    # ---- the consumer ----------------------------------------------------------------------------

    def work(self, *, block: bool) -> float | None:
        """Have the head's future work, if it does so when it is asked for its result, instead of by itself."""
        if self._nested:
            self.job.supervisor.wake()  # it looks after the head
        if not self._driven():
            return None
        flight = self._head()
        if flight is None or flight.chunk is not None or not drives(flight.future):
            return None
        try:  # not for long: if it does not work after all, nothing else would be noticed meanwhile
            flight.future.result(timeout=_DRIVE_S if block else 0.0)
        except Exception as error:  # the call's own errors are in its outcome
            if raised_by_handler(error):
                raise
        return 0.0 if block or flight.load.ended else _PATIENCE_S

    def _driven(self) -> bool:
        """Whether a future does its work when the consumer asks for its result."""
        return any(drives(flight.future) for flight in list(self._flights))

    def _head(self) -> Flight | None:
        head = self.job.window.taken
        for flight in list(self._flights):
            load = flight.load
            if not load.ended and load.index <= head < load.index + max(1, load.size):
                return flight
        return None

    # ---- the supervisor --------------------------------------------------------------------------

    def grow(self) -> float | None:
        """Submit what a broken executor will refuse, which ends the run; rescue the head of a nested run."""
        if self.broken:
            self.broken = False
            self.notify()
        return self._look_after_head() if self._nested and self.job.sleeping and not self.job.stopped else None

    def _look_after_head(self) -> float | None:
        """Run the head in a thread of its own if the executor does not come to it; seconds until then."""
        flight = self._head()
        if flight is not None and (flight.chunk is not None or flight.load.ended):
            self._head_since = None
            self._patience_s = _PATIENCE_S
            return None
        now = clock()
        if self._head_since is None:
            self._head_since = now
        left = self._head_since + self._patience_s - now
        if left > 0:
            return left
        if flight is None:
            flight = self._swap()
        if flight is None or not flight.recall():
            return None  # it pauses, or it just begins
        self._head_since = None
        self._patience_s = 0.0  # until the executor has come to a head by itself
        thread = CallThread(self.job, flight, "inturn-rescue", partial(self._run_rescued, flight))
        thread.left = flight.left  # open when the flight has landed
        try:
            thread.start()
        except BaseException:
            flight.left.open()  # nobody runs it now
            raise
        return None

    def _run_rescued(self, flight: Flight) -> None:
        flight.run()
        self.land(flight)

    def _swap(self) -> Flight | None:
        """The head has found no permit: it gets that of a call that is still in the queue, which goes back."""
        window = self.job.window
        queued = [each for each in list(self._flights) if each.chunk is None and each.away is None]
        if self._permits or not queued or not self.job.may_start():
            return None
        chunk = self._alone(window.claim, window.taken)
        if chunk is None:
            return None  # it pauses
        for each in queued:
            if each.recall():
                self._flights.pop(each, None)
                each.left.open()
                self._alone(window.take_back, each.load)
                flight = Flight(self, chunk)
                self._flights[flight] = None
                return flight
        self._alone(window.take_back, chunk)
        return None

    # ---- the end ---------------------------------------------------------------------------------

    def retire(self) -> None:
        if self._retired or threading.get_ident() in self._submitting:
            return  # in the midst of `submit` the executor's own locks are held: the interrupted `next` comes here too
        self._retired = True
        for flight in list(self._flights):
            if flight.future is not None:
                flight.future.cancel()
        if self._build is not None and self.executor is not None:
            self.executor.shutdown(wait=False)
        self._let_go()

    def _let_go(self) -> None:
        """What is not ours is referred to for as long as calls run there: runs inside them look for it."""
        if self._build is None and not self._flights:
            self.executor = None

    def join(self) -> None:
        self.retire()
        for flight in list(self._flights):
            if flight.board():  # it will do nothing
                flight.ended = True
                if flight.lands():
                    self.land(flight)
                if not flight.hooked:
                    continue  # another thread is still in its `submit`
            if flight.away is None or flight.hooked:
                flight.left.wait()
        if self._build is not None and self._retired and self.executor is not None:
            self.executor.shutdown(wait=not any(flight.given_up for flight in list(self._flights)))
