"""Clusters: Dask and Ray, as executors. A subclass of `ClusterPool` says what differs between them.

What the calls need is pickled here, since a cluster's workers lack our main module. The supervisor
submits, and takes what comes back: a `submit` takes locks of the cluster's client, so the consumer,
which a signal handler may interrupt, only wakes the supervisor.

**Batches.** A task costs milliseconds on a cluster: the time from `submit` to the outcomes, without
the seconds that the calls took. A batch aims at ten times as long, so that the cost stays near a
tenth.

**Lost workers.** The items of a task that is lost with its worker may have run, or not. Each runs
again, alone in its task; if it was alone and its worker is lost, it fails with `WorkerDied`. A
worker of Ray runs one task at a time. One of Dask, when it dies, takes along what waits there and
what its other threads run. So there the items are *suspects*: none runs at the same time as
another, and only a suspect fails.
"""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections import deque
from functools import partial
from typing import Any, Final

from inturn._base.atomic import pop_or
from inturn._base.clock import clock
from inturn._core.job import Job
from inturn._core.slot import Star
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind
from inturn._model.processes import WorkerDied
from inturn._transport.pickling import PROTOCOL, Main, noted
from inturn._transport.remote import Outcome

from .executors import ExecutorPool
from .submission import Submission

__all__ = ["ClusterPool"]

_WORTH: Final = 10  # a batch is to take so many times the cost of sending it
_AIM_S: Final = (0.002, 0.2)  # but no less, and no more
_FIRST_AIM_S: Final = 0.02
_SLICE: Final = 2.5  # times the aim: then a batch comes back with what it has
_FORGETS: Final = 1.05  # the least cost that was seen counts, and a little more each time


def _task_name(fn: Any) -> str:
    """What the dashboards of the cluster show: the name of the user's function."""
    while isinstance(fn, (Star, partial)):
        fn = fn.fn if isinstance(fn, Star) else fn.func
    name = getattr(fn, "__name__", None)
    return name if isinstance(name, str) and name else type(fn).__name__


class ClusterPool(ExecutorPool):
    takes_along = False  # whether a worker that dies takes along tasks that waited there or ran beside

    def __init__(self, job: Job, client: Any, *, slices: bool) -> None:
        super().__init__(job, client, None, slices=slices)
        self.main = Main.LACKING
        self.name = _task_name(job.fn)
        self._ended: deque[tuple[Submission, Any]] = deque()
        self._suspects: dict[int, Chunk] = {}  # by index
        self._trial: Chunk | None = None  # the one suspect that runs
        self._cost_s = float("inf")  # no task has come back yet
        self._aim(_FIRST_AIM_S)

    @abstractmethod
    def send(self, load: bytes) -> Any:
        """Have the cluster call `run_packed` with this; returns a future of the list of outcomes."""

    @abstractmethod
    def lost(self, error: BaseException) -> bool:
        """Whether this error of a future says that a worker has died."""

    def notify(self, chunks: int = 1) -> None:
        self.job.supervisor.wake()

    def grow(self) -> float | None:
        self._take_ended()
        self._try_suspect()
        super().notify()
        return super().grow()

    def _take_ended(self) -> None:
        while (ended := pop_or(None, self._ended.popleft)) is not None:
            super()._done(*ended)

    def _try_suspect(self) -> None:
        """The next suspect may run, if none does."""
        window = self.job.window
        if self._trial is not None and self._trial.index > window.last_index:
            self._trial = None  # it never runs: the run ends before
        if self._trial is None and self._suspects:
            self._trial = self._suspects.pop(min(self._suspects))
            window.again(self._trial)

    def future_of(self, submission: Submission) -> Any:
        return self.send(pickle.dumps(submission.pack(), PROTOCOL))

    def _done(self, submission: Submission, future: Any) -> None:
        self._ended.append((submission, future))
        self.job.supervisor.wake()
        if self.job.stopped:  # asked after it was appended: the supervisor may have gone
            self._take_ended()

    def finish(self, submission: Submission) -> None:
        if submission.load is self._trial:
            self._trial = None
        super().finish(submission)

    def _unpack(self, submission: Submission, outcomes: list[tuple[Outcome, Any, float]]) -> None:
        if self.job.stopped:
            return  # nobody wants them
        cost = clock() - submission.since - sum(elapsed for _, _, elapsed in outcomes)
        self._cost_s = min(cost, self._cost_s * _FORGETS)
        self._aim(self._cost_s * _WORTH)
        super()._unpack(submission, outcomes)

    def _aim(self, seconds: float) -> None:
        window = self.job.window
        window.aim_s = min(max(seconds, _AIM_S[0]), _AIM_S[1])
        if self.slice_s is not None:
            self.slice_s = _SLICE * window.aim_s

    def _fail(self, submission: Submission, error: BaseException, kind: Kind) -> None:
        job, chunk = self.job, submission.load
        if not self.lost(error):
            if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] == "inturn":
                noted(error, "inturn must be installed where the workers of the cluster run")
            super()._fail(submission, error, Kind.FATAL)
            return
        if not submission.settle():
            return
        items = submission.away or []
        elapsed, submission.since = clock() - submission.since, clock()  # it says nothing of the pace
        if len(items) == 1 and (chunk is self._trial or not self.takes_along):
            died = WorkerDied(chunk.index + len(chunk.out), None)
            died.__cause__ = error
            job.failed(chunk, items[0], died, elapsed)
        else:
            for item in items:
                fresh = self._put(chunk, item)
                if self.takes_along:
                    self._suspects[fresh.index] = fresh
                else:
                    job.window.again(fresh)
        job.ended(submission, chunk)

    def join(self) -> None:
        """Wait for nothing: what runs there cannot be ended from here, and holds nothing of ours."""
        self.retire()
        self._take_ended()
