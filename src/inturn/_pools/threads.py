"""Threads of the library's own: the pool behind ``executor="thread"``, and the places of every pool of ours.

A place is a thread that claims chunks and runs them at its *station*: in the thread itself here, in a worker
process in `_processes`. The threads are daemonic, so that a call that was given up never blocks the exit of the
interpreter; an ``atexit`` hook waits for the calls that were not.

======== =============================================== ==========================================
place    how it is told                                  left by
======== =============================================== ==========================================
unborn   a token in ``_permits``                         `notify`, which starts it
idle     a token in ``_idle``; waits in ``_tokens.get``  `notify`, which takes the token; `stop`
running  ``chunk`` is set                                its chunk's end; `give_up`
given up ``given_up``; its permit is back                its call's return, which nobody sees
left     ``left`` is released                            (also as soon as it is given up)
======== =============================================== ==========================================

`_lock` keeps workers and the warden from claiming and taking back at the same time. The consumer, `stop` and finalisers
never take it, so a signal handler that closes the run in the consumer's thread cannot deadlock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from itertools import repeat
from queue import Empty, SimpleQueue
from time import sleep
from typing import Protocol

from inturn._base.gil import fence
from inturn._core.job import Call, Job, Place
from inturn._core.run_thread import NO_THREAD, CallThread, start
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind, detach, from_handler
from inturn._model.threads import Threads, finalize

__all__ = ["Station", "ThreadPlace", "ThreadPool"]


class Station(Protocol):
    """How a place runs chunks. All methods but `started` are called in the place's thread."""

    @property
    def watched(self) -> bool:
        """Whether the warden looks after boxes and limits."""
        ...

    def open(self) -> None:
        """Before the first chunk; an error ends the run."""

    def ready(self) -> bool:
        """Before each chunk is claimed; False if the place has to leave."""
        ...

    def started(self) -> None:
        """Wait for what must not overlap with the one who started the place, and is called in (no place's thread)."""

    def run(self, chunk: Chunk, place: ThreadPlace) -> bool:
        """Append the chunk's outcomes; False if the place has to leave."""
        ...

    def close(self) -> None: ...


class _InThread:
    """A station that is the thread itself."""

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

    def run(self, chunk: Chunk, place: ThreadPlace) -> bool:
        return self._job.run(chunk, place, self._context)

    def close(self) -> None:
        context, self._context = self._context, None  # it holds the job, which holds the thread
        if context is not None:
            context.run(finalize, self._settings.finalizer)


class ThreadPlace(CallThread):
    """A thread that claims chunks and runs them until its run is over."""

    chunk: Chunk | None

    def __init__(self, pool: ThreadPool, station: Station, name: str) -> None:
        super().__init__(pool.job, name)
        self.pool = pool
        self.station = station
        self.since = 0.0
        self.boxed = False
        self.call: Call | None = None
        self.coming = True  # started or woken, and has not claimed since

    def work(self) -> None:
        pool, job = self.pool, self.job
        stays = True
        try:
            if not self._opens():
                return
            while self.station.ready() and (chunk := pool.next_chunk(self)) is not None:
                self.boxed = self.station.watched and job.timeout is None and pool.boxes and chunk.size > 1
                job.begun(self, chunk)
                stays = self.station.run(chunk, self)
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
                pool.notify(1)  # some may count on this place
                self.station.close()
            finally:
                if stays:  # else the warden has released it
                    self.left.release()

    def _opens(self) -> bool:
        """Open the station; if that fails, so does the next item, past every policy, and the run with it."""
        try:
            self.station.open()
        except Exception as error:  # whatever an initializer raises
            chunk = self.pool.next_chunk(self)
            if chunk is not None:
                self.job.begun(self, chunk)
                for item in chunk.todo:
                    self.job.failed(chunk, item, detach(error), 0.0, Kind.FATAL)
                self.job.ended(self, chunk)
            return False
        return True

    def give_up(self) -> None:
        pool, job, chunk, call = self.pool, self.job, self.chunk, self.call
        assert chunk is not None
        assert call is not None
        assert job.timeout is not None
        self.given_up = True
        job.abandoned += 1
        with pool.lock:
            job.window.take_back(chunk)
        error = TimeoutError(f"the call took longer than timeout={job.timeout:g} s")
        job.failed(chunk, call.item, error, job.timeout, Kind.FAILED)
        job.ended(self, chunk)
        call.item = None
        pool.release(self)


class ThreadPool:
    """Places that are started as items need them, at most `concurrency` at once."""

    inline = False

    def __init__(self, job: Job, station: Callable[[], Station], *, name: str = "inturn", boxes: bool = True) -> None:
        self.job = job
        self.boxes = boxes
        self.lock = threading.Lock()
        self._station = station
        self._name = name
        self._places: dict[ThreadPlace, None] = {}
        self._permits: deque[None] = deque(repeat(None, job.concurrency))
        self._idle: deque[None] = deque()
        self._coming: deque[None] = deque()  # one for each place that was woken or started and has not claimed yet
        self._waking: deque[None] = deque()  # one for each thread that is just waking or starting places
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._born = 0

    @classmethod
    def of(cls, job: Job, settings: Threads, *, boxes: bool) -> ThreadPool:
        return cls(job, lambda: _InThread(job, settings), name=settings.name, boxes=boxes)

    # ---- consumer, warden, workers ---------------------------------------------------------------

    def open(self) -> None:
        if self.job.timeout is not None:
            self.job.warden.arm()  # before the places: if few threads can be had, one has to be this

    def hungry(self) -> bool:
        """Whether `notify` could have an effect."""
        return bool(self._idle or self._permits)

    def notify(self, chunks: int) -> None:
        more = chunks > 0
        while more:
            self._waking.append(None)
            try:
                while (chunks > 0 and self._idle) or self._wanting():
                    if not self._wake():
                        break
                    chunks -= 1
            finally:
                self._waking.pop()
            fence()
            more = not self._waking and self._wanting()  # what others have left to us meanwhile

    def _wanting(self) -> bool:
        """Whether there is more to claim than places on their way to it, and another to be had."""
        return self.hungry() and not self.job.stopped and self.job.window.available() > len(self._coming)

    def _wake(self) -> bool:
        """One place more is on its way, unless none can be had or there is nothing for it."""
        if self.job.stopped:
            return False
        self._coming.append(None)
        try:
            self._idle.pop()
            idle = True
        except IndexError:
            idle = False
        if idle:
            self._tokens.put(None)
        elif not self._start():  # not in the handler above: an interrupt would show its IndexError too
            self.arrived()
            return False
        return True

    def _start(self) -> bool:
        if self.job.window.available() < len(self._coming):
            return False
        try:
            self._permits.pop()
        except IndexError:
            return False
        self._born += 1
        place = ThreadPlace(self, self._station(), f"{self._name}-{self._born}")
        try:
            place.announce()
            self._places[place] = None
            start(place)
        except BaseException as error:
            if place.annul():
                place.given_up = True
                place.left.release()  # somebody may be waiting already
                self._places.pop(place, None)
                if type(error) in NO_THREAD and self._places and not from_handler(error):
                    return False  # no further thread can be had: go on with those there are
            raise  # if it runs, this is an interrupt, and it finds the run stopped
        place.station.started()
        return True

    def places(self) -> list[Place]:
        return list(self._places)

    def running(self) -> int:
        return sum(place.chunk is not None for place in list(self._places))

    def take_back(self, chunk: Chunk) -> bool | None:
        with self.lock:
            return self.job.window.take_back(chunk)

    def release(self, place: ThreadPlace) -> None:
        """The place was given up: another may be started in its stead (warden only)."""
        self._places.pop(place, None)
        place.left.release()
        self._permits.append(None)
        self.notify(min(1, self.job.window.available()))

    def wait(self, seconds: float | None) -> None:
        self.job.sleep(seconds)

    # ---- its places ------------------------------------------------------------------------------

    def next_chunk(self, place: ThreadPlace) -> Chunk | None:
        """Claim a chunk, waiting for one; None when the run is over."""
        while (chunk := self._claim(place)) is None:
            self._idle.append(None)
            chunk = self._claim(place)  # what came before we said that we are idle
            if chunk is not None:
                self._not_idle()
                return chunk
            if not self.job.stopped:
                self._tokens.get()
                place.coming = True
            if self.job.stopped:
                self._tokens.put(None)  # hand the word on
                return None
        return chunk

    def _claim(self, place: ThreadPlace) -> Chunk | None:
        if not self.job.may_start():
            return None
        window = self.job.window
        with self.lock:
            chunk = window.claim()
            if place.coming:
                place.coming = False
                self.arrived()
                fence()  # who adds an item finds that nobody is on the way to it, or is it found here
            left = window.available()
        # Whoever leaves something wakes the next, since how many chunks there are was a guess when the items came; but
        # who is just waking others goes on while there is something left, and may find that this thread needs no help.
        if left > len(self._coming):
            fence()
            if not self._waking:
                self.notify(1)
        return chunk

    def _not_idle(self) -> None:
        """Take back one word that we are idle, or the token that somebody has given for it.

        There is one of the two for each who has said so, but either may be snatched by one who waits, whose own word
        then stays behind for us: so we look for both, and wait for neither.
        """
        while not self.job.stopped:
            try:
                self._idle.pop()
                return
            except IndexError:
                pass
            try:
                self._tokens.get_nowait()
                self.arrived()
                self.notify(1)  # who gave it counts on this place
                return
            except Empty:
                sleep(0)  # its giver is between taking the word and giving the token: let it run

    def arrived(self) -> None:
        """A place that was woken or started looks for a chunk now."""
        try:
            self._coming.pop()
        except IndexError:
            pass

    # ---- the end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        self._tokens.put(None)

    def retire(self) -> None:
        pass

    def join(self) -> None:
        for place in list(self._places):
            with place.left:
                pass
            if not place.given_up:
                place.join()
