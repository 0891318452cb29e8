"""What runs in a worker process.

It has two threads. The *main* thread receives a chunk, runs its items one after the other and
reports outcomes. The *helper* sleeps in ``poll`` until the parent has ended, or recalls what has
not been started.

========= ============================== =====================================================
chunk     condition                      left by
========= ============================== =====================================================
none      ``_serial`` is 0               a message, which the main thread receives
running   ``_serial`` is its number      its last item; then the main thread reports
recalled  besides ``_serial <=           the same; the helper has reported what was complete
          _recalled``
========= ============================== =====================================================

`_lock` is held while a report is sent: the main thread takes it once per report, not once per item.
Both threads take from ``_todo``, and each item is taken exactly once.

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
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

from inturn._base.atomic import remainder_of, taking
from inturn._base.clock import clock
from inturn._core.job import enclosing
from inturn._model.outcome import detach
from inturn._model.threads import finalize
from inturn._transport import wire
from inturn._transport.pickling import ATOMS, LARGE, PROTOCOL, note_result, note_unread, pack, pack_error, unpack
from inturn._transport.shared_memory import Memory

if TYPE_CHECKING:
    from .flat_worker import Streams

__all__ = [
    "ALONE",
    "BEGIN",
    "CREDIT",
    "EACH",
    "END",
    "FORGET",
    "PACED",
    "READY",
    "REFUSED",
    "SLICE_S",
    "STREAM",
    "UP",
    "USE",
    "ignore_interrupts",
    "main",
]

# What a message without a serial number is.
END: Final = 0  # the worker is to end
BEGIN: Final = 1  # the number of a run and its packed `fn`; the next chunks are of this run
USE: Final = 2  # the number of a run that has begun: the next chunks are of this run
FORGET: Final = 3  # the number of a run that is over

# How the worker answers: to its start (or the error of the initializer, or of reading it), and to `BEGIN`.
UP: Final = "up"
READY: Final = "ready"
REFUSED: Final = "fn refused"

# What a message with a serial number is; for chunks, when the worker reports besides at the end and when recalled.
ALONE: Final = 0  # a chunk of one: never
PACED: Final = 1  # a chunk: between two items, when a time slice has passed since the last report
EACH: Final = 2  # a chunk: after every item
STREAM: Final = 3  # an item of a flat map, and its first credits: see `flat_worker`
CREDIT: Final = 4  # further credits, or None when the run is over; and how many elements were received

SLICE_S: Final = 0.008
"""The time slice of a chunk in seconds: what is not started then is taken back, what is complete is reported."""

_SWITCH_S: Final = 0.001  # the helper waits so long for the GIL: slice and switch are to be less than 10 ms
_FAULT: Final = 70  # the exit code of a worker that failed outside of any item, as in sysexits.h
_LOOK_MS: Final = 1000  # between two looks at the parent, where there is no pidfd


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
    """The target of the process.

    Args:
        link: The connection for chunks and outcomes. It and the next three are connections because
            every start method can hand those to a child.
        control: The pipe for recalls.
        down: The memory that the parent writes.
        up: The memory that the worker writes.
        parent: The parent's process id.
        setup: A `Setup`, or what it is unpickled as.
    """
    ignore_interrupts()
    enclosing.set(())
    try:
        _Worker(link.fileno(), control.fileno(), Memory(down.fileno()), Memory(up.fileno()), parent).serve(setup)
    except (EOFError, OSError):
        os._exit(1)  # the parent has ended, or has closed its side
    except BaseException:  # above all MemoryError outside of any item; the exit code shows it
        os._exit(_FAULT)


class _Assignment:
    """What the worker has of one run."""

    __slots__ = ("context", "fn")

    def __init__(self, fn: Callable[[Any], Any] | None) -> None:
        self.fn: Any = fn
        self.context: Context = copy_context()


_NO_RUN: Final = _Assignment(None)


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
        self._streams: Streams | None = None
        self._finalizer: Callable[[], object] | None = None
        self._runs: dict[int, _Assignment] = {}  # by the number of the run

    # ---- the main thread -------------------------------------------------------------------------

    def serve(self, setup: Any) -> None:
        os.register_at_fork(after_in_child=self._forked)
        sys.setswitchinterval(_SWITCH_S)
        threading.Thread(target=self._listen, name="inturn-helper", daemon=True).start()
        if not self._prepare(setup):
            return
        del setup
        numbers, link = self._up.numbers, self._link
        run = _NO_RUN
        while True:
            size = wire.receive(link)
            numbers[0] = 0
            serial, how, items = pickle.loads(wire.read(link, size))  # from our parent
            if not serial:
                numbers[0] = -1
                if how == END:
                    finalize(self._finalizer)
                    return
                run = self._switch(how, items, run)
            elif how == CREDIT:
                numbers[0] = -1  # credits for a stream that has ended: nothing is begun
            elif how == STREAM:
                run.context.run(self._stream, run.fn, serial, items)
            elif run is _NO_RUN:  # its fn could not be unpickled
                numbers[0] = -1
                self._hand_back(len(items))
            else:
                run.context.run(self._run, run.fn, serial, how, items)
            del items

    def _prepare(self, setup: Any) -> bool:
        """Run the initializer; False if that fails.

        Guarantee 25: the parent receives the error.
        """
        what = "unread"
        try:
            initializer, initargs, self._finalizer = setup.load()
            if initializer is not None:
                what = "initializer"
                initializer(*initargs)
        except BaseException as error:  # it is sent to the parent
            if what == "unread":
                note_unread(error, "the initializer could not be unpickled in a worker process")
            self._answer(what, error)
            return False
        self._answer(UP)
        return True

    def _switch(self, how: int, what: Any, run: _Assignment) -> _Assignment:
        """Begin, use or forget a run; the run that the next chunks belong to."""
        runs = self._runs
        if how == FORGET:
            if runs.pop(what, None) is not run:
                return run
            self._up.shrink()
            return _NO_RUN
        if how == USE:
            return runs[what]
        number, packed = what
        try:
            fn = pickle.loads(unpack(packed, self._down))
        except BaseException as error:  # it is sent to the parent
            self._answer(REFUSED, note_unread(error, "fn could not be unpickled in a worker process"))
            return _NO_RUN
        runs[number] = run = _Assignment(fn)
        self._answer(READY)
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
        numbers, append = self._up.numbers, out.append
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
            if how and (how == EACH or clock() - self._reported_at > SLICE_S):
                mark = clock()
                with self._lock:
                    self._report(done=False, remainder=0)
        with self._lock:
            self._report(done=True, remainder=remainder)
            self._serial, self._todo, self._out = 0, iter(()), []

    def _stream(self, fn: Callable[[Any], Any], serial: int, load: tuple[Any, int]) -> None:
        if self._streams is None:
            from .flat_worker import Streams

            self._streams = Streams(self)
        self._streams.run(fn, serial, load)

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
            try:
                os.close(fd)
            except OSError:
                pass  # closed before: this is a child's child
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

    def _hand_back(self, items: int) -> None:
        with self._lock:
            wire.send(self._link, pickle.dumps(([], True, True, items, 0.0), PROTOCOL))

    # ---- the helper ------------------------------------------------------------------------------

    def _listen(self) -> None:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        watched, look_ms = self._watch_parent(), None
        if watched is None:
            look_ms = _LOOK_MS
        else:
            poller.register(watched, select.POLLIN)
        while True:
            ready = dict(poller.poll(look_ms))
            if watched in ready or (watched is None and not self._parent_lives()):
                os._exit(1)
            if self._control in ready:
                try:
                    data = os.read(self._control, 4096)
                    if not data:
                        os._exit(1)  # the parent has closed its end
                    self._recall(max(each for (each,) in wire.LENGTH.iter_unpack(data)))
                except OSError:  # fn has closed our end
                    os._exit(1)

    def _recall(self, serial: int) -> None:
        """Hand back what has not been started, and report what is complete (guarantee 26)."""
        with self._lock:
            self._recalled = max(self._recalled, serial)
            if self._serial and self._serial <= serial:
                self._report(done=False, remainder=len(remainder_of(self._todo)))

    def _watch_parent(self) -> int | None:
        """A descriptor that is readable when the parent has ended (guarantee 27).

        None where there is none: then `_listen` looks at the parent each second.
        """
        if not hasattr(os, "pidfd_open"):
            return None
        try:
            return os.pidfd_open(self._parent)
        except ProcessLookupError:
            os._exit(1)
        except OSError:
            return None

    def _parent_lives(self) -> bool:
        try:
            os.kill(self._parent, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return True
