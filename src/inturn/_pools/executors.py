"""Executors that the user has passed in: only their `submit` and the public methods of the futures are used.

At most `concurrency` submissions are under way (see `submission`). Each one that finishes starts
the next one, in the thread in which it ends; so work goes on while the consumer is away.

A run inside a call of another run on the same executor may wait for a queue that its own call is
blocking. Such a run *rescues* its head (guarantee 22): its supervisor cancels the head's future and
runs the chunk in a thread of its own.

The consumer submits in its own thread, unlike all else that takes locks (see `supervisor`): the
first ``submit`` of a ``ProcessPoolExecutor`` may fork all its workers, and code of the user that
runs beside a fork may hold a lock, which the child would then wait for without end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from typing import Any, Final

from inturn._base.clock import clock
from inturn._base.signals import raised_by_handler
from inturn._core.job import BasePool, Job
from inturn._core.nesting import enclosing, inside
from inturn._core.slot import Slot
from inturn._core.threads import CallThread, must_not_wait
from inturn._engine.chunk import Chunk
from inturn._engine.window import SLICE_S
from inturn._model.outcome import Kind
from inturn._transport.pickling import Main, has_cloudpickle, unpack_error
from inturn._transport.remote import Outcome, unpack_outcome

from .submission import State, Submission

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
        self._claiming = threading.Lock()  # only ever tried by the consumer: see `notify`
        self._claimer = 0  # the thread that has it
        self._patience_s = _PATIENCE_S
        self._head_since: float | None = None  # when the supervisor has first seen the head in the queue
        self._retired = False
        self._nested = False
        self.main = Main.SAME  # what is assumed of its workers, until one of them knows better
        self.fn_blobs: dict[Main, bytes] = {}
        self.broken = False  # a future has said so, and nothing has been submitted since

    def bars(self, job: Job | None) -> bool:
        return not inside(self.job)  # within a `submit` the executor holds its locks: see `may_wait`

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

    def has_capacity(self) -> bool:
        return len(self._submissions) < self.job.concurrency

    def slots(self) -> list[Slot]:
        return list(self._submissions)

    def worker_of(self, slot: Any) -> int:
        return super().worker_of(slot) if slot.away is None else 0

    def take_back(self, chunk: Chunk) -> bool | None:
        taken: bool | None = self._alone(self.job.window.take_back, chunk)
        return taken

    def _alone(self, act: Callable[..., Any], *args: Any) -> Any:
        """Act while no other thread claims; None if the run ends before that is possible."""
        if threading.get_ident() == self._claimer:
            return act(*args)
        while not self._claiming.acquire(timeout=SLICE_S):
            if self.job.stopped:
                return None
        try:
            return act(*args)
        finally:
            self._claiming.release()
            if self.has_capacity():  # else the supervisor, which comes here, would wake itself
                self.notify()  # for threads that tried to claim meanwhile

    def notify(self, chunks: int = 1) -> None:
        """Submit while there is something to run, up to `concurrency` at once.

        One thread claims at a time. Other threads do not wait for it: it looks again after it has released
        `_claiming`, so a signal handler that interrupts it blocks nobody.
        """
        me = threading.get_ident()
        if me == self._claimer:
            return  # a call that ended within `submit`, or a handler that interrupts it: its loop goes on
        while self.has_capacity() and self.job.may_start() and self.job.ready():
            if not self._claiming.acquire(blocking=False):
                return
            try:
                self._claimer = me
                if self.has_capacity() and (chunk := self.job.claim()) is not None:
                    self._submit(self._new(chunk))
            finally:
                self._claimer = 0
                self._claiming.release()
        if self._nested and self.job.sleeping:
            self.job.supervisor.wake()  # the head may be in the queue now, or find no room: it looks after it

    def _new(self, chunk: Chunk) -> Submission:
        submission = Submission(self, chunk)
        self._submissions[submission] = None
        return submission

    def future_of(self, submission: Submission) -> Any:
        return self.executor.submit(submission)  # it is there as long as `_submissions` has one

    @must_not_wait
    def _submit(self, submission: Submission) -> None:
        try:
            future = submission.future = self.future_of(submission)
            _check(future)
        except Exception as error:  # shut down, broken, or out of threads
            if raised_by_handler(error):
                raise
            # Without its traceback, whose frames refer to the run's handle: see `Source`. Or is the call queued?
            self._over(submission, error.with_traceback(None), Kind.FATAL)
        else:
            future.add_done_callback(partial(self._done, submission))
            submission.awaits.setdefault("future", True)  # last: what nobody tells of is not waited for; or it was told

    def _done(self, submission: Submission, future: Any) -> None:
        """The submission's future is done (in any thread)."""
        error: BaseException | None = None
        kind = Kind.FAILED
        try:
            if submission.state is State.RECALLED:
                return
            if future.cancelled():
                error, kind = RuntimeError("the executor cancelled the call"), Kind.FATAL
            elif (error := future.exception()) is not None:
                if raised_by_handler(error):  # it landed in a call that runs within `submit`, and ended it
                    submission.awaits["call"] = False
                    self.job.crash(error)
                elif isinstance(error, BrokenExecutor):  # the executor has failed, not the call
                    self.broken, kind = True, Kind.FATAL
                elif submission.unfit is not None:
                    error, kind = submission.unfit, Kind.FATAL
            elif submission.state is State.REMOTE:
                self._unpack(submission, future.result())
        except BaseException as fault:  # of ours
            self.job.crash(fault)
        self._over(submission, error, kind)

    def _over(self, submission: Submission, error: BaseException | None, kind: Kind) -> None:
        """Nothing more comes from the executor: items without an outcome fail, unless their call runs here."""
        try:
            if submission.begin(State.WITHDRAWN) and error is None:
                error = RuntimeError("the executor has not made the call")
            apart = submission.state in (State.REMOTE, State.WITHDRAWN)  # the call has ended with the future
            if not ((apart and submission.ends("call")) or submission.ends("future")):
                return  # the call still runs here
            if error is not None and not self.job.stopped:
                self._fail(submission, error, kind)
        except BaseException as fault:  # of ours, or of a signal handler: a future swallows it
            self.job.crash(fault)
        self.finish(submission)

    def late(self, submission: Submission) -> None:
        """Its call has taken longer than its limit: end it, or take it out of the queue, if there is a way."""

    def finish(self, submission: Submission) -> None:
        """The submission is over: there is room for another."""
        self._submissions.pop(submission, None)
        submission.future = None
        submission.left.open()
        if self.broken:
            self.job.supervisor.wake()  # its own locks may be held while it says so (CPython 3.12): see `grow`
        elif self.job.stopped:
            self.retire()
        else:
            self.notify()

    def _fail(self, submission: Submission, error: BaseException, kind: Kind) -> None:
        """Every item that has no outcome yet fails."""
        job, chunk = self.job, submission.load
        if not submission.settle():
            return
        for item in list(chunk.todo) if submission.away is None else submission.away:
            job.failed(chunk, item, _copy_of(error) if kind is Kind.FAILED else error, 0.0, kind)
        if submission.chunk is None:  # it was not begun
            submission.since = clock()
        job.ended(submission, chunk)

    def _unpack(self, submission: Submission, outcomes: list[tuple[Outcome, Any, float]]) -> None:
        job, chunk = self.job, submission.load
        if outcomes and outcomes[0][0] in {Outcome.UNREAD_FN, Outcome.FN_LACKS}:  # no item was run
            kind, packed, _ = outcomes.pop()
            if kind is Outcome.UNREAD_FN or not self._goes_by_value(submission):
                self._fail(submission, unpack_error(packed), Kind.FATAL)
                return
        if not submission.settle():
            return
        items = submission.away or []
        seconds = 0.0
        for item, (kind, packed, elapsed) in zip(items, outcomes, strict=False):
            seconds += elapsed
            if job.trace is not None:
                job.trace.reported(chunk, len(chunk.out) + 1, seconds)
            if kind is Outcome.LACKS and self._goes_by_value(submission):
                job.window.again(self._put(chunk, item))
                continue
            came, outcome = unpack_outcome(kind, packed)
            if came:
                chunk.out.append(outcome)
            else:
                job.failed(chunk, item, outcome, elapsed)
            del outcome  # the frames of an error of unpickling keep this one
        submission.since = clock() - seconds  # neither the way there and back nor the queue counts
        if len(outcomes) < len(items):
            self._alone(job.window.give_back, chunk, items[len(outcomes) :])
        job.ended(submission, chunk)

    def _goes_by_value(self, submission: Submission) -> bool:
        """What the main module defines, and the worker of this submission lacks, may be sent again by value."""
        if submission.main is not Main.SAME or not has_cloudpickle():
            return False
        self.main = Main.LACKING
        return True

    def _put(self, chunk: Chunk, item: Any) -> Chunk:
        """A chunk of this one item, which has not begun, in the place of its outcome."""
        fresh = Chunk.again(chunk.index + len(chunk.out), item, chunk.attempt)
        chunk.plain = False
        chunk.out.append(fresh)
        return fresh

    def work(self, *, block: bool) -> float | None:
        """Have the head's future work, if it does so when it is asked for its result, instead of by itself."""
        if self._nested:
            self.job.supervisor.wake()  # it looks after the head
        submission = self._head()
        if submission is None or submission.chunk is not None:
            return None
        future = submission.future
        if not isinstance(future, Future) or type(future).result is Future.result:
            return None  # a thread or a process does its work
        try:  # not for long: if it does not work after all, nothing else would be noticed meanwhile
            future.result(timeout=_DRIVE_S if block else 0.0)
        except Exception as error:  # the call's own errors are in its outcome
            if raised_by_handler(error):
                raise
        return 0.0 if block or submission.load.ended else _PATIENCE_S

    def _head(self) -> Submission | None:
        head = self.job.window.taken
        for submission in list(self._submissions):
            load = submission.load
            if not load.ended and load.index <= head < load.index + max(1, load.size):
                return submission
        return None

    def grow(self) -> float | None:
        """Submit what a broken executor will refuse, which ends the run; rescue the head of a nested run."""
        if self.broken:
            self.broken = False
            self.notify()
        return self._look_after_head() if self._nested and self.job.sleeping and not self.job.stopped else None

    def _look_after_head(self) -> float | None:
        """Guarantee 22: run a head that the executor does not come to in a thread; seconds until then."""
        submission = self._head()
        if submission is not None and submission.chunk is not None:
            self._head_since = None
            self._patience_s = _PATIENCE_S
            return None
        if self._head_since is None:
            self._head_since = clock()
        left = self._head_since + self._patience_s - clock()
        if left > 0:
            return left
        submission = submission or self._swap()
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
        """There was no room for the head: it gets that of a call that is still in the queue, which goes back."""
        queued = [each for each in list(self._submissions) if each.state is State.QUEUED]
        if self.has_capacity() or not queued or not self.job.may_start():
            return None
        chunk = self._alone(self.job.claim, self.job.window.taken)
        if chunk is None:
            return None  # it pauses, or waits for the limit
        for each in queued:
            if each.recall():
                submission = self._new(chunk)
                self._submissions.pop(each, None)  # afterwards: nobody else takes its room
                each.left.open()
                self.take_back(each.load)
                return submission
        self.take_back(chunk)
        return None

    def retire(self) -> None:
        # In the midst of `submit` the executor's own locks are held: the interrupted `next` comes here too.
        if not self._retired and threading.get_ident() != self._claimer:
            self._retired = True
            for submission in reversed(list(self._submissions)):  # or what waits would start in the place of what runs
                submission.cancel()
            if self._build is not None and self.executor is not None:
                self.executor.shutdown(wait=False)
        if self._build is None and not self._submissions:  # until then, runs inside its calls look for it
            self.executor = None

    def join(self) -> None:
        self.retire()
        for submission in list(self._submissions):
            if submission.begin(State.WITHDRAWN):  # `retire` has seen no future: another thread was in its `submit`
                if submission.ends("call"):
                    self.finish(submission)  # and still is
                else:
                    submission.cancel()
            if submission.state is not State.REMOTE or submission.awaits.get("future"):
                submission.left.wait()
        if self._build is not None and self._retired and self.executor is not None:
            self.executor.shutdown(wait=not any(submission.given_up for submission in list(self._submissions)))


def _check(future: Any) -> None:
    """Refuse what a ``submit`` has returned if it cannot tell of its end: a mock answers to every name, but not so."""
    try:
        known = isinstance(future.done(), bool) and callable(future.add_done_callback)
    except AttributeError as error:
        if raised_by_handler(error):
            raise
        known = False
    if not known:
        raise TypeError(f"submit() of executor= must return a future, got {type(future).__name__}: {future!r}")


def _copy_of(error: BaseException) -> BaseException:
    """A copy for each item, so that the notes of one are not those of all.

    No code of the error's class runs: its constructor may want other arguments, or do something.
    """
    kind = type(error)
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    try:
        twin: BaseException = base.__new__(kind, *error.args)
        base.__init__(twin, *error.args)
        vars(twin).update({name: value for name, value in vars(error).items() if name != "__notes__"})
    except Exception:  # a layout of its own
        return error
    twin.__cause__ = error.__cause__
    return twin
