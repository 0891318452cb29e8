"""The parent's end of one worker process: start it, talk to it, wait for it, end it.

All methods are for the slot's thread; `recall` may be used from anywhere. The parent waits in one place only, `_poll`,
for whatever comes first: a message, the end of the process, the end of the run, or a moment in time.

The end of the process is told by a pidfd, where the system has them: pipes do not tell, since other children of the
user's, and children of the worker, may hold copies of their ends. Elsewhere it is told by the ``sentinel`` and a look
each second.

======== =============================================== =========================================
process  how it is told                                  left by
======== =============================================== =========================================
born     not ``up``                                      its first message, which says *up* or why not
up       ``up``                                          `end`, `kill`, its death
ended    ``exitcode`` is set or `ended` is True          `close`
======== =============================================== =========================================
"""

from __future__ import annotations

import enum
import errno
import os
import pickle
import select
import signal
import socket
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_sentinel
from time import perf_counter as clock
from typing import Any, Final

from inturn._base.events import LONG_S
from inturn._transport.shared_memory import Memory
from inturn._transport.wire import LENGTH, End, PipeEvent, Recall, frame

from . import worker as _process_main
from .setup import Setup
from .start import new_process, owned, starting

__all__ = ["GRACE_S", "Event", "Handle"]

GRACE_S: Final = 0.5
"""Seconds that running items are given when the run is over."""


_LOOK_S: Final = 1.0  # between two looks at a process that has no pidfd
_READ: Final = 1 << 16  # bytes; over twice as many, and the allocator asks the system for each
_TAILS: Final = 20  # looks at the exit code of a process that has ended
_TAIL_S: Final = 0.002


class Event(enum.Enum):
    """Why there is no message."""

    DIED = "the process has ended"
    OVER = "the run is over"
    LATE = "the moment has come"


class Handle:
    """A worker process that has been started.

    Args:
        method: How, as `multiprocessing` names it.
        name: The process's.
        stop_event: It is set when the run is over.
        setup: What it does first and last.

    Raises:
        OSError: No further process, descriptor or memory can be had.
    """

    def __init__(self, method: str, name: str, stop_event: PipeEvent, setup: Setup) -> None:
        self._method = method
        self._stop_event: PipeEvent | None = stop_event
        self.ignores_stop = False  # the stop_event has been heard, or need not be
        self._inbox: bytes | bytearray = b""  # received, and not yet given out
        self._serial = 0
        self.ended = False
        self.exitcode: int | None = None
        self.tasks = 0  # items that were sent to it
        self.used = False  # whether it has begun one
        with starting(method), ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            undo.callback(theirs.close)
            control, recall = os.pipe()
            childs_control = Connection(control, writable=False)
            undo.callback(childs_control.close)
            asking = End(recall)
            undo.callback(asking.close)
            self.down = Memory.create()
            undo.callback(self.down.close)
            self.up = Memory.create()
            undo.callback(self.up.close)
            self._owned = {self.down, self.up, _Descriptor(ours.fileno()), asking}
            owned.update(self._owned)
            undo.callback(owned.difference_update, self._owned)
            childs = [Connection(theirs.detach()), childs_control, *map(_lent, (self.down.fd, self.up.fd))]
            for each in childs:
                undo.callback(each.close)
            self._process = new_process(method, name, _process_main.main, (*childs, os.getpid(), setup))
            undo.callback(self._abort)
            self._pidfd = _pidfd(self._process.pid)
            for each in childs:
                each.close()
            undo.pop_all()
            self._link = ours.detach()
            os.set_blocking(self._link, False)
            os.set_blocking(recall, False)
            self.recall = Recall(asking)
        self._tells = self._process.sentinel if self._pidfd is None else self._pidfd
        self._poller = select.poll()
        self._poller.register(self._link, select.POLLIN)
        self._poller.register(self._tells, select.POLLIN)
        self._poller.register(stop_event.fd, select.POLLIN)

    def _abort(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()

    def next_serial(self) -> int:
        """The number of the next chunk; the worker's first is 1."""
        self._serial += 1
        return self._serial

    # ---- talking ---------------------------------------------------------------------------------

    def send(self, message: Any, until: float | None = None) -> Event | None:
        """Send a message, whole; or else why not. When the run is over, it has as long as running items have."""
        data = memoryview(frame(pickle.dumps(message, pickle.HIGHEST_PROTOCOL)))
        sent = 0
        while sent < len(data):
            try:
                sent += os.write(self._link, data[sent:])
            except BlockingIOError:
                self._poller.modify(self._link, select.POLLOUT)
                try:
                    event = self._poll(until)
                finally:
                    self._poller.modify(self._link, select.POLLIN)
                if event is Event.OVER:
                    self.ignore_stop()  # half a message would be worse
                    at = clock() + GRACE_S
                    until = at if until is None else min(until, at)
                elif event is not None:
                    return event
            except OSError:
                return self._broken()
        return None

    def wait(self, until: float | None = None) -> Any:
        """The next message, or an `Event`. What was sent before the process ended comes first."""
        while True:
            message = self._message() if self._inbox else None
            if message is not None:
                return message
            event = self._poll(until)
            if event is Event.OVER:
                return event
            there = self._fill()  # whatever the event: time may have passed since
            if there is True:
                continue
            if there is None:
                return self._broken()
            if event is not None:
                return event

    def _message(self) -> Any:
        """The first message, if it is all there."""
        inbox = self._inbox
        there = len(inbox)
        if there < LENGTH.size:
            return None
        whole = LENGTH.unpack_from(inbox)[0] + LENGTH.size
        if there < whole:
            return None
        self._inbox = inbox[whole:] if there > whole else b""
        with memoryview(inbox) as view:
            return pickle.loads(view[LENGTH.size : whole])

    def _fill(self) -> bool | None:
        """Read what is there: True if there was something, None if the other end is closed."""
        try:
            data = os.read(self._link, _READ)
        except BlockingIOError:
            return False
        except OSError:
            return None
        if not data:
            return None
        if not self._inbox:
            self._inbox = data
        elif type(self._inbox) is bytearray:
            self._inbox += data
        else:
            self._inbox = bytearray(self._inbox) + data
        return True

    def _poll(self, until: float | None) -> Event | None:
        """Wait in C; None if the link is ready."""
        while True:
            rest = None if until is None else min(max(0.0, until - clock()), LONG_S)
            if self._pidfd is None:
                rest = _LOOK_S if rest is None else min(rest, _LOOK_S)
            ready = dict(self._poller.poll(None if rest is None else rest * 1000))
            if self._link in ready:
                return None
            if self._tells in ready or (self._pidfd is None and self._process.exitcode is not None):
                self._reap()
                return Event.DIED
            if ready:
                return Event.OVER
            if until is not None and clock() >= until:
                return Event.LATE

    # ---- the end ---------------------------------------------------------------------------------

    def ignore_stop(self) -> None:
        """The stop_event has been heard, and need not be heard again."""
        self.ignores_stop = True
        if self._stop_event is not None:
            self._poller.unregister(self._stop_event.fd)
            self._stop_event = None

    def end(self, until: float) -> None:
        """Ask the process to leave, kill it if it has not in time, and let go of everything."""
        self.ignore_stop()
        if not self.ended:
            said: Any = self.send((0, 0, None), until)
            while not isinstance(said, Event):  # messages that nobody wants any more
                said = self.wait(until)
            if said is Event.LATE:
                self.kill()
        self.close()

    def kill(self) -> None:
        if not self.ended:
            try:
                if self._pidfd is None:
                    self._process.kill()
                else:
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except OSError:
                pass  # it has ended by itself
            self._await_end(None)

    def _broken(self) -> Event:
        """The link is closed: the process ends just now, or has closed what it must not."""
        if not self.ended and not self._await_end(clock() + _LOOK_S):
            self.kill()
        return Event.DIED

    def _await_end(self, until: float | None) -> bool:
        poller = select.poll()
        poller.register(self._tells, select.POLLIN)
        while not poller.poll(_LOOK_S * 1000) and self._process.exitcode is None:
            if until is not None and clock() >= until:
                return False
        self._reap()
        return True

    def _reap(self) -> None:
        """Learn the exit code of a process that has ended."""
        self.ended = True
        if self._method == "forkserver":
            wait_for_sentinel([self._process.sentinel], _LOOK_S)  # the server tells the code, just after the end
        code = self._process.exitcode
        if code is None:
            with starting(""):  # who starts a process asks for the codes of all: whoever was just asking knows it now
                pass
        for _ in range(_TAILS):
            if (code := self._process.exitcode) is not None:
                break
            time.sleep(_TAIL_S)  # another thread is just asking, or somebody else has reaped it and knows the code
        self.exitcode = code

    def close(self) -> None:
        """Let go of everything; the process has ended."""
        with starting(""):
            owned.difference_update(self._owned)
            self._owned.clear()
            self.recall.close()
            os.close(self._link)
            if self._pidfd is not None:
                os.close(self._pidfd)
            self.down.close()
            self.up.close()
            if self.exitcode is None and self._process._popen is not None:
                self._process._popen.returncode = 255  # somebody else has reaped it
            self._process.close()


class _Descriptor:
    """One of `owned`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        os.close(self.fd)


def _lent(fd: int) -> Connection:
    """A descriptor in the one form that every start method knows to hand on."""
    return Connection(os.dup(fd))


def _pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return None
