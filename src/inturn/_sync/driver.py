"""The synchronous driver: `OrderedMap`, the object that `ordered_map` returns.

The consumer's thread owns the engine for the length of one ``next``: it pulls, decides and delivers. It waits in one
place only, `_wait`. Who is the consumer is settled by the token in `_consumer`, an atomic dictionary operation and no
lock, so that an interrupt at any point leaves nothing locked.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterator
from time import perf_counter as clock
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, TypeVar

from inturn._core.consumer import AGAIN, LEFT_OUT, Raised, Run
from inturn._core.job import inside
from inturn._core.run_thread import may_wait
from inturn._core.source import HANDFUL_S, Source
from inturn._engine.window import NEVER, Now
from inturn._model.stats import Stats

from .feeder import Feeder

__all__ = ["OrderedMap"]

R_co = TypeVar("R_co", covariant=True)

_END: Final = object()


_forks = 0  # how many forks lie between the first process and this one


def _forked() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


_nothing_held: Final[Callable[[], Any]] = [].pop


class OrderedMap(Iterator[R_co], Generic[R_co]):
    """An iterator over results in input order; also a context manager. Made by `ordered_map`.

    Attributes:
        indexed: Whether it delivers ``(index, result)``.
    """

    __slots__ = (
        "__weakref__",
        "_bulk",
        "_consumer",
        "_feeder",
        "_forks",
        "_live",
        "_name",
        "_over",
        "_owed",
        "_pop",
        "_run",
        "_source",
        "indexed",
    )

    def __init__(self, run: Run, source: Source, *, live: bool, indexed: bool, name: str) -> None:
        self._run = run
        self._source: Source | None = source
        self._live = live
        self._feeder: Feeder | None = None
        self._bulk = not live and not run.shows_progress
        self._pop: Callable[[], Any] = _nothing_held
        self._consumer: dict[None, object] = {}
        self._forks = _forks
        self._over = False
        self._owed = False  # `close` could not wait where it was called
        self._name = name
        self.indexed = indexed

    def __iter__(self) -> OrderedMap[R_co]:
        return self

    def __next__(self) -> R_co:
        if self._forks == _forks:
            try:
                return self._pop()  # type: ignore[no-any-return]
            except BaseException as error:
                if type(error) is not IndexError or (error.__traceback__ and error.__traceback__.tb_next):
                    self._leave()  # it is a signal handler's, and the result is lost
                    raise
        return self._next()  # type: ignore[no-any-return]

    def _next(self) -> Any:
        if self._forks != _forks:
            raise RuntimeError(f"this {self._name} belongs to the parent process: make a new one after the fork")
        me, mine, ended = object(), True, False
        outcome = error = None
        try:
            mine = self._consumer.setdefault(None, me) is me
            outcome = self._step() if mine else self._busy()
            if mine:
                ended = outcome is _END or type(outcome) is Raised
                if ended:
                    waited_for = self._over and not self._owed  # closed by somebody else, who waits for what runs
                    self._finish()
                    if outcome is _END and not waited_for:
                        self._join()
                self._consumer.pop(None)
                if self._over and not ended:  # closed meanwhile from elsewhere: what is held is not delivered
                    self._leave()
            if outcome is _END:
                raise StopIteration
            if type(outcome) is Raised:
                error = outcome.error
                raise error
            return outcome
        except BaseException:  # the run's own end, or from outside: a handler's error, or Ctrl-C
            held = self._consumer.get(None) is me
            if held or (mine and not ended):
                self._over = True
                if held:
                    self._consumer.pop(None)
                self._leave()
            raise
        finally:
            del outcome, error  # a traceback may keep this frame

    def _busy(self) -> Any:
        """What a second consumer is told."""
        if self._over:
            return _END  # it is being closed from elsewhere
        raise ValueError(f"{self._name} already executing: a run has one consumer at a time")

    # ---- the consumer ----------------------------------------------------------------------------

    def _begin(self) -> None:
        run, job = self._run, self._run.job
        run.clocks.started = job.begin(contextvars.copy_context(), run.deadline)
        run.begin()
        job.pool.open()
        if self._live:
            assert self._source is not None
            self._feeder = Feeder(self._source, run.window, job)
            self._feeder.start()

    def _step(self) -> Any:
        """The next result, `_END` or `Raised`."""
        run = self._run
        job, window = run.job, run.window
        if self._over:
            return _END
        run.held = []
        if run.clocks.started is None:
            self._begin()
        run.enter()
        until = clock() + HANDFUL_S
        waited = False
        while True:
            if job.crashed is not None:
                return Raised(job.crashed)
            if job.stopped:
                return _END
            now = window.now()
            if now is Now.DELIVER:
                if not waited and not self._live and window.room() > 0 and window.halt == NEVER:
                    self._pull(until)  # in exchange for what left at the last `next`
                outcome = self._deliver()
                if outcome is AGAIN or outcome is LEFT_OUT:
                    waited = False
                    continue
                run.tick()
                run.leave()
                try:
                    return outcome
                finally:
                    del outcome  # the frames of a source's error keep this one
            waited = True
            if now is Now.DONE:
                return _END
            left = run.remaining()
            if left is not None and left <= 0:
                return run.out_of_time()
            if now is Now.PULL and not self._live and not (job.pool.inline and window.taken < window.pulled):
                self._pull(until)
            else:
                self._wait(left)
            run.tick()

    def _pull(self, until: float) -> None:
        if not self._run.job.may_start():
            return
        assert self._source is not None
        begun = clock()
        self._source.pull(until)
        self._run.clocks.on_source += clock() - begun

    def _wait(self, seconds: float | None) -> None:
        """Until the head is complete, or anything else has happened."""
        run = self._run
        job, window, clocks = run.job, run.window, run.clocks
        job.sleeping.append(window.taken)
        try:
            if window.now() in (Now.DELIVER, Now.DONE) or job.stopped:
                return
            nothing = window.taken == window.pulled
            begun = clock()
            job.pool.wait(seconds)
            if nothing:
                clocks.on_source += clock() - begun
            else:
                clocks.on_head += clock() - begun
        finally:
            job.sleeping.clear()

    def _deliver(self) -> Any:
        """Take the head, and what is complete behind it in its chunk."""
        run = self._run
        outcome = run.deliver(bulk=self._bulk, indexed=self.indexed)
        if run.held:
            self._pop = run.held.pop
        if self._feeder is not None:
            self._feeder.room()
        return outcome

    def _finish(self) -> None:
        """The run is over; by the consumer, or by `close` if there is none now."""
        self._over = True
        self._pop = _nothing_held
        self._source = None
        job = self._run.job
        try:
            self._run.end()
        finally:
            if self._feeder is not None:
                self._feeder.stop()
            job.pool.retire()

    def _join(self) -> None:
        job = self._run.job
        if inside(job):
            return
        if not may_wait(job):
            self._owed = True
            return
        job.pool.join()
        job.warden.join()
        if self._feeder is not None:
            self._feeder.join()

    # ---- anyone ----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the run: what has not started never starts, and what runs is waited for.

        It may be called twice, from any thread, from a signal handler, or from ``fn`` itself (then it does not wait,
        nor where it lands within a ``submit`` or the start of a thread). A ``next`` that waits raises
        ``StopIteration``.
        """
        if self._forks != _forks:
            return  # the parent's workers are none of ours
        self._leave()
        self._join()

    def _leave(self) -> None:
        """What `close` does without waiting."""
        self._over = True
        self._pop = _nothing_held
        self._run.job.stop()
        me = object()
        if self._consumer.setdefault(None, me) is me:
            try:
                self._finish()
            finally:
                del self._consumer[None]
        if self._feeder is not None:
            self._feeder.stop()

    def __enter__(self) -> OrderedMap[R_co]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            run = self._run
            if not self._over and self._forks == _forks:
                run.job.dropped = True
                run.job.stop()
                run.window.clear()  # nobody is the consumer any more
                if self._feeder is not None:
                    self._feeder.stop()
        except AttributeError:  # it was never finished, or the interpreter is on its way out
            pass

    @property
    def stats(self) -> Stats:
        """A snapshot of the run; at any time, from any thread."""
        return self._run.stats()

    def __repr__(self) -> str:
        stats = self.stats
        return (
            f"<{self._name} of {self._run.name}: {stats.pulled} pulled, {stats.running} running, "
            f"{stats.waiting} waiting, {stats.delivered} delivered, {stats.failed} failed>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle a run ({self._name}): it holds threads and an iterator; send the items instead")
