"""With ``live``: the thread that pulls the source."""

from __future__ import annotations

import threading
from typing import Final

from inturn._base.atomic import fence
from inturn._base.events import ThreadEvent
from inturn._core.job import Job
from inturn._core.source import Source
from inturn._core.threads import DAEMON, must_not_wait

__all__ = ["Feeder"]

_SHARE: Final = 32  # a feeder that sleeps is woken when such a part of the window is free


class Feeder:
    """A thread that pulls within the window, so that the consumer never waits for the source.

    ======== ============================================== ==========================================
    state    how it is told                                 left by
    ======== ============================================== ==========================================
    pulling  ``pulling``                                    the source's answer
    sleeping ``_sleeping``: the window is full               `room`, `stop`
    gone     it is not alive                                (the source is at its end, or the run)
    ======== ============================================== ==========================================
    """

    def __init__(self, source: Source, job: Job) -> None:
        self._source: Source | None = source
        self._job = job
        self._event = ThreadEvent()
        self._sleeping = False
        self.pulling = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread (supervisor only)."""
        thread = threading.Thread(target=self._run, name=self._job.label("feeder"), daemon=DAEMON)
        thread.start()
        self._thread = thread

    def stop(self) -> None:
        """The run is over; from anywhere."""
        if self._thread is None:  # nobody pulls
            self._source = None
        self._event.set()

    def room(self) -> None:
        """The consumer has taken something."""
        fence()  # there is room before we ask whether anybody rests
        if self._sleeping:
            window = self._job.window
            if window.room() * _SHARE >= window.limit or not window.held:
                self._event.set()

    def bars(self, job: Job) -> bool:
        return job is self._job or not self.pulling

    @must_not_wait
    def _run(self) -> None:
        job = self._job
        try:
            job.context.copy().run(self._feed)
        except BaseException as error:  # it ends the run in the consumer's thread
            job.crash(error)
        finally:
            self.pulling = False
            self._source = None

    def _feed(self) -> None:
        job, window = self._job, self._job.window
        while not window.exhausted:
            while window.room() < 1 and not job.stopped:
                self._sleeping = True
                fence()
                if window.room() < 1 and not job.stopped:  # asked after we have said that we rest
                    self._event.wait()
                self._sleeping = False
            if not self._pull():
                return
        job.notify()

    def _pull(self) -> bool:
        """Pull once; False if nothing is to be pulled any more."""
        job, source = self._job, self._source
        self.pulling = True
        if source is None or not job.may_start() or job.window.last_index < job.window.pulled:
            return False
        begun = job.clock()
        source.pull(0.0)
        job.pulling_s += job.clock() - begun
        self.pulling = False
        return True

    def step(self) -> bool:
        """Pull once in this thread, if there is room: where a run has no threads."""
        return not self._job.window.exhausted and self._job.window.room() > 0 and self._pull()

    def join(self, *, stuck: bool) -> None:
        """After the job was stopped: wait for the thread, unless it is inside a pull that may be `stuck`."""
        inside = stuck and self.pulling and not self._job.window.exhausted
        if not inside and self._thread is not None:
            self._thread.join()
