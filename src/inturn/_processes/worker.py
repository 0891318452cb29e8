"""What runs in a worker process.

It has two threads. The *main* thread receives a chunk, runs its items one after the other and
reports outcomes. The *helper* sleeps in ``poll`` until the parent has ended, or recalls what has
not been started.

======== =================================== ===================================================
chunk    condition                           left by
======== =================================== ===================================================
none     ``_serial`` is 0                    a message, which the main thread receives
running  ``_serial`` is its number           its last item; then the main thread reports
recalled besides ``_serial <= _recalled``    the same; the helper has reported what was complete
======== =================================== ===================================================

`_lock` is held while a report is sent. Both threads take from ``_todo``, each item once.

``numbers[0]`` of the worker's memory is the position of the item that was begun last. It is set
before the item is unpickled, and still stands while its result is pickled: if the process dies at
any of these stages, the parent knows which item to blame. It becomes 0 as soon as a chunk begins to
arrive; the parent sets it to -1 before it sends one.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Final

from inturn._base.atomic import remainder_of, taking
from inturn._base.clock import clock
from inturn._core.nesting import enclosing
from inturn._model.outcome import detach
from inturn._model.threads import finalize
from inturn._transport import wire
from inturn._transport.pickling import ATOMS, LARGE, PROTOCOL, note_result, note_unread, pack, pack_error, unpack
from inturn._transport.shared_memory import Memory

__all__ = ["SLICE_S", "Answer", "Ask", "ignore_interrupts", "main"]


class Ask:
    """What a message to a worker is: a serial number, one of these, and what belongs to it."""

    # Without a serial number (0).
    END: Final = 0  # the worker is to end
    BEGIN: Final = 1  # the number of a run and its packed `fn`; the next chunks are of this run
    USE: Final = 2  # the number of a run that has begun: the next chunks are of this run
    FORGET: Final = 3  # the number of a run that is over

    # Chunks, and when the worker reports besides at the end and when recalled.
    ALONE: Final = 0  # a chunk of one: never
    PACED: Final = 1  # between two items, when a time slice has passed since the last report
    EACH: Final = 2  # after every item

    # Flat maps: see `flat_worker`.
    STREAM: Final = 3  # an item, and its first credits
    CREDIT: Final = 4  # further credits, or None when the run is over; and how many elements were received


class Answer:
    """How a worker answers: to its start (or with the error of that), and to `Ask.BEGIN`."""

    UP: Final = "up"
    UNREAD: Final = "initializer unread"
    FAILED: Final = "initializer failed"
    READY: Final = "ready"
    REFUSED: Final = "fn refused"


SLICE_S: Final = 0.0085
"""The time slice of a chunk in seconds: what is not started then is taken back, what is complete is reported."""

_SWITCH_S: Final = 0.001  # the helper waits so long for the GIL: slice and switch are to be less than 10 ms
_FAULT: Final = 70  # the exit code of a worker that failed outside of any item, as in sysexits.h
_LOOK_MS: Final = 1000  # between two looks at the parent


def ignore_interrupts() -> None:
    """Let SIGINT have no effect in this process (guarantee 14): the parent handles Ctrl-C.

    The handler is a function that does nothing, not ``SIG_IGN``: programs that the worker starts
    would inherit ``SIG_IGN``, and Ctrl-C would not end them. A handler is not inherited.
    """
    signal.set_wakeup_fd(-1)  # a forked worker would wake the parent's event loop by its own signals
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.siginterrupt(signal.SIGINT, False)  # system calls are restarted
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def main(link: Any, control: Any, down: Any, up: Any, parent: int, setup: Any) -> None:
    """The target of the process; the pipes and memories are connections, which can be handed to it.

    Recalls come through `control`, all else through `link`. The parent writes `down`, the worker `up`.
    """
    ignore_interrupts()
    enclosing.set(())
    try:
        _Worker(link.fileno(), control.fileno(), Memory(down.fileno()), Memory(up.fileno()), parent).serve(setup)
    except (EOFError, OSError):
        os._exit(1)  # the parent has ended, or has closed its side
    except BaseException:  # above all MemoryError outside of any item; the exit code shows it
        os._exit(_FAULT)


_Run = tuple[Callable[[Any], Any], Context]
"""What the worker has of one run: its ``fn``, and the context in which that is called."""


class _Worker:
    def __init__(self, link: int, control: int, down: Memory, up: Memory, parent: int) -> None:
        self._link = link
        self._control = control
        self._down = down
        self._up = up
        self._parent = parent
        self._lock = threading.Lock()
        self._serial = 0
        self._recalled = 0
        self._todo: Any = iter(())
        self._out: list[Any] = []
        self._reported = 0  # how many outcomes of `_out` were sent
        self._begun = self._reported_at = 0.0
        self._finalizer: Callable[[], object] | None = None
        self._runs: dict[int, _Run] = {}  # by the number of the run

    # ---- the main thread -------------------------------------------------------------------------

    def serve(self, setup: Any) -> None:
        os.register_at_fork(after_in_child=self._forked)
        sys.setswitchinterval(_SWITCH_S)
        threading.Thread(target=self._listen, name="inturn-helper", daemon=True).start()
        if not self._prepare(setup):
            return
        del setup
        numbers, link = self._up.numbers, self._link
        run: _Run | None = None
        streams: Any = None
        while True:
            size = wire.receive(link)
            numbers[0] = 0
            serial, how, items = pickle.loads(wire.read(link, size))  # from our parent
            if not serial:
                numbers[0] = -1
                if how == Ask.END:
                    finalize(self._finalizer)
                    return
                run = self._switch(how, items, run)
            elif how == Ask.CREDIT:
                numbers[0] = -1  # credits for a stream that has ended: nothing is begun
            elif run is None:  # its fn could not be unpickled: hand all items back
                numbers[0] = -1
                with self._lock:
                    wire.send(link, pickle.dumps(([], True, True, len(items), 0.0), PROTOCOL))
            elif how == Ask.STREAM:
                if streams is None:
                    from .flat_worker import Streams  # here, so that workers start sooner

                    streams = Streams(self)
                run[1].run(streams.run, run[0], serial, items)
            else:
                run[1].run(self._run, run[0], serial, how, items)
            del items

    def _prepare(self, setup: Any) -> bool:
        """Run the initializer; False if that fails: the parent receives the error (guarantee 25)."""
        what = Answer.UNREAD
        try:
            initializer, initargs, self._finalizer = setup()
            what = Answer.FAILED
            if initializer is not None:
                initializer(*initargs)
        except BaseException as error:  # it is sent to the parent
            if what == Answer.UNREAD:
                note_unread(error, "the initializer could not be unpickled in a worker process")
            self._answer(what, error)
            return False
        self._answer(Answer.UP)
        return True

    def _switch(self, how: int, what: Any, run: _Run | None) -> _Run | None:
        """Begin, use or forget a run; the run that the next chunks belong to."""
        runs = self._runs
        if how == Ask.FORGET:
            if runs.pop(what, None) is not run:
                return run
            self._up.shrink()
            return None
        if how == Ask.USE:
            return runs[what]
        number, packed = what
        try:
            fn = pickle.loads(unpack(packed, self._down))
        except BaseException as error:  # it is sent to the parent
            self._answer(Answer.REFUSED, note_unread(error, "fn could not be unpickled in a worker process"))
            return None
        runs[number] = run = (fn, copy_context())
        self._answer(Answer.READY)
        return run

    def _answer(self, what: str, error: BaseException | None = None) -> None:
        packed = None if error is None else pack_error(detach(error))
        wire.send(self._link, pickle.dumps((what, packed), PROTOCOL))

    def _run(self, fn: Callable[[Any], Any], serial: int, how: int, items: list[Any]) -> None:
        out: list[Any] = []
        todo = taking(items)
        self._up.clear()
        with self._lock:
            self._serial, self._todo, self._out, self._reported = serial, todo, out, 0
            remainder = len(remainder_of(todo)) if serial <= self._recalled else 0
        numbers, append, each = self._up.numbers, out.append, Ask.EACH
        mark = self._begun = self._reported_at = clock()
        for position, item in enumerate(todo):
            numbers[0] = position
            try:
                if type(item) is tuple:
                    item = self._unpack(item)
                result = fn(item)
                kind = type(result)
                if kind in ATOMS and ((kind is not bytes and kind is not str) or len(result) < LARGE):
                    append(result)
                else:
                    append(self._pack(result))
            except BaseException as error:  # it is raised in the consumer
                now = clock()
                append((pack_error(detach(error)), now - mark, None))
                mark = now
            if how and (how == each or clock() - self._reported_at > SLICE_S):
                mark = clock()
                with self._lock:
                    self._report(done=False, remainder=0)
        with self._lock:
            self._report(done=True, remainder=remainder)
            self._serial, self._todo, self._out = 0, iter(()), []

    def _unpack(self, packed: tuple[Any, ...]) -> Any:
        if not packed:
            raise pickle.PicklingError("the item could not be pickled")  # the parent has the real error
        try:
            return unpack(packed, self._down)
        except Exception as error:
            note_unread(error, "the item could not be unpickled in the worker process")
            raise

    def _pack(self, result: Any) -> tuple[Any, ...]:
        try:
            return pack(result, self._up)
        except Exception as error:
            note_result(error, result)
            raise

    def _forked(self) -> None:
        """In a child that ``fn`` forks: if ``fn`` returns there, run no item and send nothing."""
        remainder_of(self._todo)
        self._up.fill()
        self._lock = threading.Lock()
        for fd in (self._link, self._control):
            with suppress(OSError):  # closed before: this is a child's child
                os.close(fd)
        self._link = self._control = -1  # using it raises OSError, which ends the child in `main`

    # ---- either thread ---------------------------------------------------------------------------

    def _report(self, *, done: bool, remainder: int) -> None:
        """Send the outcomes that were not sent before; the lock is held."""
        batch = self._out[self._reported :] if self._reported else self._out[:]
        self._reported += len(batch)
        self._reported_at = clock()
        plain = ATOMS.issuperset(map(type, batch))
        seconds = self._reported_at - self._begun
        wire.send(self._link, pickle.dumps((batch, plain, done, remainder, seconds), PROTOCOL))

    # ---- the helper ------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Wait for recalls, and for the end of the parent (guarantee 27); without a pidfd, look each second."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        watched = wire.pidfd(self._parent)
        if watched is not None:
            poller.register(watched, select.POLLIN)
        while True:
            ready = dict(poller.poll(_LOOK_MS if watched is None else None))
            if watched in ready:
                os._exit(1)
            try:
                if watched is None:
                    with suppress(PermissionError):  # which a process that lives may raise
                        os.kill(self._parent, 0)
                if self._control in ready:
                    data = os.read(self._control, 4096)
                    self._recall(max(each for (each,) in wire.LENGTH.iter_unpack(data)))
            except (OSError, ValueError):  # the parent has ended or closed its end (no data), or fn ours
                os._exit(1)

    def _recall(self, serial: int) -> None:
        """Hand back what has not been started, and report what is complete (guarantee 26)."""
        with self._lock:
            self._recalled = max(self._recalled, serial)
            if self._serial and self._serial <= serial:
                self._report(done=False, remainder=len(remainder_of(self._todo)))
