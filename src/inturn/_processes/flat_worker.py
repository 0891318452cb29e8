"""What runs in a worker process for an item of a flat map: its elements stream to the parent, against *credits*.

A credit is the parent's leave to produce one element: it has reserved room for it. Credits come through the link, as
does everything; the main thread reads them when it has none left, and besides when large elements wait in shared
memory, which is free again as soon as the parent says that it has received all of them.

An element is sent at once, unless the last message was sent less than a moment ago: then it waits for company, and the
*flusher* sends them all when the moment is over. So a slow element is never late, and tiny ones travel by the hundred.

========== ================================== ==========================================================
stream     how it is told                     left by
========== ================================== ==========================================================
producing  ``credit`` is above 0              an element; the end of the iterator; an error
starved    ``credit`` is 0                    a message of the parent: credits, or None: the run is over
recalled   the worker's ``_recalled``         the iterator is closed, and the last message sent
========== ================================== ==========================================================
"""

from __future__ import annotations

import os
import pickle
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter as clock
from typing import Any, Final, Protocol

from inturn._core.elements import close, elements_of
from inturn._model.outcome import detach
from inturn._transport import wire
from inturn._transport.pickling import PROTOCOL, is_atom, pack_error
from inturn._transport.shared_memory import Memory

__all__ = ["Streams"]

_MOMENT_S: Final = 0.001


class Worker(Protocol):
    """What a stream needs of the worker that it runs in."""

    _link: int
    _lock: threading.Lock
    _recalled: int
    _up: Memory

    def _unpack(self, packed: tuple[Any, ...]) -> Any: ...
    def _pack(self, result: Any) -> tuple[Any, ...]: ...


class Streams:
    """The streams of a worker process, one after the other."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._serial = 0
        self._credit = 0
        self._sent = 0
        self._sent_at = 0.0
        self._pending: list[Any] = []
        self._wake_ups: SimpleQueue[None] = SimpleQueue()
        self._flusher: threading.Thread | None = None
        self._poller = select.poll()
        self._poller.register(worker._link, select.POLLIN)

    # ---- the main thread -------------------------------------------------------------------------

    def run(self, fn: Callable[[Any], Any], serial: int, load: tuple[Any, int]) -> None:
        """Produce the item to its end, or until it is recalled."""
        worker = self._worker
        item, credit = load
        worker._up.clear()
        self._serial, self._credit, self._sent, self._sent_at = serial, credit, 0, 0.0
        begun, starved = clock(), 0.0
        iterator: Any = None
        packed: Any = None
        complete = False
        try:
            if type(item) is tuple:
                item = worker._unpack(item)
            iterator = elements_of(fn(item))
            take = iterator.__next__
            while worker._recalled < serial:
                if not self._credit:
                    mark = clock()
                    self.flush()
                    if not self._replenish():
                        break
                    starved += clock() - mark
                try:
                    element = take()
                except StopIteration:
                    complete = True
                    break
                self._credit -= 1
                if not is_atom(element):
                    element = self._pack(element)
                with worker._lock:  # the flusher may be just about to take what is pending
                    self._pending.append(element)
                    first = len(self._pending) == 1
                del element
                if clock() - self._sent_at >= _MOMENT_S:
                    self.flush()
                elif first:
                    self._later()
        except BaseException as error:  # it travels to the consumer
            packed = pack_error(detach(error))
        if not complete:
            close(iterator)
        self._send(packed, complete, clock() - begun - starved)

    def _pack(self, element: Any) -> Any:
        while self._worker._up.used() and self._poller.poll(0):
            self._hear()
        return self._worker._pack(element)

    def _replenish(self) -> bool:
        """Wait for credits; False if there will be none."""
        while not self._credit:
            if not self._hear():
                return False
        return True

    def _hear(self) -> bool:
        worker = self._worker
        serial, _, (credit, received) = pickle.loads(wire.read(worker._link, wire.receive(worker._link)))
        if serial != self._serial:
            return True  # it came too late for an earlier stream
        if credit is None:
            self._credit = 0
            return False
        self._credit += credit
        with worker._lock:
            if received == self._sent and not self._pending:
                worker._up.clear()
        return True

    def _later(self) -> None:
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flush_later, name="inturn-flusher", daemon=True)
            self._flusher.start()
        self._wake_ups.put(None)

    # ---- either thread ---------------------------------------------------------------------------

    def flush(self) -> None:
        with self._worker._lock:
            if self._pending:
                self._post(None, False, 0.0, False)

    def _send(self, packed: Any, complete: bool, seconds: float) -> None:
        with self._worker._lock:
            self._post(packed, complete, seconds, True)

    def _post(self, packed: Any, complete: bool, seconds: float, last: bool) -> None:
        batch, self._pending = self._pending, []
        self._sent += len(batch)
        stowed = self._worker._up.used()
        message = (self._serial, batch, stowed, last, complete, packed, seconds)
        wire.send(self._worker._link, pickle.dumps(message, PROTOCOL))
        self._sent_at = clock()

    # ---- the flusher -----------------------------------------------------------------------------

    def _flush_later(self) -> None:
        moment = threading.Lock()
        moment.acquire()
        while True:
            self._wake_ups.get()
            moment.acquire(timeout=_MOMENT_S)
            try:
                self.flush()
            except OSError:
                os._exit(1)  # the parent is gone
