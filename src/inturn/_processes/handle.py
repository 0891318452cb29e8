"""The parent's side of one worker process: start it, send, receive, wait, end it.

All methods are for the slot's thread; `recall` may be used from anywhere. The parent waits only in
`_poll`: for a message, the end of the process, the end of the run, or a point in time.

A pidfd shows that the process has ended. The closing of a pipe would not: other processes may hold
copies of its ends. Where the system has no pidfds, the process's ``sentinel`` is used, which has
that fault, and a look at the process each second.

A process starts until its first message, which sets ``is_up`` or says why not. It works for the run
of the last `begin` or `Ask.USE`, until that is over: nothing is waited for after ``grace_until``.
"""

from __future__ import annotations

import enum
import os
import pickle
import select
import signal
import time
from collections import deque
from contextlib import ExitStack, closing, suppress
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from inturn._base.clock import clock
from inturn._base.events import LONG_S
from inturn._transport.pickling import Main, pack
from inturn._transport.shared_memory import Memory
from inturn._transport.wire import LENGTH, PipeEvent, frame, pidfd

from . import worker as _process_main
from .start import Setup, new_process, owned, starting
from .worker import Answer, Ask

__all__ = ["GRACE_S", "Event", "Handle"]

GRACE_S: Final = 0.5
"""Seconds for running items to end when the run is over; then their process is killed."""

_LOOK_S: Final = 1.0  # between two looks at a process that has no pidfd, in seconds
_READ: Final = 1 << 16  # bytes; for much larger blocks malloc calls mmap each time
_REAP_LOOKS: Final = 20  # at the exit code of a process that has ended
_REAP_LOOK_S: Final = 0.002


class Event(enum.Enum):
    """What can come instead of a message."""

    DIED = "the process has ended"
    OVER = "the run is over"
    LATE = "the time is over"


class Handle:
    """A worker process that has been started. The parent writes the memory ``down``, it writes ``up``."""

    def __init__(self, method: str, name: str, stop_event: PipeEvent, setup: Setup, main: Main) -> None:
        self._method = method
        self.main = main  # what it knows of the main module
        self.known: set[int] = set()  # the numbers of the runs whose `fn` it has
        self.unanswered: deque[int] = deque()  # those to whose `begin` it has not answered yet
        self.refusals: dict[int, Any] = {}  # why it could not take the `fn` of a run
        self.to_forget: deque[int] = deque()  # runs that are over; the slot that has the worker calls `forget`
        self.is_up = False  # its initializer has run
        self.serials = count(1)  # of its chunks
        self.tasks = 0  # items that were sent to it, and not handed back
        self.used = False  # it has begun an item
        self.grace_until: float | None = None  # when it is killed, since the run is over
        self.ended = False  # and was reaped
        self.exitcode: int | None = None  # None if it is not known
        self._stop_event: PipeEvent | None = None
        self._inbox: bytes | bytearray = b""  # received, but not yet returned by `wait`
        with starting(method), ExitStack() as undo:
            self._link, childs_link = map(undo.enter_context, Pipe())
            childs_control, control = map(undo.enter_context, Pipe(duplex=False))
            self.down = undo.enter_context(closing(Memory.create()))
            self.up = undo.enter_context(closing(Memory.create()))
            mine = {self._link, control, self.down, self.up}
            owned.update(mine)
            undo.callback(owned.difference_update, mine)
            # Copies, as the type that every start method can hand to a child.
            memories = [undo.enter_context(Connection(os.dup(each.fd))) for each in (self.down, self.up)]
            childs = [childs_link, childs_control, *memories]
            self._process = new_process(method, name, _process_main.main, (*childs, os.getpid(), setup))
            self._pidfd = pidfd(self._process.pid)
            for each in childs:
                each.close()
            undo.pop_all()
        self._control: Connection | None = control
        self._fd = self._link.fileno()
        os.set_blocking(self._fd, False)
        os.set_blocking(control.fileno(), False)
        self._end_fd = self._process.sentinel if self._pidfd is None else self._pidfd  # readable when it has ended
        self._poller = select.poll()
        self._poller.register(self._fd, select.POLLIN)
        self._poller.register(self._end_fd, select.POLLIN)
        self.attach(stop_event)

    # ---- runs ------------------------------------------------------------------------------------

    def attach(self, stop_event: PipeEvent) -> None:
        """A slot of a run has the worker."""
        self._stop_event = stop_event
        self._poller.register(stop_event.fd, select.POLLIN)

    def detach(self) -> None:
        """No run has the worker."""
        if self._stop_event is not None:
            self._poller.unregister(self._stop_event.fd)
            self._stop_event = None
        self.grace_until = None

    def begin_grace(self) -> None:
        """The run is over; from now on the stop event is ignored."""
        if self.grace_until is None:
            self.detach()
            self.grace_until = clock() + GRACE_S

    def begin(self, number: int, fn: bytes) -> None:
        """The next chunks are of this run; the worker will answer. If this cannot be sent, `wait` returns why."""
        memory: Memory | None = None
        if not self.unanswered:  # else it may have to read an earlier `fn` yet
            memory = self.down
            memory.clear()
        self.known.add(number)
        self.unanswered.append(number)
        self.send((0, Ask.BEGIN, (number, pack(fn, memory))))

    def forget(self) -> bool:
        """Have nothing stay in the worker of runs ``to_forget``; False if the worker has ended."""
        while self.to_forget:
            number = self.to_forget.popleft()
            self.refusals.pop(number, None)
            if number in self.known and not self.ended:
                self.known.discard(number)
                if self.send((0, Ask.FORGET, number), clock() + GRACE_S) is Event.LATE:
                    self.kill()  # it has half a message
        return not self.ended

    def recall(self, serial: int) -> None:
        """Ask for the items of a chunk that have not been started; from anywhere, and again."""
        control = self._control  # closed with the last reference, so never while a thread writes
        if control is not None:
            with suppress(OSError):  # the worker has ended, or the pipe is full of recalls
                os.write(control.fileno(), LENGTH.pack(serial))

    # ---- messages --------------------------------------------------------------------------------

    def send(self, message: Any, until: float | None = None) -> Event | None:
        """Send a message; None, or an event: it was sent nevertheless if that is `Event.OVER`.

        When the run ends meanwhile, sending goes on in the grace period: the worker could not read
        a message that was sent in part. If it is still in part then, the worker is killed.
        """
        data = memoryview(frame(pickle.dumps(message, pickle.HIGHEST_PROTOCOL)))
        sent = 0
        over: Event | None = None
        while sent < len(data):
            try:
                sent += os.write(self._fd, data[sent:])
            except BlockingIOError:
                self._poller.modify(self._fd, select.POLLOUT)
                try:
                    event = self._poll(until)
                finally:
                    self._poller.modify(self._fd, select.POLLIN)
                if event is Event.OVER:
                    self.begin_grace()
                    over = event
                elif event is not None:
                    if self.grace_until is not None:
                        self.kill()
                    return event
            except OSError:
                return self._broken()
        return over

    def wait(self, until: float | None = None) -> Any:
        """The next message, or an event; what was sent before the process ended comes first."""
        while True:
            message = self._message() if self._inbox else None
            if message is not None:
                if len(message) == 2 and message[0] in {Answer.READY, Answer.REFUSED}:
                    number = self.unanswered.popleft()
                    if message[0] == Answer.REFUSED and number in self.known:
                        self.known.discard(number)
                        self.refusals[number] = message[1]
                return message
            event = self._poll(until)
            if event is Event.OVER:
                return event
            try:
                data = os.read(self._fd, _READ)  # also after an event: a message may have come since
            except BlockingIOError:
                if event is not None:
                    return event
                continue
            except OSError:
                data = b""
            if not data:
                return self._broken()
            if type(self._inbox) is bytearray:
                self._inbox += data
            else:
                self._inbox = bytearray(self._inbox + data) if self._inbox else data

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

    def _poll(self, until: float | None) -> Event | None:
        """Wait in C; None if the link is ready."""
        if self.grace_until is not None:
            until = self.grace_until if until is None else min(until, self.grace_until)
        while True:
            left = None if until is None else min(max(0.0, until - clock()), LONG_S)
            if self._pidfd is None:
                left = _LOOK_S if left is None else min(left, _LOOK_S)
            ready = dict(self._poller.poll(None if left is None else left * 1000))
            if self._fd in ready:
                return None
            if self._end_fd in ready or (self._pidfd is None and self._process.exitcode is not None):
                self._reap()
                return Event.DIED
            if ready:
                return Event.OVER
            if until is not None and clock() >= until:
                return Event.LATE

    # ---- the end ---------------------------------------------------------------------------------

    def end(self) -> None:
        """Ask the process to end, kill it if it has not ended after the grace period, and close everything."""
        self.begin_grace()
        if not self.ended:
            said: Any = self.send((0, Ask.END, None))
            while not isinstance(said, Event):  # messages of a run that is over
                said = self.wait()
            if said is Event.LATE:
                self.kill()
        self.close()

    def kill(self) -> None:
        if not self.ended:
            with suppress(OSError):  # it has already ended
                if self._pidfd is None:
                    self._process.kill()
                else:
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            while not self._ends():
                pass

    def _broken(self) -> Event:
        """The worker's end is closed: the process is ending, or ``fn`` has closed it: then kill."""
        if not self.ended and not self._ends():
            self.kill()
        return Event.DIED

    def _ends(self) -> bool:
        """Wait for the end of the process for a while; whether it has come."""
        if not wait([self._end_fd], _LOOK_S) and self._process.exitcode is None:
            return False
        self._reap()
        return True

    def _reap(self) -> None:
        """Store the exit code of a process that has ended.

        Starting a process reaps all children: of two threads that read an exit code at once, one may
        find nothing, so it is read within `starting`. Other code may have reaped the process, and store
        its exit code a moment later: we look again. If it is not `multiprocessing`, it stays unknown.
        """
        self.ended = True
        if self._method == "forkserver":
            wait([self._process.sentinel], _LOOK_S)  # the server sends the code just after the end
        for _ in range(_REAP_LOOKS):
            with starting():
                self.exitcode = self._process.exitcode
            if self.exitcode is not None:
                break
            time.sleep(_REAP_LOOK_S)

    def close(self) -> None:
        """Close everything; the process has ended."""
        with starting():
            owned.difference_update((self._link, self._control, self.down, self.up))
            self._control = None
            self._link.close()
            if self._pidfd is not None:
                os.close(self._pidfd)
            self.down.close()
            self.up.close()
            if self.exitcode is None and self._process._popen is not None:
                self._process._popen.returncode = 255  # other code has reaped it
            self._process.close()
