"""Executors that the user has passed in: only their `submit` and the public methods of the futures are used.

At most `concurrency` submissions are under way (see `submission`). Each one that finishes starts the
next one, in the thread in which it ends; so work goes on while the consumer is away.

A run inside a call of another run on the same executor may wait for a queue that its own call is
blocking. Such a run *rescues* its head (guarantee 22): its supervisor cancels the head's future and
runs the chunk in a thread of its own.

The consumer submits in its own thread, unlike all else that takes locks (see `supervisor`): the first
``submit`` of a ``ProcessPoolExecutor`` may fork all its workers, and code of the user that runs beside
a fork may hold a lock, which the child would then wait for without end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any, Final

from inturn._base.clock import clock
from inturn._core.job import BasePool, Job, enclosing, inside
from inturn._core.signals import raised_by_handler
from inturn._core.slot import Slot
from inturn._core.threads import CallThread, must_not_wait
from inturn._engine.chunk import Chunk
from inturn._engine.window import SLICE_S
from inturn._model.outcome import Kind
from inturn._transport.pickling import Main, has_cloudpickle
from inturn._transport.remote import Outcome, unpack_outcome

from .futures import check_future, copy_of, drives, tells_of_the_end
from .submission import CALL, FUTURE, State, Submission

__all__ = ["ExecutorPool"]

_PATIENCE_S: Final = 0.005  # how long a nested run leaves its head in the queue
_DRIVE_S: Final = 0.05


class ExecutorPool(BasePool):
    """An executor of the user's, or one that `build` makes for this run, which is then shut down (19)."""

    def __init__(self, job: Job, executor: Any, build: Callable[[int], Any] | None, *, slices: bool) -> None:
        super().__init__(job)
        self.executor: Any = executor  # None when the run no longer needs it
        self.slice_s: float | None = SLICE_S if slices else None
        self._build = build
        self._submissions: dict[Submission, None] = {}
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
        """Within a `submit` the executor holds its locks; see `may_wait`."""
        return not inside(self.job)

    def open(self) -> None:
        if self._build is not None:
            executor = self._build(self.job.concurrency)
            for name in ("submit", "shutdown"):
                if not hasattr(executor, name):
                    kind = type(executor).__name__
                    cure = ': write executor="process"' if hasattr(type(executor), "imap") else ""
                    raise TypeError(f"executor= returned {kind}, which has no {name}(){cure}")
            self.executor = executor
        self._nested = any(getattr(each.pool, "executor", None) is self.executor for each in enclosing.get())
        super().open()

    # ---- consumer, supervisor, workers ---------------------------------------------------------------

    def has_capacity(self) -> bool:
        return bool(self._permits)

    def slots(self) -> list[Slot]:
        return list(self._submissions)

    def worker_of(self, slot: Slot) -> int:
        assert isinstance(slot, Submission)
        return super().worker_of(slot) if slot.away is None else 0

    def take_back(self, chunk: Chunk) -> bool | None:
        taken: bool | None = self._alone(self.job.window.take_back, chunk)
        return taken

    def _alone(self, act: Callable[..., Any], *args: Any) -> Any:
        """Act while no other thread claims; None if the run ends before that is possible."""
        if threading.get_ident() in self._submitting:
            return act(*args)
        while not self._claiming.acquire(timeout=SLICE_S):
            if self.job.stopped:
                return None
        try:
            return act(*args)
        finally:
            self._claiming.release()
            self.notify()  # for threads that tried to claim meanwhile

    def notify(self, chunks: int = 1) -> None:
        """Submit while there is something to run and a permit to run it.

        One thread claims at a time. Other threads do not wait for it: it looks again after it has released
        `_claiming`, so a signal handler that interrupts it blocks nobody.
        """
        me = threading.get_ident()
        if me in self._submitting:
            return  # a call that ended within `submit`, or a handler that interrupts it: its loop goes on
        while self._permits and self.job.may_start() and self.job.ready():
            if not self._claiming.acquire(blocking=False):
                return
            try:
                self._submitting.add(me)
                submission = self._claim()
                if submission is not None:
                    self._submit(submission)
            finally:
                self._submitting.discard(me)
                self._claiming.release()
        if self._nested and self.job.sleeping:
            self.job.supervisor.wake()  # the head may be in the queue now, or find no permit: it looks after it

    def _claim(self) -> Submission | None:
        try:
            self._permits.pop()
        except IndexError:
            return None
        chunk = self.job.claim()
        if chunk is None:
            self._permits.append(None)
            return None
        submission = Submission(self, chunk)
        self._submissions[submission] = None
        return submission

    @must_not_wait
    def _submit(self, submission: Submission) -> None:
        try:
            # The executor is there as long as `_submissions` has one.
            future = submission.future = self.executor.submit(submission)
            check_future(future)
        except Exception as error:  # shut down, broken, or out of threads
            if raised_by_handler(error):
                raise
            # Without its traceback, whose frames refer to the run's handle: see `Source`. Or is the call queued?
            self._over(submission, error.with_traceback(None), Kind.FATAL)
            return
        submission.watch(future, partial(self._done, submission))

    def _done(self, submission: Submission, future: Any) -> None:
        """The submission's future is done (in any thread)."""
        if submission.state is State.RECALLED:
            return
        error: BaseException | None = None
        kind = Kind.FAILED
        try:
            if future.cancelled():
                error, kind = RuntimeError("the executor cancelled the call"), Kind.FATAL
            elif (error := future.exception()) is not None:
                if tells_of_the_end(error):
                    self.broken, kind = True, Kind.FATAL
                elif submission.unfit is not None:
                    error, kind = submission.unfit, Kind.FATAL
            elif submission.state is State.REMOTE and not submission.given_up:
                self._unpack(submission, future.result())
        except BaseException as fault:  # of ours
            self.job.crash(fault)
        self._over(submission, error, kind)

    def _over(self, submission: Submission, error: BaseException | None, kind: Kind) -> None:
        """Nothing more comes from the executor: items without an outcome fail, unless their call runs here."""
        if submission.begin(State.WITHDRAWN) and error is None:
            error = RuntimeError("the executor has not made the call")
        apart = submission.state in (State.REMOTE, State.WITHDRAWN)  # the call has ended with the future
        if not ((apart and submission.ends(CALL)) or submission.ends(FUTURE)):
            return  # the call still runs here
        try:
            if error is not None and not self.job.stopped:
                self._fail(submission, error, kind)
        except BaseException as fault:  # of ours
            self.job.crash(fault)
        self.finish(submission)

    def late(self, submission: Submission) -> None:
        """Its call has taken longer than its limit; here nothing ends it (supervisor only)."""

    def finish(self, submission: Submission) -> None:
        """The submission is over: its permit is free."""
        self._submissions.pop(submission, None)
        submission.future = None
        submission.left.open()
        self._permits.append(None)
        if self.broken:
            self.job.supervisor.wake()  # its own locks may be held while it says so (CPython 3.12): see `grow`
        elif self.job.stopped:
            self.retire()
            self._let_go()
        else:
            self.notify()

    # ---- chunks that were sent to another process ------------------------------------------------

    def _fail(self, submission: Submission, error: BaseException, kind: Kind) -> None:
        """Every item that has no outcome yet fails."""
        job, chunk = self.job, submission.load
        if submission.given_up or chunk.ended or (submission.call is not None and not submission.call.settle()):
            return
        for item in list(chunk.todo) if submission.away is None else submission.away:
            job.failed(chunk, item, copy_of(error) if kind is Kind.FAILED else error, 0.0, kind)
        self._end(submission)

    def _unpack(self, submission: Submission, outcomes: list[tuple[Outcome, Any, float]]) -> None:
        job, chunk = self.job, submission.load
        if submission.call is not None and not submission.call.settle():
            return
        items = submission.away or []
        seconds = 0.0
        if outcomes and outcomes[0][0] in {Outcome.UNREAD_FN, Outcome.FN_LACKS}:
            kind, packed, _ = outcomes[0]
            outcomes = []
            if kind is Outcome.UNREAD_FN or not self._goes_by_value(submission):
                _, error = unpack_outcome(kind, packed)
                for item in items:
                    job.failed(chunk, item, error, 0.0, Kind.FATAL)
                items = []
        for item, (kind, packed, elapsed) in zip(items, outcomes, strict=False):
            seconds += elapsed
            if job.trace is not None:
                job.trace.reported(chunk, len(chunk.out) + 1, seconds)
            if kind is Outcome.LACKS and self._goes_by_value(submission):
                self._again(chunk, item)
                continue
            came, outcome = unpack_outcome(kind, packed)
            if came:
                chunk.out.append(outcome)
            else:
                job.failed(chunk, item, outcome, elapsed)
        submission.since = clock() - seconds  # neither the way there and back nor the queue counts
        remainder = items[len(outcomes) :]
        if remainder:
            chunk.todo = iter(remainder)
            self.take_back(chunk)
        self._end(submission)

    def _goes_by_value(self, submission: Submission) -> bool:
        """What the main module defines, and the worker of this submission lacks, may be sent again by value."""
        if submission.main is not Main.SAME or not has_cloudpickle():
            return False
        self.main = Main.LACKING
        return True

    def _again(self, chunk: Chunk, item: Any) -> None:
        """The item has not begun: it runs again in its place."""
        self.job.window.again(self._put(chunk, item))

    def _put(self, chunk: Chunk, item: Any) -> Chunk:
        """A chunk of this one item, in the place of its outcome."""
        fresh = Chunk.again(chunk.index + len(chunk.out), item, chunk.attempt)
        chunk.plain = False
        chunk.out.append(fresh)
        return fresh

    def _end(self, submission: Submission) -> None:
        if submission.chunk is None:
            submission.since = clock()
        self.job.ended(submission, submission.load)

    # ---- the consumer ----------------------------------------------------------------------------

    def work(self, *, block: bool) -> float | None:
        """Have the head's future work, if it does so when it is asked for its result, instead of by itself."""
        if self._nested:
            self.job.supervisor.wake()  # it looks after the head
        if not self._driven():
            return None
        submission = self._head()
        if submission is None or submission.chunk is not None or not drives(submission.future):
            return None
        try:  # not for long: if it does not work after all, nothing else would be noticed meanwhile
            submission.future.result(timeout=_DRIVE_S if block else 0.0)
        except Exception as error:  # the call's own errors are in its outcome
            if raised_by_handler(error):
                raise
        return 0.0 if block or submission.load.ended else _PATIENCE_S

    def _driven(self) -> bool:
        """Whether a future does its work when the consumer asks for its result."""
        return any(drives(submission.future) for submission in list(self._submissions))

    def _head(self) -> Submission | None:
        head = self.job.window.taken
        for submission in list(self._submissions):
            load = submission.load
            if not load.ended and load.index <= head < load.index + max(1, load.size):
                return submission
        return None

    # ---- the supervisor --------------------------------------------------------------------------

    def grow(self) -> float | None:
        """Submit what a broken executor will refuse, which ends the run; rescue the head of a nested run."""
        if self.broken:
            self.broken = False
            self.notify()
        return self._look_after_head() if self._nested and self.job.sleeping and not self.job.stopped else None

    def _look_after_head(self) -> float | None:
        """Run the head in a thread of its own if the executor does not come to it; seconds until then.

        Guarantee 22.
        """
        submission = self._head()
        if submission is not None and (submission.chunk is not None or submission.load.ended):
            self._head_since = None
            self._patience_s = _PATIENCE_S
            return None
        now = clock()
        if self._head_since is None:
            self._head_since = now
        left = self._head_since + self._patience_s - now
        if left > 0:
            return left
        if submission is None:
            submission = self._swap()
        if submission is None or not submission.recall():
            return None  # it pauses, or it just begins
        self._head_since = None
        self._patience_s = 0.0  # until the executor has come to a head by itself
        thread = CallThread(self.job, submission, "inturn-rescue", partial(self._run_rescued, submission))
        thread.left = submission.left  # open when the submission has landed
        try:
            thread.start()
        except BaseException:
            submission.left.open()  # nobody runs it now
            raise
        return None

    def _run_rescued(self, submission: Submission) -> None:
        submission.run()
        self.finish(submission)

    def _swap(self) -> Submission | None:
        """The head has found no permit: it gets that of a call that is still in the queue, which goes back."""
        window = self.job.window
        queued = [each for each in list(self._submissions) if each.state is State.QUEUED]
        if self._permits or not queued or not self.job.may_start():
            return None
        chunk = self._alone(self.job.claim, window.taken)
        if chunk is None:
            return None  # it pauses, or waits for the limit
        for each in queued:
            if each.recall():
                self._submissions.pop(each, None)
                each.left.open()
                self._alone(window.take_back, each.load)
                submission = Submission(self, chunk)
                self._submissions[submission] = None
                return submission
        self._alone(window.take_back, chunk)
        return None

    # ---- the end ---------------------------------------------------------------------------------

    def retire(self) -> None:
        if self._retired or threading.get_ident() in self._submitting:
            return  # in the midst of `submit` the executor's own locks are held: the interrupted `next` comes here too
        self._retired = True
        for submission in reversed(list(self._submissions)):  # or what waits would start in the place of what runs
            submission.cancel()
        if self._build is not None and self.executor is not None:
            self.executor.shutdown(wait=False)
        self._let_go()

    def _let_go(self) -> None:
        """What is not ours is referred to for as long as calls run there: runs inside them look for it."""
        if self._build is None and not self._submissions:
            self.executor = None

    def join(self) -> None:
        self.retire()
        for submission in list(self._submissions):
            if submission.begin(State.WITHDRAWN) and submission.ends(CALL):
                self.finish(submission)  # another thread is still in its `submit`
            if submission.state is not State.REMOTE or submission.watched():
                submission.left.wait()
        if self._build is not None and self._retired and self.executor is not None:
            self.executor.shutdown(wait=not any(submission.given_up for submission in list(self._submissions)))
