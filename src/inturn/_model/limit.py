"""`Limiter`: how many calls may start per second.

It is a token bucket with a memory. The *pace* is that of a bucket that holds `burst` tokens and gains `rate` of them
per second; each start takes one. The *memory* makes the bound exact: an interval of `per` seconds may contain
``_most`` starts, so the next start also waits until the one that is ``_most`` places before it is more than `per`
seconds ago.

- **Late starts.** A run that waits for a token is woken a little too late. A bucket of one token would lose that time
  for good: at 200 calls per second and 1 ms, a sixth of all starts. So the bucket is filled from the moment when a
  start was due, if that is at most `per` / 20 ago. The memory bounds what that allows.
- **Early starts.** The second of two calls may begin with less delay after it was allowed than the first. So the
  memory goes back by a little more than `per` (2 %, at most 50 ms), and the pace is slower (by at most 2 %) where
  starts at the full pace would meet that.
- **Fairness.** A run that has to wait goes to the end of ``queue``, with the moment when it should ask again, and
  stays there until it has started something, or has nothing to start (`_leave`). A run that does not ask when its
  start is due, because its event loop is busy or it has ended, loses its place soon after (``_late_s``).

States are `Link`s, so nothing here takes a lock: `_ask`, `_leave` and `pause` may be called anywhere, also where a
signal handler or a finaliser has interrupted another of these calls. At worst a start is counted that is not made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NoReturn

from inturn._base import checks
from inturn._base.atomic import Link
from inturn._base.clock import clock

__all__ = ["Limiter", "Turn", "limiter_of"]

_NEVER: Final = -math.inf
_MOST: Final = 1 << 62


class _Start(Link):
    """A start that was allowed: the state of the bucket and of the memory after it."""

    __slots__ = ("at", "full_at", "number", "past")

    def __init__(self, at: float, full_at: float, number: int, past: _Start | None) -> None:
        super().__init__()
        self.at = at  # when it was
        self.full_at = full_at  # when the bucket is full again if nothing else starts
        self.number = number  # of starts, this one included
        self.past = past  # the start that has to be out of the interval before the next one; None: this one


class _Pause(Link):
    until = _NEVER  # nothing starts before this moment


class Turn:
    """What a run is to its limiter: its place in the queue."""

    since: float | None = None  # when it began to wait for the limit; None: it does not


class _Books:
    """What a limiter knows, by a clock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.start = _Start(_NEVER, _NEVER, 0, None)
        self.pause = _Pause()
        self.queue: dict[Turn, float] = {}  # when they should ask again


class Limiter:
    """A limit on how many calls start per second; any number of runs may share it.

    >>> from inturn import Limiter, ordered_map
    >>> api = Limiter(50, burst=5)
    >>> list(ordered_map(str.upper, "ab", limit=api)) + list(ordered_map(str.lower, "CD", limit=api))
    ['A', 'B', 'c', 'd']

    Runs on threads, processes and tasks, in several threads and event loops of one process, may share a limiter; they
    start calls in turn. Further attempts of `retry` count as starts. An item that waits for the limit occupies no
    worker and no CPU, keeps its place in the order, and counts in ``window``; its ``timeout`` has not begun. With an
    executor that is passed in, submissions are counted, since its calls begin elsewhere.

    Args:
        rate: Calls per second, above 0, whatever `per` is: for 100 calls a minute write ``Limiter(100 / 60, per=60)``.
        per: The length in seconds of the interval in which the bound is exact, above 0: the interval in
            which the service counts.
        burst: Calls that may start at once after a rest, at least 1.

    In no interval of `per` seconds do more than ``rate * per + burst`` calls start. So for a service that refuses the
    201st call in any second, ``rate * per + burst`` has to be 200 at most: ``Limiter(195, burst=5)``.

    Raises:
        TypeError, ValueError: For arguments that cannot be meant.

    Cost: a few microseconds per start, and about 0.3 kB for each start of the last `per` seconds.
    """

    __slots__ = ("_books", "_interval", "_lag_s", "_late_s", "_most", "_span", "burst", "per", "rate")

    def __init__(self, rate: float, per: float = 1.0, burst: int = 1) -> None:
        self.rate: float = _above_zero("rate", rate, "a number of calls per second")
        self.per: float = _above_zero("per", per, "a number of seconds")
        self.burst: int = checks.count("burst", burst)
        self._most = math.floor(min(self.rate * self.per + self.burst + 1e-9, _MOST))  # starts in an interval
        self._span = self.per + min(self.per / 50, 0.05)
        self._interval = max(1 / self.rate, self._span / self._most)  # seconds from start to start
        self._lag_s = self.per / 20  # a start that was due so long ago, at most, still counts from then
        self._late_s = max(self._interval, 0.1)  # who is so much later than announced loses its place
        self._books = _Books(clock)

    def __repr__(self) -> str:
        return f"Limiter({self.rate:g}, per={self.per:g}, burst={self.burst})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Limiter cannot be pickled: it counts in the process that made it, where the run that is given it is; "
            "to pause it for an error of a worker process, call pause() in after= or on_retry= of retry"
        )

    def pause(self, seconds: float) -> None:
        """Start nothing for so many seconds, in all runs that share the limiter: for a service that asks for it.

        It may be called from anywhere: from ``fn`` in this process, from ``after=`` or ``on_retry=`` of `retry`, from a
        policy, from any thread and from a signal handler. A pause that ends earlier than one that is under way
        changes nothing. Calls that run are not touched.

        Args:
            seconds: From now; at least 0.
        """
        books = self._books
        until = books.clock() + checks.number("seconds", seconds)
        while True:
            pause = books.pause.latest()
            after = _Pause()
            after.until = max(until, pause.until)
            if pause.follow(after):
                books.pause = after
                return

    def _ask(self, turn: Turn, clock: Callable[[], float], *, take: bool = True) -> float | None:
        """Start a call now: None if that is allowed, and counted; else the seconds until to ask again.

        Guarantee 34. Not `take`: only ask whether it would be allowed. By another clock than before, as
        where a test runs in virtual time, the limiter begins anew.
        """
        books = self._books
        if clock != books.clock:
            books = self._books = _Books(clock)
        while True:
            start = books.start.latest()
            past = start.past or start
            paused = books.pause.latest().until
            now = clock()
            due_at = now if turn.since is None else max(turn.since, paused, now - self._lag_s)
            full_at = max(start.full_at, min(due_at, now))
            next_at = max(
                full_at
                + (1 - self.burst + _ahead(turn, books.queue, now - self._late_s)) * self._interval,  # there is a token
                past.at + self._span,  # the memory allows it
                paused,
            )
            if next_at > now:
                if turn.since is None:
                    turn.since = now
                books.queue[turn] = next_at  # at its end, or where it is already
                return next_at - now
            if not take:
                return None
            behind = past.after() if start.number + 1 >= self._most else past  # None: the one being made
            after = _Start(now, full_at + self._interval, start.number + 1, behind)
            if start.follow(after):
                books.start = after
                books.queue.pop(turn, None)
                if after.full_at + (1 - self.burst) * self._interval > now:  # else another one was due by now
                    turn.since = None
                return None

    def _leave(self, turn: Turn) -> None:
        """The run does not want to start anything now."""
        self._books.queue.pop(turn, None)
        turn.since = None


def _ahead(turn: Turn, queue: dict[Turn, float], late: float) -> int:
    """How many runs come before this one; those that should have asked before `late` lose their place."""
    ahead = 0
    for each, next_at in list(queue.items()):
        if each is turn:
            break
        if next_at < late:
            queue.pop(each, None)
        else:
            ahead += 1
    return ahead


def limiter_of(limit: Any) -> Limiter:
    """What a ``limit`` argument, which is not None, stands for."""
    if isinstance(limit, Limiter):
        return limit
    if limit is Limiter:
        raise TypeError("limit must be a number, a Limiter or None: call it, Limiter(rate)")
    return Limiter(_above_zero("limit", limit, "a number of calls per second, a Limiter or None"))


def _above_zero(name: str, value: object, allowed: str) -> float:
    number = checks.number(name, value, allowed=allowed)
    if not number:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return number
