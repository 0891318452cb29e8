"""The exit of the interpreter waits for calls that run, as the standard library does, but not for those given up."""

from __future__ import annotations

import atexit
import threading

from ._worker import Job

__all__ = ["CallThread", "at_exit"]


class CallThread(threading.Thread):
    """A thread in which calls of a run are made; the exit of the interpreter waits until it has `left`."""

    def __init__(self, job: Job, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.job = job
        self.given_up = False
        self.left = threading.Lock()
        self.left.acquire()


def at_exit() -> None:
    """Let running calls end, as the standard library does, but not those that were given up."""
    me = threading.current_thread()  # in a process forked by a place, this is that place, whose run is the parent's
    places = [
        each for each in threading.enumerate() if isinstance(each, CallThread) and not each.given_up and each is not me
    ]
    for place in places:
        place.job.stop()
    for place in places:
        with place.left:
            pass


atexit.register(at_exit)
