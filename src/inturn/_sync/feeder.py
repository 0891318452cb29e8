"""With ``live``: the thread that pulls the source."""

from __future__ import annotations

from collections import deque
from functools import partial
from queue import SimpleQueue

from inturn._base.gil import fence
from inturn._core.job import Job
from inturn._core.run_thread import RunThread, start
from inturn._core.source import Source
from inturn._engine.window import Window

__all__ = ["Feeder"]


class Feeder:
    """With ``live``: a thread that pulls within the window, so that the consumer never waits for the source.

    ======== ======================================= =====================
    state    how it is told                          left by
    ======== ======================================= =====================
    pulling  ``pulling``                             the source's answer
    resting  ``_resting`` holds its token            `room`, `stop`
    ======== ======================================= =====================
    """

    def __init__(self, source: Source, window: Window, job: Job) -> None:
        self._source = source
        self._window = window
        self._job = job
        self._resting: deque[None] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self.pulling = False
        self._thread = RunThread(job, "inturn-feeder", partial(job.context.copy().run, self._feed))

    def start(self) -> None:
        try:
            self._thread.announce()
            start(self._thread)
        except BaseException:
            self._thread.annul()
            raise

    def stop(self) -> None:
        """The run is over; from anywhere, and whatever an interrupt has left undone in `room`."""
        self._bell.put(None)

    def room(self) -> None:
        """The consumer has taken something."""
        fence()
        if self._resting:
            try:
                self._resting.pop()
            except IndexError:
                return
            self._bell.put(None)

    def _feed(self) -> None:
        window, job = self._window, self._job
        try:
            while not window.exhausted:
                while window.room() < 1 and not job.stopped:
                    self._resting.append(None)
                    if window.room() < 1 and not job.stopped:
                        self._bell.get()
                    else:
                        self._resting.clear()
                self.pulling = True
                if not job.may_start() or window.halt < window.pulled:
                    return
                self._source.pull(0.0)
                self.pulling = False
            job.notify()
        except BaseException as error:  # it ends the run in the consumer's thread
            job.crash(error)
        finally:
            self.pulling = False

    def join(self) -> None:
        """Wait for the thread unless it is inside a pull (after the job was stopped)."""
        inside = self.pulling and not self._window.exhausted
        if not inside and self._thread.is_alive():
            self._thread.join()
