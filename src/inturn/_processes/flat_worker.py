"""What runs in a worker process for an item of a flat map: a stream, limited by *credits*.

A credit allows the worker to produce one element: the parent has reserved room for it. The main
thread receives credits through the link when it has none left. It also does so when shared memory
is in use, which is free again when the parent has received all elements.

An element is sent at once, unless the last message was sent less than a millisecond ago. Then it
waits for further elements, and the *flusher* thread sends all of them when the millisecond is over.
So a slow element is never late, and tiny ones are sent by the hundred.

========= ============================== ======================================================
stream    condition                      left by
========= ============================== ======================================================
producing ``_credit`` is above 0         an element; the end of the iterator; an error
starved   ``_credit`` is 0               a message: credits, or None if the run is over
recalled  ``_recalled`` of the worker    closing the iterator and sending the last message
          is its serial, or above
========= ============================== ======================================================
"""

from __future__ import annotations

import os
import pickle
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Protocol

from inturn._base.clock import clock
from inturn._core.elements import close, elements_of
from inturn._model.outcome import detach
from inturn._transport import wire
from inturn._transport.pickling import PROTOCOL, is_atom, pack_error
from inturn._transport.shared_memory import Memory

__all__ = ["Streams"]

_FLUSH_S: Final = 0.001  # for so long an element may wait for others, in seconds


class Worker(Protocol):
    """What `Streams` needs of the worker."""

    _link: int
    _lock: threading.Lock
    _recalled: int
    _up: Memory

    def _unpack(self, packed: tuple[Any, ...]) -> Any: ...
    def _pack(self, result: Any) -> tuple[Any, ...]: ...


class Streams:
    """Runs the streams of a worker process, one after the other."""

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
        """Produce the elements of an item, to the end or until it is recalled."""
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
                    if not self._await_credit():
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
                with worker._lock:  # the flusher takes from `_pending`, too
                    self._pending.append(element)
                    first = len(self._pending) == 1
                del element
                if clock() - self._sent_at >= _FLUSH_S:
                    self.flush()
                elif first:
                    self._flush_soon()
        except BaseException as error:  # it is raised in the consumer
            packed = pack_error(detach(error))
        if not complete:
            close(iterator)
        self._send(packed, complete, clock() - begun - starved)

    def _pack(self, element: Any) -> Any:
        while self._worker._up.used() and self._poller.poll(0):
            self._receive()
        return self._worker._pack(element)

    def _await_credit(self) -> bool:
        """Wait for a credit; False if the run is over."""
        while not self._credit:
            if not self._receive():
                return False
        return True

    def _receive(self) -> bool:
        """Receive credits; False if the run is over."""
        worker = self._worker
        serial, _, (credit, received) = pickle.loads(wire.read(worker._link, wire.receive(worker._link)))
        if serial != self._serial:
            return True  # for an earlier stream, which has ended
        if credit is None:
            self._credit = 0
            return False
        self._credit += credit
        with worker._lock:
            if received == self._sent and not self._pending:
                worker._up.clear()
        return True

    def _flush_soon(self) -> None:
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flusher_main, name="inturn-flusher", daemon=True)
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
        message = (batch, stowed, last, complete, packed, seconds)
        wire.send(self._worker._link, pickle.dumps(message, PROTOCOL))
        self._sent_at = clock()

    # ---- the flusher -----------------------------------------------------------------------------

    def _flusher_main(self) -> None:
        timer = threading.Lock()
        timer.acquire()
        while True:
            self._wake_ups.get()
            timer.acquire(timeout=_FLUSH_S)
            try:
                self.flush()
            except OSError:
                os._exit(1)  # the parent has ended
