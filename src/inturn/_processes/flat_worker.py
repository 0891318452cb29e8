"""What runs in a worker process for an item of a flat map: a stream, limited by *credits*.

A credit allows the worker to produce one element: the parent has reserved room for it. The main
thread receives credits when it has none left, and when shared memory is in use, which is free again
when the parent has received all elements.

An element is sent at once, unless the last message was sent less than a millisecond ago. Then it
waits for further elements, and the *flusher* thread sends all of them when the millisecond is over.

========= ================================== ==================================================
stream    condition                          left by
========= ================================== ==================================================
producing ``_credit`` is above 0             an element; the end of the iterator; an error
starved   ``_credit`` is 0                   a message: credits, or None if the run is over
recalled  ``serial <= _recalled`` of worker  closing the iterator and sending the last message
========= ================================== ==================================================
"""

from __future__ import annotations

import os
import pickle
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from inturn._base.clock import clock
from inturn._base.events import ThreadEvent
from inturn._core.elements import close, elements_of
from inturn._model.outcome import detach
from inturn._transport import wire
from inturn._transport.pickling import PROTOCOL, is_atom, pack_error

__all__ = ["Streams"]

_FLUSH_S: Final = 0.001  # for so long an element may wait for others, in seconds


class Streams:
    """Runs the streams of a worker process, one after the other."""

    def __init__(self, worker: Any) -> None:  # a `_Worker`, whose module imports this one
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
                    while (now := self._receive()) == 0:
                        pass
                    if now is None:
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
                while worker._up.used() and self._poller.poll(0):
                    self._receive()
        except BaseException as error:  # it is raised in the consumer
            packed = pack_error(detach(error))
        if not complete:
            close(iterator)
        with worker._lock:
            self._post((complete, packed, clock() - begun - starved))

    def _flush_soon(self) -> None:
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flush_later, name="inturn-flusher", daemon=True)
            self._flusher.start()
        self._wake_ups.put(None)

    def _pack(self, element: Any) -> Any:
        return self._worker._pack(element)

    def _receive(self) -> int | None:
        """Receive credits; how many there are now, or None if the run is over."""
        worker = self._worker
        serial, _, (credit, received) = pickle.loads(wire.read(worker._link, wire.receive(worker._link)))
        if serial != self._serial:
            return self._credit  # for an earlier stream, which has ended
        if credit is None:
            self._credit = 0
            with worker._lock:
                worker._recalled = max(worker._recalled, serial)
            return None
        self._credit += credit
        with worker._lock:
            if received == self._sent and not self._pending:
                worker._up.clear()
        return self._credit

    def flush(self) -> None:
        """Send what is pending, in either thread."""
        with self._worker._lock:
            if self._pending:
                self._post(None)

    def _post(self, end: tuple[bool, Any, float] | None) -> None:
        """Send what is pending, and of an item that has ended: whether completely, its error, the seconds."""
        batch, self._pending = self._pending, []
        self._sent += len(batch)
        wire.send(self._worker._link, pickle.dumps((batch, self._worker._up.used(), end), PROTOCOL))
        self._sent_at = clock()

    def _flush_later(self) -> None:
        timer = ThreadEvent()
        while True:
            self._wake_ups.get()
            timer.wait(_FLUSH_S)
            try:
                self.flush()
            except OSError:
                os._exit(1)  # the parent has ended
