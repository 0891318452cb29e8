"""The parent's side of one worker process: start it, send, receive, wait, end it.

All methods are for the slot's thread; `recall` may be used from anywhere. The parent waits only in
`_poll`: for a message, the end of the process, the end of the run, or a point in time,
whichever is first.

Where the system has pidfds, a pidfd shows that the process has ended. The closing of a pipe would
not: other child processes may hold copies of its ends, and so may children of the worker. Elsewhere
the process's ``sentinel`` is used, which has that fault, and a look at the process each second.

======== ========================= ===============================================================
process  condition                 left by
======== ========================= ===============================================================
starting (known to `pool` only)    its first message, which says that it is up, or why not
up       not ``ended``             `end`; `kill`; its death. It works for the run that it was
                                   told with `begin` or `use`
ended    ``ended``: reaped,        `close`
         ``exitcode`` is final
======== ========================= ===============================================================
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
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_sentinel
from typing import Any, Final

from inturn._base.clock import clock
from inturn._base.events import LONG_S
from inturn._transport.pickling import Main, pack
from inturn._transport.shared_memory import Memory
from inturn._transport.wire import LENGTH, End, PipeEvent, Recall, frame

from . import worker as _process_main
from .setup import Setup
from .start import new_process, owned, starting
from .worker import BEGIN, END, FORGET, READY, REFUSED, USE

__all__ = ["GRACE_S", "Event", "Handle"]

GRACE_S: Final = 0.5
"""Seconds for running items to end when the run is over; then their process is killed."""

_LOOK_S: Final = 1.0  # between two looks at a process that has no pidfd, in seconds
_READ: Final = 1 << 16  # bytes; for much larger blocks malloc calls mmap each time
_ANSWERS: Final = frozenset({READY, REFUSED})
_REAP_LOOKS: Final = 20  # at the exit code of a process that has ended
_REAP_LOOK_S: Final = 0.002


class Event(enum.Enum):
    """What can come instead of a message."""

    DIED = "the process has ended"
    OVER = "the run is over"
    LATE = "the time is over"


class Handle:
    """A worker process that has been started.

    Args:
        method: The start method, as `multiprocessing` names it.
        name: Of the process.
        stop_event: Is set when the run is over.
        setup: What the process does first and last.
        main: What it knows of the main module.

    Attributes:
        known: The numbers of the runs whose ``fn`` it has.
        to_forget: Those that are over; the slot that has the worker sends `FORGET`.
        is_up: Whether its initializer has run.
        awaited: The number of the run whose answer to `begin` is returned by `wait`; other answers are only kept.
        refusals: Why the worker could not take the ``fn`` of a run (packed): it hands back all chunks of that run.
        down: The memory that the parent writes.
        up: The memory that the worker writes.
        recall: Asks the worker to hand back what it has not started; from anywhere.
        ended: Whether the process has ended and was reaped.
        exitcode: The exit code of a process that has ended; None if it is not known.
        tasks: How many items were sent to it (and not handed back).
        used: Whether it has begun an item.

    Raises:
        OSError: The system refuses another process, descriptor or more memory.
    """

    def __init__(self, method: str, name: str, stop_event: PipeEvent, setup: Setup, main: Main) -> None:
        self._method = method
        self.main = main
        self.known: set[int] = set()
        self.to_forget: deque[int] = deque()
        self.is_up = False
        self.awaited = 0
        self.refusals: dict[int, Any] = {}
        self._unanswered: deque[int] = deque()
        self._stop_event: PipeEvent | None = stop_event
        self._inbox: bytes | bytearray = b""  # received, but not yet returned by `wait`
        self._serial = 0
        self.ended = False
        self.exitcode: int | None = None
        self.tasks = 0
        self.used = False
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
        self._end_fd = self._process.sentinel if self._pidfd is None else self._pidfd  # readable when it has ended
        self._poller = select.poll()
        self._poller.register(self._link, select.POLLIN)
        self._poller.register(self._end_fd, select.POLLIN)
        self._poller.register(stop_event.fd, select.POLLIN)

    def _abort(self) -> None:
        self._process.kill()
        self._process.join()
        self._process.close()

    def next_serial(self) -> int:
        """The number of the next chunk; the worker's first is 1."""
        self._serial += 1
        return self._serial

    # ---- runs ------------------------------------------------------------------------------------

    def attach(self, stop_event: PipeEvent) -> None:
        """A slot of another run has the worker; its stop event is the run's."""
        self._stop_event = stop_event
        self._poller.register(stop_event.fd, select.POLLIN)

    def use(self, number: int) -> None:
        """The next chunks are of this run, whose ``fn`` the worker has."""
        self.send((0, USE, number))

    def begin(self, number: int, fn: bytes) -> None:
        """The next chunks are of this run; the worker will answer. If this cannot be sent, `wait` returns why."""
        memory: Memory | None = None
        if not self._unanswered:  # else it may have to read an earlier `fn` yet
            memory = self.down
            memory.clear()
        self.known.add(number)
        self._unanswered.append(number)
        if self.send((0, BEGIN, (number, pack(fn, memory)))) is Event.LATE:
            self.kill()  # the run is over, and it has half a message

    def owes_an_answer(self) -> bool:
        """Whether it has to wait before it gets a chunk: for the worker to be up, or to have the ``fn`` awaited."""
        return not self.is_up or self.awaited in self._unanswered

    def shrink(self) -> None:
        """Give the shared memory back, unless the worker may have to read it yet."""
        if not self._unanswered:
            self.down.shrink()

    def forget(self, number: int) -> bool:
        """The run is over, and nothing of it stays in the worker; False if the worker has ended."""
        self.refusals.pop(number, None)
        if number in self.known and not self.ended:
            self.known.discard(number)
            if self.send((0, FORGET, number), clock() + GRACE_S) is Event.LATE:
                self.kill()  # it has half a message
        return not self.ended

    def forget_all(self) -> bool:
        while self.to_forget:
            self.forget(self.to_forget.popleft())
        return not self.ended

    # ---- messages --------------------------------------------------------------------------------

    def send(self, message: Any, until: float | None = None) -> Event | None:
        """Send a message; None, or an event if it was not sent.

        When the run ends meanwhile, sending goes on for at most the grace period: the worker could
        not read a message that was sent in part.
        """
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
                    self.ignore_stop()
                    at = clock() + GRACE_S
                    until = at if until is None else min(until, at)
                elif event is not None:
                    return event
            except OSError:
                return self._broken()
        return None

    def wait(self, until: float | None = None) -> Any:
        """The next message, or an event; what was sent before the process ended comes first."""
        while True:
            message = self._message() if self._inbox else None
            if message is not None:
                if len(message) > 2 or message[0] not in _ANSWERS or self._answered(*message) == self.awaited:
                    return message
                continue
            event = self._poll(until)
            if event is Event.OVER:
                return event
            received = self._fill()  # also after an event: a message may have come since
            if received is True:
                continue
            if received is None:
                return self._broken()
            if event is not None:
                return event

    def _answered(self, what: str, packed: Any) -> int:
        number = self._unanswered.popleft()
        if what == REFUSED and number in self.known:
            self.known.discard(number)
            self.refusals[number] = packed
        return number

    def _message(self) -> Any:
        """The first message, if all of it was received."""
        inbox = self._inbox
        if len(inbox) < LENGTH.size:
            return None
        whole = LENGTH.unpack_from(inbox)[0] + LENGTH.size
        if len(inbox) < whole:
            return None
        self._inbox = inbox[whole:] if len(inbox) > whole else b""
        with memoryview(inbox) as view:
            return pickle.loads(view[LENGTH.size : whole])

    def _fill(self) -> bool | None:
        """Read without waiting: True if bytes came, False if none did, None if it is closed."""
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
            left = None if until is None else min(max(0.0, until - clock()), LONG_S)
            if self._pidfd is None:
                left = _LOOK_S if left is None else min(left, _LOOK_S)
            ready = dict(self._poller.poll(None if left is None else left * 1000))
            if self._link in ready:
                return None
            if self._end_fd in ready or (self._pidfd is None and self._process.exitcode is not None):
                self._reap()
                return Event.DIED
            if ready:
                return Event.OVER
            if until is not None and clock() >= until:
                return Event.LATE

    # ---- the end ---------------------------------------------------------------------------------

    @property
    def ignores_stop(self) -> bool:
        return self._stop_event is None

    def ignore_stop(self) -> None:
        """Ignore further stop notifications."""
        if self._stop_event is not None:
            self._poller.unregister(self._stop_event.fd)
            self._stop_event = None

    def end(self, until: float) -> None:
        """Ask the process to end, kill it if it has not ended in time, and close everything."""
        self.ignore_stop()
        if not self.ended:
            said: Any = self.send((0, END, None), until)
            while not isinstance(said, Event):  # messages of a run that is over
                said = self.wait(until)
            if said is Event.LATE:
                self.kill()
        self.close()

    def kill_and_drain(self) -> Iterator[Any]:
        """Kill the process; yield the messages that it had sent before."""
        self.kill()
        while not isinstance(said := self.wait(), Event):
            yield said

    def kill(self) -> None:
        if not self.ended:
            try:
                if self._pidfd is None:
                    self._process.kill()
                else:
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except OSError:
                pass  # it has already ended
            self._await_end(None)

    def _broken(self) -> Event:
        """The worker's end is closed: the process is ending, or ``fn`` has closed it: then kill."""
        if not self.ended and not self._await_end(clock() + _LOOK_S):
            self.kill()
        return Event.DIED

    def _await_end(self, until: float | None) -> bool:
        poller = select.poll()
        poller.register(self._end_fd, select.POLLIN)
        while not poller.poll(_LOOK_S * 1000) and self._process.exitcode is None:
            if until is not None and clock() >= until:
                return False
        self._reap()
        return True

    def _reap(self) -> None:
        """Store the exit code of a process that has ended.

        `multiprocessing` reaps a child where any code asks for its state, also in another thread:
        that thread has the exit code then, and stores it a moment later. Starting a process reaps
        all children; taking the lock of `starting` waits until such a reap has stored our exit
        code. For other code that reaps we look again for `_REAP_LOOKS` times. If that was not
        `multiprocessing`, the exit code stays unknown.
        """
        self.ended = True
        if self._method == "forkserver":
            wait_for_sentinel([self._process.sentinel], _LOOK_S)  # the server sends the code just after the end
        code = self._process.exitcode
        if code is None:
            with starting(""):
                pass
        for _ in range(_REAP_LOOKS):
            if (code := self._process.exitcode) is not None:
                break
            time.sleep(_REAP_LOOK_S)
        self.exitcode = code

    def close(self) -> None:
        """Close everything; the process has ended."""
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
                self._process._popen.returncode = 255  # other code has reaped it
            self._process.close()


class _Descriptor:
    """A member of `owned`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        os.close(self.fd)


def _lent(fd: int) -> Connection:
    """A copy of a descriptor, as the type that every start method can hand to a child."""
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
