"""A synchronous run as a source of an asynchronous one: a thread pulls it, so that the loop goes on.

It is one thread from the first item to the last, so that sources that belong to a thread work. It
pulls by the handful, as `Source` does, and never more than there is room in the window. What it has
pulled waits here until the feeder has taken it.

======== ============================== ==================================================
thread   condition                      left by
======== ============================== ==================================================
absent   ``_thread`` is None            the first ``anext``
asleep   it waits for ``_asked``        `anext` (another handful); `stop`
pulling  ``pulling``                    the end of the handful
gone     it is not alive                (the source has ended or failed, or the run is over)
======== ============================== ==================================================
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from inturn._base.clock import clock
from inturn._base.events import ThreadEvent
from inturn._core.job import Job
from inturn._core.source import HANDFUL_S
from inturn._core.threads import DAEMON
from inturn._model.handle import Handle
from inturn._model.outcome import without_our_frames

from .events import LoopEvent

__all__ = ["PulledInThread"]


class PulledInThread:
    """An async iterator over a synchronous run."""

    _answered: LoopEvent  # since the first ``anext``

    def __init__(self, source: Handle, job: Job) -> None:
        self.run: Any = source
        self._job = job
        self._pulled: deque[tuple[Any, BaseException | None, int]] = deque()  # item, or error, and origin
        self._origin = 0
        self._room = 0
        self._asked = ThreadEvent()
        self._thread: threading.Thread | None = None
        self.pulling = False

    def __aiter__(self) -> PulledInThread:
        return self

    async def __anext__(self) -> Any:
        """The next item. If nothing is pulled and the thread rests, it pulls a handful (guarantee 3)."""
        job = self._job
        if self._thread is None:
            self._answered = LoopEvent()
            work, name = (self._work,), job.label("feeder")
            thread = threading.Thread(target=job.context.copy().run, args=work, name=name, daemon=DAEMON)
            thread.start()
            self._thread = thread
        while True:
            rests = not self.pulling  # asked first: it is written after the last item
            if self._pulled:
                break
            if rests:
                self._room = max(1, job.window.room())
                self.pulling = True
                self._asked.set()
            await self._answered.wait(None)
        item, error, self._origin = self._pulled.popleft()
        if error is None:
            return item
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    @property
    def straight(self) -> bool:
        """Whether origins are indices (see `origins`): if not, then for good."""
        return bool(self.run._run.straight)

    def origin(self) -> int:
        """The origin of the item that was handed over last."""
        return self._origin

    def _work(self) -> None:
        while True:
            self._asked.wait()
            try:
                if self._job.stopped or not self._pull_handful():
                    return
            finally:
                self.pulling = False
                self._answered.set()

    def _pull_handful(self) -> bool:
        """Pull at least one item; False at the end of the source."""
        until, pulled = clock() + HANDFUL_S, self._pulled
        for _ in range(self._room):
            try:
                item = next(self.run)
            except BaseException as error:  # it is raised by `anext`
                without_our_frames(error)
                ended = isinstance(error, StopIteration)
                pulled.append((None, StopAsyncIteration() if ended else error, 0))
                return False
            pulled.append((item, None, self.run._run.origin()))
            if self._job.stopped or clock() >= until:
                break
        return True

    def stop(self) -> None:
        """The run is over: the thread leaves as soon as the source has answered; from anywhere."""
        self._asked.set()

    def join(self) -> None:
        """Wait for the thread, unless the source waits for something that nobody can end."""
        if self._thread is not None and not (self.pulling and self.run._run.stuck()):
            self._thread.join()
