"""Threads of the library's own: the pool behind ``executor="thread"``, and the threads of worker processes.

A slot is a thread that claims chunks and runs them with its *backend*: here in the thread itself, in `_processes` in
a worker process. The threads are started by the run's supervisor, and by nobody else.

======== =============================================== ==========================================
slot     how it is told                                  left by
======== =============================================== ==========================================
free     a permit in ``_permits``                        `grow`, which starts it
idle     it is in ``_idle``; waits for its ``event``     `notify`, which takes it out; `stop`
running  ``chunk`` is set                                its chunk's end; `give_up`
given up ``thread.given_up``; its permit is back         its call's return, which nobody sees
left     ``thread.left`` is open                         (also as soon as it is given up)
======== =============================================== ==========================================

`lock` keeps workers and the supervisor from claiming and taking back at the same time. The consumer, `stop` and
finalisers never take it, so a signal handler that closes the run in the consumer's thread cannot deadlock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from itertools import repeat
from typing import Protocol

from inturn._base.atomic import fence
from inturn._base.events import ThreadEvent
from inturn._base.patching import not_since_import
from inturn._core.job import BasePool, Job, Slot
from inturn._core.threads import NO_THREAD, CallThread
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind, detach
from inturn._model.threads import Threads, finalize

__all__ = ["Backend", "ThreadPool", "ThreadSlot"]


class Backend(Protocol):
    """How a slot runs chunks. All methods but `started` are called in the slot's thread."""

    @property
    def watched(self) -> bool:
        """Whether the supervisor looks after time slices and limits."""
        ...

    def open(self) -> None:
        """Before the first chunk; an error ends the run."""

    def ready(self) -> bool:
        """Before each chunk is claimed; False if the slot has to leave."""
        ...

    def started(self) -> None:
        """Wait for what must not overlap with whoever waits for the supervisor (supervisor only)."""

    def run(self, chunk: Chunk, slot: ThreadSlot) -> bool:
        """Append the chunk's outcomes; False if the slot has to leave."""
        ...

    def close(self) -> None: ...


class _InThread:
    """A backend that is the thread itself."""

    __slots__ = ("_context", "_job", "_settings")

    watched = True

    def __init__(self, job: Job, settings: Threads) -> None:
        self._job = job
        self._settings = settings
        self._context: Context | None = None  # what the initializer has set, which the calls of this thread see

    def open(self) -> None:
        settings = self._settings
        if settings.initializer is not None or settings.finalizer is not None:
            context = self._job.context.copy()
            if settings.initializer is not None:
                context.run(settings.initializer, *settings.initargs)
            self._context = context

    def ready(self) -> bool:
        return True

    def started(self) -> None:
        pass

    def run(self, chunk: Chunk, slot: ThreadSlot) -> bool:
        return self._job.run(chunk, slot, self._context)

    def close(self) -> None:
        context, self._context = self._context, None  # it holds the job, which holds the thread
        if context is not None:
            context.run(finalize, self._settings.finalizer)


class ThreadSlot(Slot):
    """A thread that claims chunks and runs them until its run is over."""

    __slots__ = ("backend", "coming", "event", "pool", "thread")

    def __init__(self, pool: ThreadPool, backend: Backend, name: str) -> None:
        super().__init__()
        self.pool = pool
        self.backend = backend
        self.coming = True  # started or woken, and has not claimed since
        self.event = ThreadEvent()  # what it sleeps by when it is idle
        self.thread = CallThread(pool.job, self, name, self._work)

    def _work(self) -> None:
        pool, job = self.pool, self.pool.job
        stays = True
        try:
            if not self._opens():
                return
            while self.backend.ready() and (chunk := pool.next_chunk(self)) is not None:
                self.sliced = self.backend.watched and job.timeout is None and pool.slices and chunk.size > 1
                job.begun(self, chunk)
                stays = self.backend.run(chunk, self)
                if not stays:
                    return
                job.ended(self, chunk)
                del chunk
        except BaseException as error:  # a fault of ours
            self.chunk = None
            job.crash(error)
        finally:
            try:
                if self.coming:
                    pool.arrived()
                pool.notify(1)  # some may count on this slot
                self.backend.close()
            finally:
                if stays:  # else the supervisor has released it
                    self.thread.left.open()

    def _opens(self) -> bool:
        """Open the backend; if that fails, so does the next item, past every policy, and the run with it."""
        try:
            self.backend.open()
        except Exception as error:  # whatever an initializer raises
            chunk = self.pool.next_chunk(self)
            if chunk is not None:
                job = self.pool.job
                job.begun(self, chunk)
                for item in chunk.todo:
                    job.failed(chunk, item, detach(error), 0.0, Kind.FATAL)
                job.ended(self, chunk)
            return False
        return True

    def give_up(self) -> None:
        pool, job, chunk, call = self.pool, self.pool.job, self.chunk, self.call
        assert chunk is not None
        assert call is not None
        assert job.timeout is not None
        self.thread.given_up = True
        job.abandoned += 1
        with pool.lock:
            job.window.take_back(chunk)
        error = TimeoutError(f"the call took longer than timeout={job.timeout:g} s")
        job.failed(chunk, call.item, error, job.timeout, Kind.FAILED)
        job.ended(self, chunk)
        call.item = None
        pool.release(self)


class ThreadPool(BasePool):
    """Slots that are started as items need them, at most `concurrency` at once."""

    kind = "thread"

    def __init__(self, job: Job, backend: Callable[[], Backend], *, name: str = "inturn", slices: bool = True) -> None:
        super().__init__(job)
        self.slices = slices
        self.lock = threading.Lock()
        self._backend = backend
        self._name = name
        self._slots: dict[ThreadSlot, None] = {}
        self._permits: deque[None] = deque(repeat(None, job.concurrency))
        self._idle: dict[ThreadSlot, bool] = {}
        self._coming: deque[None] = deque()  # one for each slot that was woken or started and has not claimed yet
        self._started = 0

    @classmethod
    def of(cls, job: Job, settings: Threads, *, slices: bool) -> ThreadPool:
        name = settings.name if job.stage is None or settings.name != Threads().name else job.label()
        return cls(job, lambda: _InThread(job, settings), name=name, slices=slices)

    # ---- consumer, supervisor, workers -----------------------------------------------------------

    def open(self) -> None:
        not_since_import()
        super().open()

    def has_capacity(self) -> bool:
        return bool(self._idle or self._permits)

    def notify(self, chunks: int) -> None:
        if self.job.throttle is not None and chunks > 0 and self._idle:
            chunks = min(chunks, self.job.ready())
        if chunks > 0 and self._idle and not self.job.stopped:
            for slot in reversed(list(self._idle)):  # the one that has rested least has the warmest caches
                if self._idle.pop(slot, False):
                    self._coming.append(None)
                    slot.event.set()
                    chunks -= 1
                    if not chunks:
                        break
        if self._permits and self._wanting():
            self.job.supervisor.wake()

    def _wanting(self) -> bool:
        """Whether there is more to claim than slots on their way to it."""
        return not self.job.stopped and self.job.ready() > len(self._coming)

    def slots(self) -> list[Slot]:
        return list(self._slots)

    def take_back(self, chunk: Chunk) -> bool | None:
        with self.lock:
            return self.job.window.take_back(chunk)

    # ---- the supervisor --------------------------------------------------------------------------

    def grow(self) -> float | None:
        """Start threads while there is more to claim than slots on their way to it.

        Guarantee 7.
        """
        while self._permits and self._wanting():
            if self._idle:
                self.notify(1)
                continue
            self._permits.pop()
            self._coming.append(None)
            self._started += 1
            slot = ThreadSlot(self, self._backend(), f"{self._name}-{self._started}")
            self._slots[slot] = None
            try:
                slot.thread.start()
            except NO_THREAD:
                del self._slots[slot]
                self.arrived()
                if not self._slots:
                    raise
                break  # no further thread can be had: go on with those there are
            slot.backend.started()
        return None

    def release(self, slot: ThreadSlot) -> None:
        """The slot was given up: another may be started in its stead."""
        self._slots.pop(slot, None)
        slot.thread.left.open()
        self._permits.append(None)
        self.notify(min(1, self.job.window.available()))

    # ---- its slots -------------------------------------------------------------------------------

    def next_chunk(self, slot: ThreadSlot) -> Chunk | None:
        """Claim a chunk, waiting for one; None when the run is over."""
        while (chunk := self._claim(slot)) is None:
            self._idle[slot] = True
            chunk = self._claim(slot)  # an item that came before we said that we are idle
            if chunk is None and not self.job.stopped:
                slot.event.wait()
                slot.coming = True
            elif not self._idle.pop(slot, False):  # somebody is waking us for another chunk
                slot.event.wait()
                self.arrived()
                self.notify(1)
            if chunk is not None:
                return chunk
            if self.job.stopped:
                return None
        return chunk

    def _claim(self, slot: ThreadSlot) -> Chunk | None:
        if not self.job.may_start():
            return None
        with self.lock:
            chunk = self.job.claim()
        if slot.coming:
            slot.coming = False
            self.arrived()
            fence()  # an item that is added now wakes somebody, or is seen here
        if (
            self._idle or self._permits
        ) and self._wanting():  # how many chunks there are was a guess when the items came
            self.notify(1)
        return chunk

    def arrived(self) -> None:
        """A slot that was woken or started looks for a chunk now."""
        try:
            self._coming.pop()
        except IndexError:
            pass

    # ---- the end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        for slot in list(self._slots):
            slot.event.set()

    def join(self) -> None:
        for slot in list(self._slots):
            slot.thread.left.wait()
            if not slot.thread.given_up:
                slot.thread.join()
