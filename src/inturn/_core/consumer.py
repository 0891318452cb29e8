"""The consumer's side of a run, for both drivers: the one decide loop, the policy, and the books.

A `Run` belongs to its consumer. `advance` decides what happens next and never waits; the drivers
wait, as long as it says, and call it again. What it returns:

========= ========================================== =====================================
answer    what it means                              what the driver does
========= ========================================== =====================================
a value   it takes the head's place                  returns it from ``next``
`Raised`  an error in its turn, or one that has none ends the run, raises it
`Wait`    the head is not complete                   waits so long at most, then asks again
`BREATHE` the source was slow                        may let others have a turn
`DONE`    everything is delivered                    ends the run, waits for it
`CLOSED`  the run was closed from elsewhere          ends the run
========= ========================================== =====================================
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from inturn._base import checks
from inturn._base.atomic import pop_or
from inturn._base.clock import clock
from inturn._engine.window import NEVER, Now, Window
from inturn._model.handle import Handle
from inturn._model.outcome import Err, Kind, failure_among, failure_of
from inturn._model.policy import ABORT, RAISE, SKIP, Policy, Retry, ask, decision_of, discards_errors, in_turn, resolve
from inturn._model.progress import Progress, progress_of
from inturn._model.stats import Stats

from .clocks import Clocks
from .job import End, Job
from .nesting import enclosing
from .slot import Star
from .source import HANDFUL_S, Source
from .steps import AGAIN, BREATHE, CLOSED, DONE, LEFT_OUT, Raised, Wait, Watched, raised_for, sooner
from .supervisor import Supervisor

if TYPE_CHECKING:
    from inturn._model.limit import Limiter

__all__ = ["AGAIN", "BREATHE", "CLOSED", "DONE", "LEFT_OUT", "Raised", "Run", "Wait", "sooner"]

_LOOKS: Final = 8  # after which a snapshot of a consumer that never rests is as good as it gets


class Run:
    """The consumer's side of a run: its window, its policy and its books."""

    _job_class: type[Job] = Job

    def __init__(
        self,
        fn: Callable[..., Any],
        *,
        spread: bool,
        concurrency: int,
        window: int | None,
        chunksize: int | None,
        batch: bool,
        ahead: int = 2,  # so many items for each worker are in a window that nobody has set
        on_error: object,
        timeout: float | None,
        deadline: float | None,
        limit: Limiter | None,
        progress: object,
        total: int | None,
        stage: str | None = None,
        pass_failures: bool = False,
        trace: bool = False,
        make_window: Callable[..., Window] = Window,
    ) -> None:
        given = resolve("on_error", on_error)
        self.policy: Policy = in_turn(given)
        batch = batch and timeout is None and limit is None
        self.window = make_window(concurrency, window, chunksize, batch=batch, ahead=ahead)
        if pass_failures:
            self.window.passing = failure_among if spread else failure_of
        call, decide = Star(fn) if spread else fn, decision_of(given)
        self.job = self._job_class(call, self.window, decide, timeout, concurrency, stage)
        self.job.fail_fast = self.one_by_one = self.policy is ABORT  # a failure comes before what is held ahead
        if limit is not None:
            from .throttle import Throttle  # here, so that `import inturn` stays light

            self.job.throttle = Throttle(limit)
        self.job.supervisor = Supervisor(self.job)
        if trace:
            from inturn._model.recorder import Recorder  # here, so that `import inturn` stays light

            self.job.trace = Recorder()
        self.source: Source | None = None  # what `advance` pulls, unless somebody else does
        self.feeder: Any = None  # who pulls instead, and is told by `room` when something was taken
        self.indexed = False
        self.until = 0.0  # when further pulls of this ``next`` are over
        self._exchanged = False  # whether this ``next`` has pulled, or waited, since it last delivered or left out
        self.deadline = deadline
        self._took_longer = ""  # what to say when the deadline, or that of a later stage, is over
        self.upstream: tuple[Handle, ...] = ()  # the runs that are its sources: see `chain`
        self.foreign = True  # whether other sources are among them
        self.pulling = False  # whether one of those is being pulled
        self.total = total
        self.clocks = Clocks(self.job)
        self.skipped = 0
        self.failed = 0
        self.name = checks.name_of(fn)
        self._progress = progress
        self.progress: Progress | None = None

    def chain(self, sources: tuple[Any, ...]) -> None:
        """Those of the sources that are runs are the stages before this one."""
        self.upstream = tuple(each for each in sources if issubclass(type(each), Handle))
        self.foreign = len(self.upstream) < len(sources)

    # ---- the decide loop -------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        return self.clocks.started is not None

    def begin(self) -> None:
        """The first ``next``: the consumer's context is what calls will see (guarantee 2)."""
        self.job.context = context = contextvars.copy_context()
        context.run(enclosing.set, (*enclosing.get(), self.job))
        started = self.clocks.begin()
        if self.deadline is not None:
            self.hurry(self.deadline, f"the run took longer than deadline={self.deadline:g} s")
        if self.job.trace is not None:
            self.job.trace.zero = started
        self.progress = progress_of(self._progress, self.total, self.job.stage)
        if self.progress is not None:
            self.job.farewell = self._farewell
        self.job.pool.open()
        if self.job.feeder is not None:
            self.job.supervisor.start()

    def hurry(self, left: float, took_longer: str) -> None:
        """This run or a later one has so many seconds left; so have earlier ones (guarantee 37)."""
        job = self.job
        at = job.clock() + left  # stages may have different clocks
        if job.deadline_at is None or at < job.deadline_at:
            job.deadline_at = at
            self._took_longer = took_longer
            for each in self.upstream:  # this one may be waiting in their ``next``
                each._run.hurry(left, took_longer)

    @property
    def straight(self) -> bool:
        """Whether the origin of each result is its index so far: see `origins`."""
        return self.window.straight

    def origin(self) -> int:
        """The origin of what was delivered last: see `origins`; consumer only."""
        return self.job.origin_of(self.last_delivered())

    def last_delivered(self) -> int:
        return self.window.last_delivered()

    def left(self) -> int | None:
        """How many results are still to come, as far as the sources tell."""
        if self.job.end is not None:
            return 0
        left = None if self.total is None else self.total - self.last_delivered() - 1
        return None if left is None or left < 0 else left

    def stuck(self) -> bool:
        """Whether it, or an earlier stage, waits for a source that nobody can end."""
        return self.pulling or any(each._run.stuck() for each in self.upstream)

    def enter(self) -> None:
        """The consumer is back, in another ``next``."""
        job, clocks = self.job, self.clocks
        now = job.clock()
        if clocks.left:
            clocks.body += now - clocks.left
            if job.last_end and not self.window.available() and not job.pool.running():
                clocks.on_consumer += max(0.0, now - max(clocks.left, job.last_end))
            clocks.left = 0.0
        self.until = now + HANDFUL_S
        self._exchanged = False

    def advance(self) -> Any:
        """Deliver the head if it is complete; else pull, or say how long to wait (guarantee 18)."""
        job, window = self.job, self.window
        while True:
            if job.end is not None:
                return self._ended()
            if window.held:  # others had their turn since `next` looked
                if (held := pop_or(AGAIN, window.held.pop)) is not AGAIN:
                    self.clocks.left = job.clock()
                    return held
                continue
            now = window.now()
            if now is Now.DELIVER:
                if not self._exchanged and self.source is not None and window.room() > 0 and window.last_index == NEVER:
                    self._pull(self.source)  # in exchange for what left at the last `next`
                index = window.taken
                outcome = self.deliver()
                if job.watcher is not None:
                    job.watcher.delivered(index, outcome)
                if outcome is AGAIN or outcome is LEFT_OUT:
                    if self.feeder is not None:
                        self.feeder.room()
                    self._exchanged = False
                    continue
                self.handed_over()
                self.clocks.left = job.clock()
                try:
                    return outcome
                finally:
                    del outcome  # the frames of a source's error keep this one
            self._exchanged = True
            if now is Now.DONE:
                return DONE
            at = job.deadline_at
            left = None if at is None else at - job.clock()
            if left is not None and left <= 0:
                return Raised(TimeoutError(self._took_longer))
            if now is Now.WAIT or self.source is None or (not job.pool.ahead and window.taken < window.pulled):
                return Wait(left)
            self._pull(self.source)
            self.tick()
            if job.clock() >= self.until:
                return BREATHE

    def _ended(self) -> Any:
        """`CLOSED`, or the error that has no turn: once, and nothing refers to it afterwards."""
        end = self.job.end
        if not isinstance(end, BaseException):
            return CLOSED
        self.job.end = End.CLOSED
        return Raised(end)

    def _pull(self, source: Source) -> None:
        if self.job.may_start():
            begun = self.job.clock()
            self.pulling = self.foreign
            source.pull(self.until)
            self.pulling = False
            self.clocks.pulled(begun)

    def before_wait(self) -> float | None:
        """Say which item the consumer sleeps for; None if it need not. `after_wait` follows in any case."""
        job, window = self.job, self.window
        job.sleeping.append(window.taken)
        ready = window.now() in (Now.DELIVER, Now.DONE) or job.end is not None  # asked after we have said so
        return None if ready else self.clocks.wait()

    def after_wait(self, begun: float | None) -> None:
        self.job.sleeping.clear()
        if begun is not None:
            self.clocks.waited(begun)
            self.tick()

    # ---- what is delivered -----------------------------------------------------------------------

    def deliver(self) -> Any:
        """What takes the complete head's place: a value, `LEFT_OUT`, `AGAIN`, or `Raised`.

        What is complete behind it in its chunk is taken too, into `Window.held`.
        """
        window, indexed = self.window, self.indexed
        index = window.taken
        results = window.take_results() if self.job.watcher is None and not self.one_by_one else None
        if results is not None:
            window.resize(results[-1])
            if not index and (instead := checks.async_result(results[-1])):
                return self._refuse(results, instead)
            if indexed:
                results = list(zip(range(index + len(results) - 1, index - 1, -1), results, strict=True))
            result = results.pop()
            window.held = Watched(results, self.handed_over) if self._watched() else results
            return result
        outcome = window.peek()
        if type(outcome) is Err:
            return self.settle(outcome)
        window.drop()
        if not index and (instead := checks.async_result(outcome)):
            return self._refuse([outcome], instead)
        return (index, outcome) if indexed else outcome

    def _refuse(self, results: list[Any], instead: str) -> Raised:
        """The first result shows that ``fn``, behind a plain decorator, is async."""
        for each in results:
            if checks.async_result(each) == "ordered_amap":
                each.close()  # else Python warns that it was never awaited
        kind = type(results[-1]).__name__
        return Raised(TypeError(f"fn returned a {kind}: it is async, so use {instead} without executor="))

    def settle(self, err: Err) -> Any:
        """The value that takes the head's place, `LEFT_OUT`, `AGAIN`, or `Raised` (guarantee 9)."""
        window, index = self.window, self.window.taken
        if err.kind is Kind.SOURCE and self.source is not None:
            return Raised(self.source.errors.pop())
        if err.kind is Kind.FATAL or err.kind is Kind.SOURCE:
            return Raised(err.error)
        if err.kind is Kind.PASSING or not discards_errors(self.policy):
            self.job.note(index, err)
        if err.kind is Kind.PASSING or self.policy is RAISE or self.policy is ABORT:
            self.failed += 1
            return Raised(err.error)
        failure = self.job.failure(index, err)
        try:
            value = ask(self.policy, failure)
        except BaseException as error:  # it ends the run
            self.failed += 1
            try:
                return Raised(raised_for(error, err))
            finally:
                del failure, err  # its traceback's frames keep this one
        if isinstance(value, Retry) and self._again(err, value.after):
            return AGAIN
        self.failed += 1
        if isinstance(value, Retry):
            return Raised(err.error)
        self._replace_head()
        if value is SKIP:
            self.skipped += 1
            window.straight = False
            return LEFT_OUT
        return (index, value) if self.indexed else value

    def _replace_head(self) -> None:
        """The policy has put something else in its place."""
        self.window.drop()

    def _again(self, err: Err, after: float) -> bool:
        """The head runs again; False if it can't."""
        self.job.retry(self.window.run_again(err.item, err.attempt + 1), after)
        return True

    # ---- the books -------------------------------------------------------------------------------

    def _watched(self) -> bool:
        """Whether somebody is told of each result that is delivered."""
        return self.feeder is not None or self.progress is not None or self.job.trace is not None

    def handed_over(self) -> None:
        """One result is delivered: tell those who want to know."""
        if self.feeder is not None:
            self.feeder.room()
        if self.job.trace is not None:
            self.job.trace.deliveries.note((self.last_delivered(), self.job.clock()))
        self.tick()

    def tick(self) -> None:
        progress = self.progress
        if progress is not None and clock() >= progress.due:
            progress.tick(self.stats)

    def end(self) -> None:
        """Stop everything; what is held is let go. Only by whoever is the consumer now."""
        self.clocks.end()
        self.job.stop()
        self.job.end = End.CLOSED  # whatever it was, it is known now: no error is kept
        self.job.fn = _gone
        progress, self.progress = self.progress, None
        last = [] if progress is None else [self.stats()]  # before what is held is let go
        self.forget()
        self.source = None
        if progress is not None:
            progress.end(last.pop)

    def forget(self) -> None:
        """Let go of what is held, if there is no consumer any more."""
        self.window.clear()

    def _farewell(self) -> None:
        """Show the last progress; where the run was dropped, in a thread of its own."""
        progress, self.progress = self.progress, None
        if progress is not None:
            progress.end(self.stats)

    def stats(self) -> Stats:
        window, job, clocks = self.window, self.job, self.clocks
        held = pulled = taken = waiting = 0
        for _ in range(_LOOKS):  # the consumer may go on between two counts
            held, pulled = len(window.held), window.pulled
            taken = min(window.taken, pulled)
            waiting = min(window.waiting(), pulled - taken) + held
            if held == len(window.held) and taken == window.taken:
                break
        now = job.clock()
        elapsed = 0.0 if clocks.started is None else (clocks.ended or now) - clocks.started
        above = self.upstream[0].stats if self.upstream else None
        return Stats(
            pulled=pulled,
            running=job.pool.running(),
            waiting=waiting,
            delivered=max(0, taken - held - self.skipped),  # `held` is written before `taken`
            failed=self.failed + (job.aborted.taken() and job.stopped),  # taken first, and then it ends the run
            skipped=self.skipped,
            retried=int(job.retried.value),
            abandoned=job.abandoned,
            elapsed=elapsed,
            busy=min(1.0, clocks.busy(now) / (elapsed * job.concurrency)) if elapsed else 0.0,
            blocked_on_head=clocks.on_head,
            blocked_on_source=clocks.on_source,
            blocked_on_consumer=clocks.on_consumer,
            throttled=0.0 if job.throttle is None else job.throttle.waited_s(job.clock),
            total=self.total,
            measured=clocks.measured(job.stage or self.name, ahead=self.feeder is not None, above=above),
        )


def _gone(item: Any) -> NoReturn:
    """What is in the place of ``fn`` when a run is over."""
    raise RuntimeError("the run is over")
