"""The threads of a run: how one is started, who may wait for them, and what the exit of the interpreter waits for.

======== ========================================= =========================================================
thread   how it is told                            left by
======== ========================================= =========================================================
unborn   its birth token is there                  its first step, which takes the token; `annul`, which does
at work  neither that nor ``over``                 its last step
gone     ``over``, and not alive
======== ========================================= =========================================================

A run may be closed at any point of any thread, by a signal handler and by the garbage collector. So whoever waits asks
`may_wait` first.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from inturn._engine.chunk import Chunk
from inturn._model.outcome import from_handler

from .job import Job, inside

__all__ = ["NO_THREAD", "CallThread", "RunThread", "at_exit", "may_wait", "start", "watch"]

NO_THREAD: Final = (RuntimeError, MemoryError)
"""What starting a thread that can't be had raises; these very classes, since a signal handler may raise any other."""


class Bar(Protocol):
    """What may keep a thread from waiting."""

    def bars(self, me: int, job: Job) -> bool | None:
        """Whether the thread `me` must not wait for the job's threads; None if that is over for good."""


_bars: set[weakref.ref[Bar]] = set()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_bars.clear)  # they are the parent's


def watch(bar: Bar) -> None:
    """Ask it from now on."""
    _bars.add(weakref.ref(bar, _bars.discard))


def may_wait(job: Job) -> bool:
    """Whether this thread may wait for the threads of the job; it is in no call of it.

    Not in the midst of starting a thread or of a `submit`, where it may hold what they need; not in one of them outside
    its calls, which could be the one that is waited for; and not once the interpreter is being finalized, when daemons
    stand still.
    """
    if sys.is_finalizing():
        return False
    me = threading.get_ident()
    for reference in _bars.copy():
        bar = reference()
        if bar is not None:
            bars = bar.bars(me, job)
            if bars:
                return False
            if bars is None:
                _bars.discard(reference)
    return True


class RunThread(threading.Thread):
    """A thread that works for a run."""

    def __init__(self, job: Job, name: str, work: Callable[[], object] | None = None) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.job = job
        self.chunk: Chunk | None = None  # what it runs
        self.starter: int | None = None  # the identifier of the thread that is about to start it, or has
        self.over = False
        self._birth = deque([None])
        watch(self)

    def run(self) -> None:
        try:
            self._birth.pop()
        except IndexError:
            return
        try:
            self.work()
        finally:
            self.over = True

    def work(self) -> None:
        super().run()

    def announce(self) -> None:
        """This thread is about to start it, and must not wait for others until it is up."""
        self.starter = threading.get_ident()

    def annul(self) -> bool:
        """Its start has failed: it will never work; False if it does already."""
        try:
            self._birth.pop()
        except IndexError:
            return False
        self.over = True
        return True

    def bars(self, me: int, job: Job) -> bool | None:
        if self.over and not self.is_alive():  # not asked of one at work: interrupted, it takes that for stopped
            return None
        if self.ident == me:
            return job is self.job or not (self.chunk is not None or inside(self.job))
        return self.starter == me and bool(self._birth)


class CallThread(RunThread):
    """A thread in which calls of a run are made; the exit of the interpreter waits until it has `left`."""

    def __init__(self, job: Job, name: str) -> None:
        super().__init__(job, name)
        self.given_up = False
        self.left = threading.Lock()
        self.left.acquire()


def start(thread: threading.Thread) -> None:
    """Start a thread; what a signal handler raises in the midst of it is raised as it is.

    ``Thread.start`` waits in a ``Condition``, which answers an interrupt at the wrong moment with an error of its own,
    a ``RuntimeError`` at that: the interrupt would be taken for a lack of threads.
    """
    before = sys.exception()
    interrupt: BaseException | None = None
    try:
        thread.start()
    except BaseException as error:
        interrupt = error.__context__
        while not (interrupt is None or interrupt is before or _from_outside(interrupt)):
            interrupt = interrupt.__context__
        if interrupt is None or interrupt is before:
            raise
    if interrupt is not None:
        try:
            raise interrupt
        finally:
            del interrupt


def _from_outside(error: BaseException) -> bool:
    return type(error) is KeyboardInterrupt or from_handler(error)


def at_exit() -> None:
    """Let running calls end, as the standard library does, but not those that were given up."""
    me = threading.current_thread()  # in a process forked by a place, this is that place, whose run is the parent's
    places = [
        each for each in threading.enumerate() if isinstance(each, CallThread) and not each.given_up and each is not me
    ]
    for place in places:
        place.job.crash(RuntimeError("the interpreter is shutting down"))  # for a daemon thread that goes on consuming
        place.job.stop()
    for place in places:
        with place.left:
            pass


atexit.register(at_exit)
