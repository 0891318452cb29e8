"""What runs in a worker process.

Two threads share it. The *main* thread receives a chunk, runs its items one after the other and reports. The *helper*
rests in ``poll`` until the parent recalls what has not been started, or is gone.

========== =============================================== ==================================================
chunk      how it is told                                  left by
========== =============================================== ==================================================
none       ``_serial`` is 0                                a message, received by the main thread
running    ``_serial`` is its number                       its last item; the main thread then reports
recalled   besides, ``_serial <= _recalled``               the same; the helper has reported what there was
========== =============================================== ==================================================

`_lock` is held while reporting, so the main thread takes it once per report and not once per item. Main thread and
helper both take from ``_todo``, each item exactly once.

The counter, ``numbers[0]`` of the worker's memory, is the position of the item that was begun last: it is set before
the item is unpickled and still stands while its result is pickled, so if the process dies the parent knows whom to
blame. It becomes 0 as soon as a chunk begins to arrive, and the parent makes it -1 before it sends one.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import threading
from collections.abc import Callable
from time import perf_counter as clock
from typing import TYPE_CHECKING, Any, Final

from inturn._base.atomic import remainder_of, taking
from inturn._core.job import enclosing
from inturn._engine.window import SLICE_S
from inturn._model.outcome import detach
from inturn._model.threads import finalize
from inturn._transport import wire
from inturn._transport.pickling import ATOMS, LARGE, PROTOCOL, note_result, note_unread, pack, pack_error, unpack
from inturn._transport.shared_memory import Memory

if TYPE_CHECKING:
    from .flat_worker import Streams

__all__ = ["ALONE", "CREDIT", "EACH", "PACED", "STREAM", "ignore_interrupts", "main"]

ALONE: Final = 0  # a chunk of one: its outcome is reported
PACED: Final = (
    1  # outcomes are reported at the end, when recalled, and between two items a time slice after the last report
)
EACH: Final = 2  # besides, after every item
STREAM: Final = 3  # an item of a flat map and how many elements it may produce: see `flat_worker`
CREDIT: Final = 4  # how many more, or None when the run is over; and how many have arrived

_FAULT: Final = 70  # the exit code of a worker that failed by itself, as in sysexits.h
_LOOK_MS: Final = 1000  # between two looks at the parent, where its end cannot be waited for


def ignore_interrupts() -> None:
    """Ctrl-C is the parent's affair, and signals of the worker's are not (guarantee 14).

    A handler that does nothing, since programs that the worker starts would inherit that a signal is ignored: Ctrl-C
    would not end them. A handler, the system takes from them.
    """
    signal.set_wakeup_fd(-1)  # a forked worker would wake the parent's event loop, for a signal that was sent to itself
    signal.signal(signal.SIGINT, _do_nothing)
    signal.siginterrupt(signal.SIGINT, False)  # what the worker is doing in C goes on
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _do_nothing(number: int, frame: object) -> None:
    pass


def main(link: Any, control: Any, down: Any, up: Any, parent: int, setup: Any) -> None:
    """The target of the process.

    Args:
        link: The connection that chunks and outcomes go through. This and the next three carry descriptors, in the one
            form that every start method knows to hand on.
        control: The pipe that recalls come through.
        down: The memory that the parent writes.
        up: The memory that the worker writes.
        parent: The parent's process id.
        setup: A `Setup`, or what it became on its way.
    """
    ignore_interrupts()
    enclosing.set(())
    try:
        _Worker(link.fileno(), control.fileno(), Memory(down.fileno()), Memory(up.fileno()), parent).serve(setup)
    except (EOFError, OSError):
        os._exit(1)  # the parent is gone, or has no more use for us
    except BaseException:  # out of memory outside of any item, above all; it is told by the exit code
        os._exit(_FAULT)


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
        self._reported = 0  # how many of `_out`
        self._begun = self._reported_at = 0.0
        self._streams: Streams | None = None

    # ---- the main thread -------------------------------------------------------------------------

    def serve(self, setup: Any) -> None:
        os.register_at_fork(after_in_child=self._forked)
        threading.Thread(target=self._listen, name="inturn-helper", daemon=True).start()
        ready = self._prepare(setup)
        if ready is None:
            return
        fn, finalizer = ready
        del setup, ready
        numbers, link = self._up.numbers, self._link
        while True:
            size = wire.receive(link)
            numbers[0] = 0
            serial, how, items = pickle.loads(wire.read(link, size))  # from our parent
            if not serial:
                finalize(finalizer)
                return
            if how == CREDIT:
                numbers[0] = -1  # too late for a stream that has ended; nothing has begun
            elif how == STREAM:
                self._stream(fn, serial, items)
            else:
                self._run(fn, serial, how, items)
            del items

    def _prepare(self, setup: Any) -> tuple[Callable[[Any], Any], Callable[[], object] | None] | None:
        """Run the initializer and receive the function; None if either fails, which the parent is told."""
        what = "unread"
        reading = "the initializer"
        try:
            initializer, initargs, finalizer = setup.load()
            if initializer is not None:
                what = "initializer"
                initializer(*initargs)
            what, reading = "unread", "fn"
            hello = pickle.loads(wire.read(self._link, wire.receive(self._link)))
            fn = pickle.loads(unpack(hello, self._down))
        except (EOFError, BrokenPipeError):
            raise
        except BaseException as error:  # it travels to the parent
            if what == "unread":
                note_unread(error, f"{reading} could not be unpickled in a worker process")
            wire.send(self._link, pickle.dumps((what, pack_error(detach(error))), PROTOCOL))
            return None
        wire.send(self._link, pickle.dumps(("up", None), PROTOCOL))
        return fn, finalizer

    def _run(self, fn: Callable[[Any], Any], serial: int, how: int, items: list[Any]) -> None:
        out: list[Any] = []
        todo = taking(items)
        self._up.clear()
        with self._lock:
            self._serial, self._todo, self._out, self._reported = serial, todo, out, 0
            rest = len(remainder_of(todo)) if serial <= self._recalled else 0
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
            except BaseException as error:  # it travels to the consumer
                now = clock()
                append((pack_error(detach(error)), now - mark, None))
                mark = now
            if how and (how == EACH or clock() - self._reported_at > SLICE_S):
                mark = clock()
                with self._lock:
                    self._report(serial, done=False, rest=0)
        with self._lock:
            self._report(serial, done=True, rest=rest)
            self._serial, self._todo, self._out = 0, iter(()), []

    def _stream(self, fn: Callable[[Any], Any], serial: int, load: tuple[Any, int]) -> None:
        if self._streams is None:
            from .flat_worker import Streams

            self._streams = Streams(self)
        self._streams.run(fn, serial, load)

    def _unpack(self, packed: tuple[Any, ...]) -> Any:
        if not packed:
            raise pickle.PicklingError("the item could not be pickled")  # the parent knows better
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
        """In a child that ``fn`` forks: if it returns as well, it runs no other item, and nobody hears of it."""
        remainder_of(self._todo)
        self._up.fill()
        self._lock = threading.Lock()
        for fd in (self._link, self._control):
            try:
                os.close(fd)
            except OSError:
                pass  # closed before, in a child's child
        self._link = self._control = -1  # whoever uses it ends, in `main`

    # ---- either thread ---------------------------------------------------------------------------

    def _report(self, serial: int, *, done: bool, rest: int) -> None:
        """Send what has not been sent; the lock is held."""
        batch = self._out[self._reported :] if self._reported else self._out[:]
        self._reported += len(batch)
        self._reported_at = clock()
        plain = ATOMS.issuperset(map(type, batch))
        seconds = self._reported_at - self._begun
        wire.send(self._link, pickle.dumps((serial, batch, plain, done, rest, seconds), PROTOCOL))

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
                except OSError:  # or fn has closed ours
                    os._exit(1)

    def _recall(self, serial: int) -> None:
        with self._lock:
            self._recalled = max(self._recalled, serial)
            if self._serial and self._serial <= serial:
                self._report(self._serial, done=False, rest=len(remainder_of(self._todo)))

    def _watch_parent(self) -> int | None:
        """Guarantee 27."""
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
