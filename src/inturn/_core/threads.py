"""The threads of a run: where one may wait for them, and what the exit of the interpreter waits for.

CPython runs signal handlers in the main thread, between any two of its steps, and the garbage collector may close a run
in any thread. Whatever takes several steps therefore runs in a thread of the run (see `supervisor`): nothing interrupts
it there. What is left is one question, `may_wait`.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final, Protocol, TypeVar

from inturn._base.events import Latch

from .job import Job, inside
from .slot import Slot

__all__ = ["DAEMON", "NO_THREAD", "CallThread", "at_exit", "farewells", "kept_stores", "may_wait", "must_not_wait"]


def _daemons_allowed() -> bool:
    try:
        threading.Thread(daemon=True)
    except RuntimeError:
        return False
    return True


DAEMON: Final = _daemons_allowed()
"""Whether threads are daemon threads. A subinterpreter allows none, and ends when all its threads have ended."""

NO_THREAD: Final = (RuntimeError, MemoryError)
"""What starting a thread that cannot be had raises."""

farewells: Final[set[Latch]] = set()
"""Each is opened when a run that was dropped has shown its last progress; the exit of the interpreter waits for it."""


class Kept(Protocol):
    """A store of workers that outlive a run: see `_pools.store`."""

    def close(self, *, wait: bool) -> None: ...
    def join(self) -> None: ...


kept_stores: Final[set[Kept]] = set()
"""Those whose workers have not ended yet; the exit of the interpreter ends them."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=farewells.clear)  # those are the parent's
    os.register_at_fork(after_in_child=kept_stores.clear)

_steps: Final[set[CodeType]] = set()


class Bars(Protocol):
    """An object with methods that are marked by `must_not_wait`."""

    def bars(self, job: Job) -> bool:
        """Whether whoever is within such a method must not wait for the threads of the job."""
        ...


F = TypeVar("F", bound=Callable[..., Any])


def must_not_wait(method: F) -> F:
    """Mark a method of a `Bars`: code that is called within it asks `may_wait` before it waits."""
    _steps.add(method.__code__)
    return method


def may_wait(job: Job) -> bool:
    """Whether this thread may wait for the threads of the job, which is called from outside of its calls.

    Guarantee 16.

    A signal handler and the garbage collector may close a run anywhere: in a thread of a run between two of its calls,
    or in the midst of a ``submit`` that holds locks of its executor. What is waited for could then be waiting for this
    very thread. The stack tells where we are. And when the interpreter is being finalized, daemon threads stand still.
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

    It is a daemon thread, so that a call that was given up never blocks the exit of the interpreter; `at_exit` waits
    until the others have `left`.
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

    def bars(self, job: Job) -> bool:
        mine, slot = self.job, self._slot
        if mine is None or slot is None:  # a thread that is kept, between two runs
            return True
        return job is mine or not (slot.chunk is not None or inside(mine))


def at_exit() -> None:
    """Let running calls end, as the standard library does; a second Ctrl-C meanwhile ends the program at once.

    Guarantee 15.
    """
    me = threading.current_thread()  # in a process forked by a thread of a run, which is the parent's
    threads = [
        each for each in threading.enumerate() if isinstance(each, CallThread) and not each.given_up and each is not me
    ]
    for job in [thread.job for thread in threads]:
        if job is not None:
            job.crash(RuntimeError("the interpreter is shutting down"))  # for a daemon thread that goes on consuming
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
