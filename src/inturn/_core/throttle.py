"""What keeps a run within its limit (guarantee 34): one more reason why nothing may be claimed *yet*.

Who has something to start and a slot for it asks first: `Job.ready`, to know whether to wake a worker, `Job.claim`, to
claim. If the limit does not allow it, the pool is told to look again in so many seconds (`BasePool.look_in`). So
nothing waits in a worker: whoever keeps the run's time wakes the pool at that moment.

Items are claimed one by one in a run with a limit, so a claim is a start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from inturn._model.limit import Limiter, Turn

__all__ = ["Throttle"]


class Pool(Protocol):
    def look_in(self, seconds: float, /) -> None: ...


class Limited(Protocol):
    """A job."""

    clock: Callable[[], float]

    @property
    def stopped(self) -> bool: ...

    @property
    def pool(self) -> Pool: ...


class Throttle:
    """A run's place in the queue of its limiter, and the time that it has spent there."""

    __slots__ = ("_denied_at", "_limiter", "_turn", "_waited_s")

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._turn = Turn()
        self._denied_at: float | None = None
        self._waited_s = 0.0

    def allows(self, job: Limited) -> bool:
        """Whether a call may start now; there is one that could. If not, the pool will look again."""
        left = self._limiter._ask(self._turn, job.clock, take=False)
        if left is None:
            return True
        self._denied(job)
        job.pool.look_in(left)
        return False

    def take(self, job: Limited) -> float | None:
        """Start a call; if that is not allowed yet, the seconds until to ask again."""
        left = self._limiter._ask(self._turn, job.clock)
        if left is None:
            self._served(job)
        else:
            self._denied(job)
        return left

    def leave(self, job: Limited) -> None:
        """Nothing waits any more; from anywhere."""
        self._limiter._leave(self._turn)
        self._served(job)

    def _denied(self, job: Limited) -> None:
        if self._denied_at is None:
            self._denied_at = job.clock()
        if job.stopped:  # asked after it has queued up: `Job.stop` may have left the queue just before
            self.leave(job)

    def _served(self, job: Limited) -> None:
        denied_at, self._denied_at = self._denied_at, None
        if denied_at is not None:
            self._waited_s += job.clock() - denied_at

    def waited_s(self, job: Limited) -> float:
        """Seconds in which something was ready to start and the limit did not allow it."""
        denied_at = self._denied_at
        return self._waited_s + (0.0 if denied_at is None else job.clock() - denied_at)
