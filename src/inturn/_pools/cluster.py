"""Clusters: Dask and Ray. An adapter says what differs; the pool of executors (`executors`) does the rest.

An adapter is an object with ``submit`` that returns futures, as any executor that is passed in. What the calls need is
pickled here, since a cluster's workers lack our main module. The supervisor submits, and takes what comes back: a
`submit` takes locks of the cluster's client, so the consumer, which a signal handler may interrupt, only wakes the
supervisor.

**Batches.** A task costs milliseconds on a cluster. The cost is measured: the time from `submit` to the outcomes,
without the seconds that the calls took. A batch aims at ten times as long, so that the cost stays near a tenth.

**Lost workers.** The items of a task that is lost with its worker may have run, or not:

======================== ==========================================================================
lost                     what becomes of it
======================== ==========================================================================
a batch, Ray             each item runs again, alone in its task
one item, Ray            fails with `WorkerDied`: a worker runs one task at a time
a batch or an item, Dask *suspects*: each item runs again, alone in its task, and no other suspect at
                         the same time. For a worker that dies takes along what waits there, and what
                         its other threads run
a suspect                fails with `WorkerDied`
======================== ==========================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from functools import partial
from typing import Any, Final

from inturn._base.clock import clock
from inturn._base.events import ThreadEvent
from inturn._core.consumer import sooner
from inturn._core.job import Job
from inturn._core.slot import Star
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind
from inturn._model.processes import WorkerDied
from inturn._transport.pickling import Main, noted
from inturn._transport.remote import Outcome

from .executors import ExecutorPool
from .submission import Submission

__all__ = ["Cluster", "ClusterPool"]

_WORTH: Final = 10  # a batch is to take so many times the cost of sending it
_AIM_S: Final = (0.002, 0.2)  # but no less, and no more
_FIRST_AIM_S: Final = 0.02
_SLICE: Final = 2.5  # times the aim: then a batch comes back with what it has
_LOOK_S: Final = 1.0
_FORGETS: Final = 1.05  # the least cost that was seen counts, and a little more each time


class Cluster(ABC):
    """What inturn has to know of a cluster."""

    takes_along = False
    """Whether a worker that dies also takes along tasks that it had not begun, or that ran beside."""

    tells_of_its_end = True
    """Whether futures end when the client is closed. If not, somebody has to look."""

    def is_there(self) -> bool:
        """Whether the client is not closed."""
        return True

    @abstractmethod
    def open(self, name: str, *, blocks: bool) -> None:
        """The first ``next`` of a run of the function with this name; `blocks` if the consumer's thread waits.

        Raises:
            RuntimeError: The run cannot work, and why.
        """

    @abstractmethod
    def submit(self, submission: Submission) -> Any:
        """Send what the submission packs; returns a future of the list of outcomes (supervisor only)."""

    @abstractmethod
    def late(self, future: Any) -> None:
        """The call is late: end it, or take it out of the queue, if that can be done; its future then ends."""

    @abstractmethod
    def lost(self, error: BaseException) -> bool:
        """Whether this error of a future says that a worker has died."""


def _task_name(fn: Any) -> str:
    """What the dashboards of the cluster show: the name of the user's function."""
    while isinstance(fn, (Star, partial)):
        fn = fn.fn if isinstance(fn, Star) else fn.func
    name = getattr(fn, "__name__", None)
    return name if isinstance(name, str) and name else type(fn).__name__


class ClusterPool(ExecutorPool):
    def __init__(self, job: Job, cluster: Cluster, *, slices: bool) -> None:
        super().__init__(job, cluster, None, slices=slices)
        self.main = Main.LACKING
        self._ended: deque[tuple[Submission, Any]] = deque()
        self._suspects: dict[int, Chunk] = {}  # by index
        self._trial: Chunk | None = None  # the one suspect that runs
        self._cost_s = float("inf")  # no task has come back yet
        self._aim(_FIRST_AIM_S)

    def open(self) -> None:
        self.executor.open(_task_name(self.job.fn), blocks=isinstance(self.job.wake, ThreadEvent))
        super().open()

    def notify(self, chunks: int = 1) -> None:
        self.job.supervisor.wake()

    # ---- the supervisor --------------------------------------------------------------------------

    def grow(self) -> float | None:
        self._take()
        self._try_suspect()
        super().notify()
        again = super().grow()
        if not self._submissions or self.executor.tells_of_its_end:
            return again
        if not self.executor.is_there():
            for submission in list(self._submissions):
                self._over(submission, RuntimeError("the cluster was shut down"), Kind.FATAL)
        return sooner(again, _LOOK_S)

    def _take(self) -> None:
        """What has ended meanwhile."""
        while self._ended:
            try:
                submission, future = self._ended.popleft()
            except IndexError:
                return
            super()._done(submission, future)

    def _try_suspect(self) -> None:
        """The next suspect may run, if none does."""
        window = self.job.window
        if self._trial is not None and self._trial.index > window.last_index:
            self._trial = None  # it never runs: the run ends before
        if self._trial is None and self._suspects:
            self._trial = self._suspects.pop(min(self._suspects))
            window.again(self._trial)

    def late(self, submission: Submission) -> None:
        future = submission.future  # let go of when it has landed, in any thread
        if future is not None:
            self.executor.late(future)

    # ---- what comes back: a thread of the cluster's client, then the supervisor ------------------

    def _done(self, submission: Submission, future: Any) -> None:
        self._ended.append((submission, future))
        self.job.supervisor.wake()
        if self.job.stopped:  # asked after it was appended: the supervisor may have gone
            self._take()

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
        if not self.executor.lost(error):
            if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] == "inturn":
                noted(error, "inturn must be installed where the workers of the cluster run")
            super()._fail(submission, error, Kind.FATAL)
            return
        if submission.given_up or chunk.ended or (submission.call is not None and not submission.call.settle()):
            return
        items = submission.away or []
        elapsed, submission.since = clock() - submission.since, clock()  # it says nothing of the pace
        if len(items) == 1 and (chunk is self._trial or not self.executor.takes_along):
            died = WorkerDied(chunk.index + len(chunk.out), None)
            died.__cause__ = error
            job.failed(chunk, items[0], died, elapsed)
        elif self.executor.takes_along:
            for item in items:
                suspect = self._put(chunk, item)
                self._suspects[suspect.index] = suspect
        else:
            for item in items:
                self._again(chunk, item)
        self._end(submission)

    # ---- the end ---------------------------------------------------------------------------------

    def join(self) -> None:
        """Wait for nothing: what runs there cannot be ended from here, and holds nothing of ours."""
        self.retire()
        self._take()
