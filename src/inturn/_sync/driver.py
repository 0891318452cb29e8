"""The synchronous driver: `OrderedMap`, the object that `ordered_map` returns.

The consumer's thread owns the engine for the length of one ``next``: it pulls, decides and
delivers, all in `Run.advance`, and waits only in `_step`. The token in `_consumer` tells who it is:
an atomic dictionary operation and no lock, so that an interrupt leaves nothing locked.

An exception that comes from outside (a signal handler's, Ctrl-C) may land between any two steps,
and ends the run. So the steps are such that none of them has to be undone: see `supervisor`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, ClassVar, Generic, Self, TypeVar

from inturn._base.signals import found_nothing
from inturn._core.consumer import BREATHE, CLOSED, DONE, Raised, Run, Wait, sooner
from inturn._core.job import End
from inturn._core.nesting import inside
from inturn._core.steps import no_end
from inturn._core.threads import may_wait
from inturn._model.handle import Handle

from .feeder import Feeder

__all__ = ["OrderedMap"]

R_co = TypeVar("R_co", covariant=True)


class Process:
    """Which process this is, told without asking the system each time."""

    forks = 0  # how many forks lie between the first process and this one

    @classmethod
    def forked(cls) -> None:
        cls.forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Process.forked)


class OrderedMap(Handle, Iterator[R_co], Generic[R_co]):
    """An iterator over results in input order; also a context manager. Made by `ordered_map`.

    Attributes:
        indexed: Whether it delivers ``(index, result)``.
    """

    __module__ = "inturn"
    __slots__ = ("__weakref__", "_consumer", "_feeder", "_forks", "_held")

    _nothing: ClassVar[Any] = []  # what `_held` is when nothing is held

    def __init__(self, run: Any, source: Any, *, live: bool, indexed: bool, name: str) -> None:
        self._run: Run = run
        self.indexed = run.indexed = indexed
        self._feeder = run.feeder = run.job.feeder = Feeder(source, run.job) if live else None
        run.source = None if live else source
        self._held = self._nothing  # taken from the window, and not yet delivered; the newest first
        self._consumer: dict[None, object] = {}
        self._forks = Process.forks
        self._name = name

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R_co:
        held = self._held
        if held and self._forks == Process.forks:
            try:
                return held.pop()  # type: ignore[no-any-return]
            except BaseException as error:
                if not found_nothing(error):  # it comes from outside, and the result is lost
                    self._leave_behind_lost(error)
                    raise
        return self._next()  # type: ignore[no-any-return]

    def _next(self) -> Any:
        """`next`, where nothing is held. Guarantee 23: there is one consumer at a time."""
        if self._forks != Process.forks:
            raise RuntimeError(f"this {self._name} belongs to the parent process: make a new one after the fork")
        me: object = "nobody"  # until it is made, within `try`
        step: Any = None
        over = True
        try:
            me, job = object(), self._run.job
            if self._consumer.setdefault(None, me) is me:
                step = self._step()
                over = step is DONE or step is CLOSED or type(step) is Raised
                if over:
                    self._finish()
                    if step is DONE:
                        self._join()
                self._consumer.pop(None)
                if not over and isinstance(job.end, End):  # closed meanwhile: what is held is not delivered
                    self._leave_chain()
            elif job.stopped:  # it is being closed from elsewhere
                step = CLOSED
            else:
                step = Raised(ValueError(f"{self._name} already executing: a run has one consumer at a time"))
        except BaseException as error:  # a signal handler's error, Ctrl-C, or an error of a function of the user's
            step = None  # the frames of the error's traceback keep this one
            if self._consumer.get(None) is me:
                self._held = self._nothing
                self._consumer.pop(None)
            self._leave_chain()
            if isinstance(error, StopIteration):
                raise no_end(error) from error
            raise
        try:
            # Nothing is called between the other `try` and here: a signal handler may raise behind any call, and the
            # result would be lost, though the run goes on (guarantee 16).
            if not over:
                return step
            if step is DONE or step is CLOSED:
                raise StopIteration
            raise step.error
        finally:
            del step  # a traceback may keep this frame

    # ---- the consumer ----------------------------------------------------------------------------

    def _step(self) -> Any:
        """The next result, or how the run has ended."""
        run = self._run
        if not run.begun and not run.job.stopped:
            run.begin()
        run.enter()
        while True:
            step = run.advance()
            if type(step) is Wait:
                begun = run.before_wait()
                try:
                    if begun is not None:
                        seconds = sooner(run.job.pool.work(block=True), step.seconds)
                        if seconds != 0.0:
                            run.job.wake.wait(seconds)  # type: ignore[attr-defined]
                finally:
                    run.after_wait(begun)
            elif step is not BREATHE:
                break
        if run.window.held:
            self._held = run.window.held
        try:
            return step
        finally:
            del step  # the frames of a source's error keep this one

    def _finish(self) -> None:
        """The run is over; by the consumer, or by `close` if there is none now."""
        self._held = self._nothing
        run = self._run
        try:
            run.end()
        finally:
            run.job.pool.retire()
            self._end_upstream()

    def _join(self) -> None:
        run = self._run
        job = run.job
        if not self._ours() or inside(job) or not may_wait(job):
            return
        for each in run.upstream:  # first: a feeder may be waiting in its `next`
            assert isinstance(each, OrderedMap)
            each._join()
        job.supervisor.join()  # before the pool: it starts threads
        job.pool.join()
        if self._feeder is not None:
            self._feeder.join(stuck=run.foreign or any(each._run.stuck() for each in run.upstream))

    def _end_upstream(self) -> None:
        """The runs that are its sources belong to it: they end with it (guarantee 37)."""
        for each in self._run.upstream:
            each._leave_chain()

    def _ours(self) -> bool:
        """Whether it belongs to this process, and can be ended: at its exit, the interpreter clears modules."""
        return Process is not None and self._forks == Process.forks  # pyright: ignore[reportUnnecessaryComparison]

    def _joins(self) -> list[Any]:
        return [self._join]

    def _drop_chain(self) -> None:
        run = self._run
        if self._ours() and not run.job.stopped:
            run.job.supervisor.drop()
            run.job.stop(End.DROPPED)
            me = object()
            if self._consumer.setdefault(None, me) is me:  # else a feeder of the next stage is in `next`
                run.forget()
                self._consumer.pop(None)
            for each in run.upstream:
                each._drop_chain()

    # ---- anyone ----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the run: what has not started never starts, and what runs is waited for.

        Guarantee 13. It may be called twice, from any thread, from a signal handler, or from ``fn``
        itself (then it does not wait, nor where it lands within a ``submit``). A ``next`` that waits
        raises ``StopIteration``.
        """
        self._leave_chain()
        self._join()

    def _leave_behind_lost(self, error: BaseException) -> None:
        """An exception from outside took a result away: nothing behind that is delivered (guarantee 16)."""
        self._held = self._nothing  # first, as another exception may land within the next step
        self._leave_chain()
        if isinstance(error, StopIteration):
            raise no_end(error) from error

    def _leave_chain(self) -> None:
        if not self._ours():  # the workers are the parent's
            return
        self._run.job.stop()
        self._held = self._nothing  # now: a `next` that found nothing held while the run goes on would skip it
        me = object()
        if self._consumer.setdefault(None, me) is me:
            try:
                self._finish()
            finally:
                self._consumer.pop(None)
        else:  # the consumer may be waiting in their `next`
            self._end_upstream()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """`close`; but a block that is left by Ctrl-C waits for nothing that cannot be ended, as calls in threads."""
        self._leave_chain()
        by_ctrl_c = kind is not None and issubclass(kind, KeyboardInterrupt)
        if not by_ctrl_c or all(each._run.job.pool.kills for each in self.stages):
            self._join()

    def __del__(self) -> None:
        try:
            self._drop_chain()
        except AttributeError:  # it was never finished, or the interpreter is on its way out
            pass
