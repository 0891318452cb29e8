"""The threads of a run: where one may wait for them, and what the interpreter's exit waits for.

Signal handlers run in the main thread, between any two of its steps, and the garbage collector may
close a run in any thread. So whatever takes several steps runs in a thread of the run
(`supervisor`).
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final, TypeVar

from inturn._base.events import Latch

from .job import Job
from .nesting import inside
from .slot import Slot

__all__ = ["DAEMON", "NO_THREAD", "CallThread", "at_exit", "farewells", "kept_stores", "may_wait", "must_not_wait"]

# A subinterpreter allows no daemon threads: its end waits for all threads.
DAEMON: Final[bool] = getattr(_thread, "daemon_threads_allowed", lambda: True)()
NO_THREAD: Final = (RuntimeError, MemoryError)  # what starting a thread that cannot be had raises

# The interpreter's exit waits for the last progress of runs that were dropped, and ends stores.
farewells: Final[set[Latch]] = set()
kept_stores: Final[set[Any]] = set()  # of workers that outlive a run: see `_pools.store`

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=farewells.clear)  # those are the parent's
    os.register_at_fork(after_in_child=kept_stores.clear)

_steps: Final[set[CodeType]] = set()

F = TypeVar("F", bound=Callable[..., Any])


def must_not_wait(method: F) -> F:
    """Mark a method: within it, ``self.bars(job)`` forbids to wait for the threads of the job."""
    _steps.add(method.__code__)
    return method


def may_wait(job: Job | None) -> bool:
    """Whether this thread, outside of the job's calls, may wait for its threads (guarantee 16); None: for idle ones.

    A signal handler, or the garbage collector, may close a run anywhere: in a run's thread between
    two calls, or in a ``submit`` that holds locks of its executor. What is waited for could wait
    for this very thread. The stack tells. While the interpreter is finalized, daemons stand still.
    """
    if sys.is_finalizing():
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code in _steps and frame.f_locals["self"].bars(job):
            return False
        frame = frame.f_back
    return True


class CallThread(threading.Thread):
    """A thread in which calls of a run are made, at a slot.

    It is a daemon, so that a call that was given up never blocks the interpreter's exit; `at_exit`
    waits until the others have `left`.
    """

    def __init__(self, job: Job, slot: Slot, name: str, work: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=DAEMON)
        self.job: Job | None = job
        self.given_up = False
        self.left = Latch()
        self._slot: Slot | None = slot
        self._work = work

    @must_not_wait
    def run(self) -> None:
        self._work()

    def bars(self, job: Job | None) -> bool:
        mine, slot = self.job, self._slot
        if mine is None or slot is None:  # a thread that is kept, between two runs
            return True
        return job is mine or not ((slot.calls_here and slot.chunk is not None) or inside(mine))


def at_exit() -> None:
    """Let running calls end, as the standard library does (guarantee 15).

    A second Ctrl-C meanwhile ends the program at once.
    """
    me = threading.current_thread()  # in a process forked by a thread of a run, which is the parent's
    threads = [each for each in threading.enumerate() if isinstance(each, CallThread)]
    threads = [each for each in threads if not each.given_up and each is not me]
    for job in {thread.job for thread in threads}:
        if job is not None:
            job.crash(RuntimeError("the interpreter is shutting down"))  # for a daemon consumer
            job.stop()
    stores = list(kept_stores)
    for store in stores:
        store.close(wait=False)
    try:
        for thread in threads:
            thread.left.wait()
        for store in stores:
            store.join()
        for farewell in farewells.copy():
            farewell.wait()
    except KeyboardInterrupt:
        pass


if DAEMON:
    atexit.register(at_exit)
else:  # it waits for its threads before it calls what `atexit` knows
    threading._register_atexit(at_exit)  # type: ignore[attr-defined]
