"""The threads of a run: how one is started, who may wait for them, and what the exit of the interpreter waits for.

======== ==================================== ========================================================
thread   how it is told                       left by
======== ==================================== ========================================================
unborn   neither ``over`` nor alive           the operating system, which runs it; a start that fails
alive    ``is_alive()``                       its end
gone     ``over``, and not alive
======== ==================================== ========================================================

A run may be closed at any point of any thread, by a signal handler and by the garbage collector. So whoever waits asks
`may_wait` first.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Final

from ._outcome import from_handler
from ._worker import Job, inside

__all__ = ["NO_THREAD", "CallThread", "RunThread", "at_exit", "may_wait", "start"]

NO_THREAD: Final = (RuntimeError, MemoryError)
"""What starting a thread that can't be had raises; these very classes, since a signal handler may raise any other."""

_threads: set[weakref.ref[RunThread]] = set()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.clear)  # they are the parent's


class RunThread(threading.Thread):
    """A thread that works for a run."""

    def __init__(self, job: Job, name: str, work: Callable[[], object] | None = None) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.job = job
        self.starter = threading.get_ident()
        self.over = False
        _threads.add(weakref.ref(self, _threads.discard))

    def run(self) -> None:
        try:
            self.work()
        finally:
            self.over = True

    def work(self) -> None:
        super().run()


class CallThread(RunThread):
    """A thread in which calls of a run are made; the exit of the interpreter waits until it has `left`."""

    def __init__(self, job: Job, name: str) -> None:
        super().__init__(job, name)
        self.given_up = False
        self.left = threading.Lock()
        self.left.acquire()


def start(thread: RunThread) -> None:
    """Start a thread; what a signal handler raises in the midst of it is raised as it is.

    ``Thread.start`` waits in a ``Condition``, which answers an interrupt at the wrong moment with an error of its own,
    a ``RuntimeError`` at that: the interrupt would be taken for a lack of threads.
    """
    before = sys.exception()
    interrupt: BaseException | None = None
    try:
        thread.start()
    except BaseException as error:
        thread.over = True
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


def may_wait() -> bool:
    """Whether this thread may wait for the threads of a run.

    Not in the midst of starting one, where it may hold what they need; not in one of them outside its calls, which
    could be the one that is waited for; and not once the interpreter is being finalized, when daemons stand still.
    """
    if sys.is_finalizing():
        return False
    me = threading.get_ident()
    for each in [reference() for reference in _threads.copy()]:
        if each is None or (each.over and not each.is_alive()):
            continue
        if each.ident == me and not inside(each.job):
            return False
        if each.starter == me and not each.is_alive():
            return False
    return True


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
