"""What both drivers do the same way: deciding what takes a failed item's place, and keeping the books.

A `Run` belongs to its consumer. It never waits and starts nothing; the drivers do.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter as clock
from typing import Any, Final, NoReturn

from inturn._engine.window import Window
from inturn._model.outcome import Err, Failure, Kind, detach, note
from inturn._model.policy import AGAIN, LEFT_OUT, RAISE, SKIP, Policy, Retry, decision_of, resolve
from inturn._model.progress import Progress, progress_of
from inturn._model.stats import Stats

from .job import Job, Star
from .watchdog import Warden

__all__ = ["AGAIN", "LEFT_OUT", "Raised", "Run"]

_LOOKS: Final = 8  # after which a snapshot of a consumer that never rests is as good as it gets


class Raised:
    """This error ends the run. It is returned and raised by the outermost frame, so that no frame keeps it alive."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Clocks:
    """Where the consumer's time went, in seconds."""

    __slots__ = ("ended", "left", "on_consumer", "on_head", "on_source", "started")

    def __init__(self) -> None:
        self.started: float | None = None
        self.ended: float | None = None
        self.left = 0.0  # when the consumer was last given something
        self.on_head = 0.0
        self.on_source = 0.0
        self.on_consumer = 0.0


class Run:
    """The consumer's side of a run: its window, its policy and its books."""

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        spread: bool,
        concurrency: int,
        window: int | None,
        chunksize: int | None,
        batch: bool,
        ahead: int = 2,
        on_error: object,
        timeout: float | None,
        deadline: float | None,
        progress: object,
        total: int | None,
    ) -> None:
        self.policy: Policy = resolve("on_error", on_error)
        self._ahead = ahead  # so many items for each worker are in a window that nobody has set
        self.window = self._window_of(concurrency, window, chunksize, batch and timeout is None)
        self.job = self._job_of(Star(fn) if spread else fn, timeout, concurrency)
        self.job.warden = Warden(self.job)
        self.deadline = deadline
        self.total = total
        self.clocks = Clocks()
        self.skipped = 0
        self.failed = 0
        self.held: list[Any] = []  # taken from the window, not yet delivered; newest first
        self.name = getattr(fn, "__qualname__", None) or type(fn).__name__
        self.shows_progress = progress is not False
        self._progress = progress
        self.progress: Progress | None = None

    def _window_of(self, concurrency: int, limit: int | None, chunksize: int | None, batch: bool) -> Window:
        return Window(concurrency, limit, chunksize, batch=batch, ahead=self._ahead)

    def _job_of(self, fn: Callable[[Any], Any], timeout: float | None, concurrency: int) -> Job:
        return Job(fn, self.window, decision_of(self.policy), timeout, concurrency)

    def begin(self) -> None:
        """The first ``next``."""
        self.progress = progress_of(self._progress, self.total)

    def remaining(self) -> float | None:
        """Seconds until the deadline."""
        at = self.job.deadline_at
        return None if at is None else at - clock()

    def out_of_time(self) -> Raised:
        return Raised(TimeoutError(f"the run took longer than deadline={self.deadline:g} s"))

    # ---- what is delivered -----------------------------------------------------------------------

    def deliver(self, *, bulk: bool, indexed: bool) -> Any:
        """What takes the complete head's place: a value, `LEFT_OUT`, `AGAIN`, or `Raised`.

        With ``bulk``, what is complete behind it in its chunk is taken too, into `held`.
        """
        window = self.window
        index = window.taken
        results = window.take_results() if bulk else None
        if results is not None:
            window.resize()
            if indexed:
                results = list(zip(range(index + len(results) - 1, index - 1, -1), results, strict=True))
            self.held = results
            return results.pop()
        outcome = window.peek()
        if type(outcome) is Err:
            outcome = self.settle(outcome)
            if outcome is AGAIN or outcome is LEFT_OUT or type(outcome) is Raised:
                return outcome
        else:
            window.drop()
        return (index, outcome) if indexed else outcome

    def settle(self, err: Err) -> Any:
        """The value that takes the head's place, `LEFT_OUT`, `AGAIN`, or `Raised`."""
        window, index = self.window, self.window.taken
        if err.kind is Kind.FATAL or err.kind is Kind.SOURCE:
            return Raised(err.error)
        note(err.error, index, err.item)
        if err.kind is Kind.PASSING or self.policy is RAISE:
            self.failed += 1
            return Raised(err.error)
        failure = Failure(index, err.item, err.error, err.attempt, err.elapsed, err.delivered)
        try:
            value = self.policy(failure)
        except BaseException as error:  # it ends the run
            self.failed += 1
            raised = detach(error)
            if raised is not err.error and raised.__cause__ is None:
                raised.__cause__ = err.error
            try:
                return Raised(raised)
            finally:
                del raised, failure, err  # its traceback's frames keep this one
        if isinstance(value, Retry) and self._again(err, value.after):
            return AGAIN
        self.failed += 1
        if isinstance(value, Retry):
            return Raised(err.error)
        window.drop()
        if value is SKIP:
            self.skipped += 1
            return LEFT_OUT
        return value

    def _again(self, err: Err, after: float) -> bool:
        """The head runs again; False if it can't."""
        self.job.retry(self.window.run_again(err.item, err.attempt + 1), after)
        return True

    # ---- the books -------------------------------------------------------------------------------

    def tick(self) -> None:
        if self.progress is not None:
            self.progress.tick(self.stats)

    def enter(self) -> None:
        """The consumer is back."""
        job, clocks = self.job, self.clocks
        if clocks.left and job.last_end and not job.pool.running() and not self.window.available():
            clocks.on_consumer += max(0.0, clock() - max(clocks.left, job.last_end))

    def leave(self) -> None:
        self.clocks.left = clock()

    def end(self) -> None:
        """Stop everything; what is held is let go. Only by whoever is the consumer now."""
        clocks = self.clocks
        if clocks.ended is None:
            clocks.ended = clock()
        self.job.stop()
        self.job.fn = _gone
        stats = self.stats()
        self.window.clear()
        self.held = []
        progress, self.progress = self.progress, None
        if progress is not None:
            progress.end(lambda: stats)

    def stats(self) -> Stats:
        window, job, clocks = self.window, self.job, self.clocks
        looks = 0
        while True:  # the consumer may go on between two counts
            held, taken, pulled = len(self.held), window.taken, window.pulled
            waiting = window.waiting() + held
            looks += 1
            if looks == _LOOKS or (held == len(self.held) and taken == window.taken):
                break
        elapsed = 0.0 if clocks.started is None else (clocks.ended or clock()) - clocks.started
        now = clock()
        busy = job.busy_s.value + sum(now - place.since for place in job.pool.places() if place.chunk is not None)
        return Stats(
            pulled=pulled,
            running=job.pool.running(),
            waiting=waiting,
            delivered=taken - held - self.skipped,
            failed=self.failed,
            skipped=self.skipped,
            retried=int(job.retried.value),
            abandoned=job.abandoned,
            elapsed=elapsed,
            busy=min(1.0, busy / (elapsed * job.concurrency)) if elapsed else 0.0,
            blocked_on_head=clocks.on_head,
            blocked_on_source=clocks.on_source,
            blocked_on_consumer=clocks.on_consumer,
            total=self.total,
        )


def _gone(item: Any) -> NoReturn:
    """What is in the place of ``fn`` when a run is over."""
    raise RuntimeError("the run is over")
