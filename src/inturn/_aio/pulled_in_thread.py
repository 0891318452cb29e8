"""A synchronous run as a source of an asynchronous one: it is pulled in a thread, so that the loop goes on.

One thread pulls from the first item to the last, so that sources that belong to a thread work. It pulls by the
handful, as `Source` does: one item for certain, further ones only while all of them have taken less than a
millisecond, and never more than there is room in the window. What it has pulled waits here until the feeder has
taken it.

======== ============================== ==================================================
thread   condition                      left by
======== ============================== ==================================================
absent   ``_thread`` is None            the first ``anext``
asleep   it waits for ``_asked``        `_ask` (another handful); `stop`
pulling  ``pulling``                    the end of the handful
gone     it is not alive                (the source has ended or failed, or the run is over)
======== ============================== ==================================================
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from inturn._base.clock import clock
from inturn._base.events import ThreadEvent
from inturn._core.job import Job
from inturn._core.source import HANDFUL_S
from inturn._core.threads import DAEMON
from inturn._engine.window import Window
from inturn._model.handle import Handle
from inturn._model.outcome import without_our_frames

from .events import LoopEvent

__all__ = ["PulledInThread"]

_END: Final = object()


class PulledInThread:
    """An async iterator over a synchronous run."""

    def __init__(self, source: Handle, window: Window, job: Job) -> None:
        self.run = source
        self._source: Iterator[Any] = source  # type: ignore[assignment]
        self._window = window
        self._job = job
        self._pulled: deque[tuple[Any, BaseException | None, int]] = deque()  # item, or error, and origin
        self._origin = 0
        self._room = 0
        self._asked = ThreadEvent()
        self._answered: LoopEvent | None = None
        self._over = False
        self._thread: threading.Thread | None = None
        self.pulling = False

    def __aiter__(self) -> PulledInThread:
        return self

    async def __anext__(self) -> Any:
        if not self._pulled:
            await self._pull()
        item, error, self._origin = self._pulled.popleft()
        if item is not _END:
            return item
        self._pulled.append((_END, None, 0))
        if error is None:
            raise StopAsyncIteration
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    @property
    def straight(self) -> bool:
        """Whether origins are indices (see `origins`): if not, then for good."""
        straight: bool = self.run._run.straight
        return straight

    def origin(self) -> int:
        """The origin of the item that was handed over last."""
        return self._origin

    async def _pull(self) -> None:
        """Wait until the thread has pulled something; if it rests, have it pull a handful (guarantee 3)."""
        if self._answered is None:
            self._answered = LoopEvent(asyncio.get_running_loop())
        while True:
            rests = not self.pulling  # asked first: it is written after the last item
            if self._pulled:
                return
            if rests:
                self._ask()
            await self._answered.wait(None)

    def _ask(self) -> None:
        self._room = max(1, self._window.room())
        self.pulling = True
        self._asked.set()
        if self._thread is None:
            context = self._job.context.copy()
            name = self._job.label("feeder")
            thread = threading.Thread(target=context.run, args=(self._work,), name=name, daemon=DAEMON)
            thread.start()
            self._thread = thread

    # ---- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        assert self._answered is not None
        going_on = True
        while going_on:
            self._asked.wait()
            try:
                going_on = not self._over and self._pull_handful()
            finally:
                self.pulling = False
                self._answered.set()

    def _pull_handful(self) -> bool:
        """Pull at least one item; False at the end of the source."""
        room, until, pulled, run = self._room, clock() + HANDFUL_S, self._pulled, self.run._run
        while room:
            try:
                item = next(self._source)
            except StopIteration:
                pulled.append((_END, None, 0))
                return False
            except BaseException as error:  # it is raised by `anext`
                without_our_frames(error)
                pulled.append((_END, error, 0))
                return False
            pulled.append((item, None, run.origin()))
            room -= 1
            if self._over or clock() >= until:
                break
        return True

    # ---- the end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """The run is over: the thread leaves as soon as the source has answered; from anywhere."""
        self._over = True
        self._asked.set()

    def join(self) -> None:
        """Wait for the thread, unless the source waits for something that nobody can end."""
        if self._thread is not None and not (self.pulling and self.run._run.stuck()):
            self._thread.join()
