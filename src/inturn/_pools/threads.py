"""Threads of the library's own: the pool behind ``executor="thread"``, and the threads of worker processes.

A slot is a thread that claims chunks and runs them: here by itself, in `_processes` in a worker process.
Only the run's supervisor starts threads. The `Store` lends workers to runs: here, the threads.

======== =============================================== ==========================================
slot     how it is told                                  left by
======== =============================================== ==========================================
free     a permit in ``_permits``                        `grow`, which gets a lease and starts it
idle     it is in ``_idle``; waits for its ``event``     `notify`, which takes it out; `stop`;
                                                         `dismiss`, if another run waits
running  ``chunk`` is set                                its chunk's end; `give_up`
leaving  ``leaving``: another run gets its worker        its thread, which gives its permit back
given up ``thread.given_up``; its permit is back         its call's return, which nobody sees
left     ``left`` is open                                (also as soon as it is given up)
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
from typing import Any, Final

from inturn._base.atomic import GIL, fence
from inturn._base.clock import clock
from inturn._base.events import Latch, ThreadEvent
from inturn._base.patching import not_since_import
from inturn._core.job import BasePool, Job
from inturn._core.slot import Slot
from inturn._core.threads import NO_THREAD
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind, detach
from inturn._model.threads import Threads
from inturn._model.workers import Block, Workers

from .store import Share, Store, store_of
from .worker_threads import ThreadStore, WorkerThread

__all__ = ["ThreadPool", "ThreadSlot"]

_TINY: Final = 1 / 2  # without the GIL: items that take less than this part of a batch may widen a default window


class ThreadSlot(Slot):
    """Claims chunks and runs them, in a thread, until its run is over or another run gets its worker.

    How it runs them is said by `open`, `ready`, `run` and `close`, which are called in that thread.
    """

    def __init__(self, pool: ThreadPool) -> None:
        super().__init__()
        self.pool = pool
        self.event = ThreadEvent()  # what it sleeps by when it is idle
        self.left = Latch()
        self.leaving = False  # for another run
        self.leased_at = clock()
        self.thread: WorkerThread
        self._context: Context | None = None  # what the initializer has set, which the calls of this thread see

    def open(self) -> None:
        """Before the first chunk; an error ends the run."""
        self._context = self.thread.prepare(self.pool.job)

    def ready(self) -> bool:
        """Before each chunk is claimed; False if the slot has to leave."""
        return True

    def started(self) -> None:
        """Wait for what must not overlap with whoever waits for the supervisor (supervisor only)."""

    def run(self, chunk: Chunk) -> bool:
        """Append the chunk's outcomes; False if the slot has to leave."""
        return self.pool.job.run(chunk, self, self._context)

    def close(self) -> Any:
        """After the last chunk; returns the worker that goes back to the store, or None."""
        self._context = None  # it holds the job, which holds the thread
        return None if self.thread.prepared is None else self.thread

    def discard(self, worker: Any) -> None:
        """The store does not keep the worker: end it. A thread ends by itself."""

    def work(self) -> bool:
        """Run chunks until the slot leaves; whether the store of its thread keeps the thread."""
        pool, job = self.pool, self.pool.job
        stays = True
        worker: Any = None
        try:
            opened = self._opens()
            while opened and self.ready() and (chunk := pool.next_chunk(self)) is not None:
                self.sliced = self.calls_here and job.timeout is None and pool.slices and chunk.size > 1
                job.begun(self, chunk)
                stays = self.run(chunk)
                if not stays:
                    break  # it was given up: the supervisor has released the slot
                job.ended(self, chunk)
                del chunk
                if not self.leaving and pool.store.waiting:
                    self.leaving = pool.store.yields(pool.share, self.leased_at)
                if self.leaving:
                    break
        except BaseException as error:  # a fault of ours
            self.chunk = None
            job.crash(error)
        finally:
            try:
                pool.coming.pop(self, None)
                pool.notify(1)  # some may count on this slot
                worker = self.close()
            finally:
                kept = stays and pool.vacate(self, worker)
        return kept

    def _opens(self) -> bool:
        """`open`; if that fails, so does the next item, past every policy, and the run with it."""
        try:
            self.open()
            return True
        except Exception as error:  # whatever an initializer raises
            job, chunk = self.pool.job, self.pool.next_chunk(self)
            if chunk is not None:
                job.begun(self, chunk)
                for item in chunk.todo:
                    job.failed(chunk, item, detach(error), 0.0, Kind.FATAL)
                job.ended(self, chunk)
            return False

    def give_up(self) -> None:
        pool, job, chunk, call = self.pool, self.pool.job, self.chunk, self.call
        assert chunk is not None
        assert call is not None
        assert job.timeout is not None
        self.thread.given_up = True
        job.abandoned += 1
        pool.take_back(chunk)
        error = TimeoutError(f"the call took longer than timeout={job.timeout:g} s")
        job.failed(chunk, call.item, error, job.timeout, Kind.FAILED)
        job.ended(self, chunk)
        call.item = None
        pool.release(self)


class ThreadPool(BasePool):
    """Slots that are started as items need them, at most `concurrency` at once."""

    kind = "thread"

    def __init__(
        self,
        job: Job,
        settings: Workers,
        store: Store[Any],
        threads: ThreadStore,
        slot: Callable[[Any], ThreadSlot],
        *,
        slices: bool,
    ) -> None:
        super().__init__(job)
        self.store = store
        self.threads = threads
        self.share = Share(job, self.dismiss)
        self.slices = slices
        self.lock = threading.Lock()
        self._new_slot = slot
        self._slots: dict[ThreadSlot, None] = {}
        self._permits: deque[None] = deque(repeat(None, job.concurrency))
        self._idle: dict[ThreadSlot, bool] = {}
        self.coming: dict[ThreadSlot, bool] = {}  # those that were started or woken, and have not claimed since
        self.keeper: Workers | None = settings  # keeps the workers of a block from being lost, while the run is open

    @classmethod
    def of(cls, job: Job, settings: Threads, *, least: int, slices: bool) -> ThreadPool:
        def make(block: Block | None) -> ThreadStore:
            name = job.label() if block is None and settings.name == Threads().name else settings.name
            return ThreadStore(settings, name=name, least=least, block=block)

        if not GIL:  # what computes profits from threads, too: an item that is handed over alone waits for the consumer
            job.window.tiny = _TINY
        store: ThreadStore = store_of(settings, make)
        return cls(job, settings, store, store, ThreadSlot, slices=slices)

    def open(self) -> None:
        not_since_import()
        self.store.open(self.share)
        super().open()

    def has_capacity(self) -> bool:
        return bool(self._idle or self._permits)

    def notify(self, chunks: int) -> None:
        if self.job.throttle is not None and chunks > 0 and self._idle:
            chunks = min(chunks, self.job.ready())
        if chunks > 0 and self._idle and not self.job.stopped:
            for slot in reversed(list(self._idle)):  # the one that has rested least has the warmest caches
                if self._idle.pop(slot, False):
                    self.coming[slot] = True
                    slot.event.set()
                    chunks -= 1
                    if not chunks:
                        break
        if self._permits and self._wanting():
            self.job.supervisor.wake()

    def _wanting(self) -> bool:
        """Whether there is more to claim than slots on their way to it."""
        return not self.job.stopped and self.job.ready() > len(self.coming)

    def slots(self) -> list[Slot]:
        return list(self._slots)

    def take_back(self, chunk: Chunk) -> bool | None:
        with self.lock:
            return self.job.window.take_back(chunk)

    def grow(self) -> float | None:
        """Guarantee 7: start threads while there is more to claim than slots on their way to it."""
        while self._permits and self._wanting():
            if self._idle:
                self.notify(1)
                continue
            if not self.store.lease(self.share):
                return None  # the store wakes the supervisor when it is this run's turn
            self._permits.pop()
            for slot in [each for each in self._slots if each.left.is_open and not self._joins(each)]:
                del self._slots[slot]  # they have left for other runs
            slot = self._new_slot(self)
            self._slots[slot] = None
            self.coming[slot] = True
            try:
                self._start(slot)
            except NO_THREAD:
                del self._slots[slot], self.coming[slot]
                self.store.give_back(self.share, None, leaving=False)
                if not self._slots:
                    raise
                break  # no further thread can be had: go on with those there are
            slot.started()
        self.store.settle(self.share)
        return None

    def _start(self, slot: ThreadSlot) -> None:
        thread = self.threads.take(self.share)
        if thread is not None:
            slot.thread, thread.job, thread._slot = thread, self.job, slot
            thread.event.set()
            return
        slot.thread = thread = WorkerThread(self.threads, self.job, slot)
        self.threads.add(thread)
        try:
            thread.start()
        except BaseException:
            self.threads.remove(thread)
            raise

    def released(self) -> None:
        self.store.end(self.share)

    def release(self, slot: ThreadSlot) -> None:
        """The slot was given up: another may be started in its stead."""
        self._slots.pop(slot, None)
        self.threads.remove(slot.thread)
        self.store.give_back(self.share, None, leaving=slot.leaving)
        slot.left.open()
        slot.thread.left.open()  # the exit of the interpreter does not wait for it
        self._permits.append(None)
        self.notify(min(1, self.job.window.available()))

    def dismiss(self) -> bool:
        """Tell an idle slot to leave, since another run waits."""
        for slot in list(self._idle):
            if self._idle.pop(slot, False):
                slot.leaving = True
                slot.event.set()
                return True
        return False

    def vacate(self, slot: ThreadSlot, worker: Any) -> bool:
        """The slot leaves; whether the store of its thread keeps the thread."""
        slot.thread.job = slot.thread._slot = None  # first: another slot may have the thread at once
        leaving = slot.leaving
        if leaving:
            self._permits.append(None)
        kept = self.store.give_back(self.share, worker, leaving=leaving)
        if not kept and worker is not None:
            slot.discard(worker)
        if leaving and self._wanting():
            self.job.supervisor.wake()
        return kept

    def rest(self, *, over: bool = False) -> None:
        if self.store.keeps:
            self.store.rest(self.share, over=over)

    def next_chunk(self, slot: ThreadSlot) -> Chunk | None:
        """Claim a chunk, waiting for one; None when the run is over."""
        while (chunk := self._claim(slot)) is None:
            self._idle[slot] = True
            chunk = self._claim(slot)  # an item that came before we said that we are idle
            if chunk is None and not self.job.stopped:
                if self.store.waiting and self._idle.pop(slot, False):
                    self.store.leaves(self.share)
                    slot.leaving = True
                    return None
                slot.event.wait()
                if slot.leaving:
                    return None
            elif not self._idle.pop(slot, False):  # somebody is waking us for another chunk, or dismisses us
                slot.event.wait()
                if self.coming.pop(slot, False):
                    self.notify(1)
            if chunk is not None or self.job.stopped:
                break
        return chunk

    def _claim(self, slot: ThreadSlot) -> Chunk | None:
        if not self.job.may_start():
            return None
        with self.lock:
            chunk = self.job.claim()
        if self.coming.pop(slot, False):
            fence()  # an item that is added now wakes somebody, or is seen here
        if (self._idle or self._permits) and self._wanting():  # how many chunks there are was a guess before
            self.notify(1)
        return chunk

    def stop(self) -> None:
        self.keeper = None
        for slot in list(self._slots):
            slot.event.set()

    def join(self) -> None:
        for slot in list(self._slots):
            slot.left.wait()
            if self._joins(slot):
                slot.thread.join()

    def _joins(self, slot: ThreadSlot) -> bool:
        """Whether the slot's thread has to end with the run."""
        return slot.thread.is_alive() and not (self.threads.keeps or slot.thread.given_up)
