"""What keeps a run within its limit (guarantee 34): one more reason why nothing may be claimed *yet*.

Who has something to start and a slot for it asks first: `Job.ready` before it wakes a worker, and
`Job.claim`. If the limit does not allow it, the pool is told to look again in so many seconds
(`BasePool.look_in`), so nothing waits in a worker. Items are claimed one by one in a run with a
limit, so a claim is a start.
"""

from __future__ import annotations

from collections.abc import Callable

from inturn._model.limit import Limiter, Turn

__all__ = ["Throttle"]

Clock = Callable[[], float]


class Throttle:
    """A run's place in the queue of its limiter, and the time that it has spent there."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._turn = Turn()
        self._over = False
        self._denied_at: float | None = None
        self._waited_s = 0.0

    def ask(self, clock: Clock, *, start: bool) -> float | None:
        """Seconds until to ask again; None if a call may start now, and with `start` it does."""
        left = self._limiter._ask(self._turn, clock, take=start)
        if left is not None:
            if self._denied_at is None:
                self._denied_at = clock()
            if self._over:  # asked after it has queued up: `close` may have come just before
                self.leave(clock)
        elif start:
            self._served(clock)
        return left

    def leave(self, clock: Clock) -> None:
        """Nothing waits any more."""
        self._limiter._leave(self._turn)
        self._served(clock)

    def close(self, clock: Clock) -> None:
        """The run is over; from anywhere."""
        self._over = True
        self.leave(clock)

    def _served(self, clock: Clock) -> None:
        denied_at, self._denied_at = self._denied_at, None
        if denied_at is not None:
            self._waited_s += clock() - denied_at

    def waited_s(self, clock: Clock) -> float:
        """Seconds in which something was ready to start and the limit did not allow it."""
        denied_at = self._denied_at
        return self._waited_s + (0.0 if denied_at is None else clock() - denied_at)
