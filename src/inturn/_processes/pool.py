"""The pool behind ``executor="process"``: each slot is a thread that has a worker process of its own.

The thread claims a chunk, sends it to its process, and waits for the outcomes; so chunks are claimed as lazily, and
work goes on without the consumer as well, as on threads, and there is no dispatcher. What happens to a chunk here::

    packed ──▶ sent ──▶ reported, in one or several parts ──▶ done
                 │
                 ├─ its time slice is over: what the worker has not started goes back to the window
                 ├─ a failure before it ends the run, or the run is over: the same, and then its grace period begins
                 ├─ an item's time is over: the process is killed, the item fails, what is behind it goes back
                 └─ the process dies: see `exchange`

======== ========================================= ======================================================
backend  how it is told                            left by
======== ========================================= ======================================================
vacant   ``_worker`` is None                       `ready`, which starts a process and waits until it is up
manned   ``_worker`` is up, no chunk               `run`; `close`; its budget of items (`run`)
flying   a `_Flight` in `run`                      all outcomes; the death of the process; the end of the run
doomed   ``pool.fatal_error`` is set                      the first item claimed then fails with it, and the run ends
======== ========================================= ======================================================
"""

from __future__ import annotations

import atexit
from multiprocessing import util
from queue import SimpleQueue
from time import perf_counter as clock
from typing import Any, Final

from inturn._base.patching import no_processes
from inturn._core.job import Job
from inturn._core.threads import at_exit
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind, detach
from inturn._model.processes import Processes, WorkerDied
from inturn._pools.threads import ThreadPool, ThreadSlot
from inturn._transport.pickling import Main, dumps_fn, noted, pack, unpack_error
from inturn._transport.wire import PipeEvent

from .exchange import Exchange
from .handle import GRACE_S, Event, Handle
from .setup import Setup
from .start import GUARD, NO_GUARD, awake_lock, choose_method, main_of_workers

__all__ = ["ProcessPool"]

_STILLBORN: Final = 3  # so many workers in a row that die before their first item end the run

# The last registered is the first called: before `multiprocessing`, which would wait for our processes to leave by
# themselves.
atexit.unregister(at_exit)
atexit.register(at_exit)
_farewell: util.Finalize[Any] | None = None


def end_runs_at_exit() -> None:
    """In a child of `multiprocessing`'s too, which forgets what is registered and calls nothing but its finalizers."""
    global _farewell
    if _farewell is None or not _farewell.still_active():
        _farewell = util.Finalize(None, at_exit, exitpriority=100)


class ProcessPool(ThreadPool):
    """Places with a process each; see `ThreadPool`."""

    kills = True

    def __init__(self, job: Job, settings: Processes, *, slices: bool) -> None:
        super().__init__(job, lambda: WorkerBackend(self), name="inturn-process", slices=slices)
        self.settings = settings
        self.method = ""
        self.stop_event: PipeEvent | None = None
        self.fatal_error: BaseException | None = None
        self._registered: set[WorkerBackend] = set()
        self._stillborn = 0
        self._processes = 0
        self.main = Main.SAME
        self._fn: bytes | None = None

    # ---- consumer --------------------------------------------------------------------------------

    def open(self) -> None:
        no_processes()
        end_runs_at_exit()
        self.method = choose_method(self.settings.start_method)
        self.stop_event = PipeEvent()
        super().open()

    def settle(self) -> None:
        if self.method == "fork" and self._permits and self._wanting():
            self.job.supervisor.settle()  # whoever pulls may be in the midst of anything, and holds still in C

    # ---- backends --------------------------------------------------------------------------------

    def start_process(self) -> Handle | None:
        """A process that is on its way up; None if the run is over.

        Raises:
            OSError: None can be had.
            Exception: What every worker has to be sent cannot be pickled.
        """
        if self._fn is None:
            self.main = main_of_workers(self.method)
            self._fn = dumps_fn(self.job.fn, self.main)
        stop_event = self.stop_event  # not before: an error of pickling keeps this frame alive
        if stop_event is None:
            return None
        self._processes += 1
        try:
            handle = Handle(self.method, f"inturn-{self._processes}", stop_event, Setup(self.settings, self.main))
        except Exception as error:  # its frames have the stop_event, too
            raise error.with_traceback(None) from error.__cause__
        finally:
            del stop_event  # the same goes for errors from here on
        try:
            handle.send(pack(self._fn, handle.down))  # if it cannot be sent, `wait` will tell
        except BaseException:  # out of memory
            handle.kill()
            handle.close()
            del handle
            raise
        return handle

    def register(self, backend: WorkerBackend) -> None:
        """The backend has a process, or is about to start one."""
        with self.lock:
            self._registered.add(backend)

    def unregister(self, backend: WorkerBackend, *, unused: bool, why: BaseException | None = None) -> None:
        """The backend's process is gone, by itself and before its first item if `unused`."""
        with self.lock:
            self._registered.discard(backend)
            if not unused:
                return
            self._stillborn += 1
            if self._stillborn >= _STILLBORN and self.fatal_error is None:
                self.fatal_error = why

    def thrives(self) -> None:
        """A worker has run an item."""
        self._stillborn = 0

    def continue_without(self, backend: WorkerBackend, error: BaseException) -> bool:
        """No process can be had for the backend: whether the run goes on with those it has."""
        with self.lock:
            self._registered.discard(backend)
            if self._registered:
                return True
            self.fatal_error = self.fatal_error or error
            return False

    # ---- the end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        super().stop()
        stop_event = self.stop_event
        if stop_event is not None:
            stop_event.set()  # first: an interrupt in between would leave nobody who could
            self.stop_event = None


class WorkerBackend:
    """One worker process after another, for one slot; see the table above."""

    watched = False

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._job = pool.job
        self._worker: Handle | None = None
        self._awake: Any = None
        self._born: SimpleQueue[None] = SimpleQueue()
        self._grace_until: float | None = None

    def open(self) -> None:
        self._awake = awake_lock()
        try:
            self.ready()  # the slot has not arrived before its process is up
        finally:
            self._born.put(None)

    def started(self) -> None:
        if self._pool.method == "fork":
            self._born.get()

    def ready(self) -> bool:
        """Have a process that is up, if one can be had."""
        pool, worker = self._pool, self._worker
        if worker is not None and (worker.ended or worker.tasks == pool.settings.max_tasks_per_worker):
            self._release(clock() + GRACE_S)
        while self._worker is None and pool.fatal_error is None:
            pool.register(self)
            try:
                worker = pool.start_process()
            except OSError as error:
                if pool.continue_without(self, error.with_traceback(None)):
                    return False
                break
            except Exception as error:  # what cannot be pickled may refuse in any way
                pool.fatal_error = detach(error)
                break
            finally:
                self._born.put(None)
            if worker is None:
                break
            self._await_up(worker)
        return True

    def _await_up(self, worker: Handle) -> None:
        said = worker.wait()
        if said is Event.OVER:
            self._grace_until = clock() + GRACE_S
            worker.end(self._grace_until)
            return
        if not isinstance(said, Event):
            what, packed = said
            if what == "up":
                self._worker = worker
                return
            error = unpack_error(packed)
            worker.end(clock() + GRACE_S)
            if what == "unread":
                self._pool.fatal_error = error
                return
            noted(error, "the initializer failed in each of three worker processes in a row")
        else:
            worker.close()
            error = _stillborn(worker.exitcode)
            if worker.exitcode == NO_GUARD:
                self._pool.fatal_error = error
        self._pool.unregister(self, unused=True, why=error)

    def run(self, chunk: Chunk, slot: ThreadSlot) -> bool:
        pool, job, worker = self._pool, self._job, self._worker
        items = list(chunk.todo)
        if not items:
            return True
        if worker is None:
            if pool.fatal_error is not None:
                job.failed(chunk, items[0], pool.fatal_error, 0.0, Kind.FATAL)
            return True  # else the run is over
        most = pool.settings.max_tasks_per_worker
        if most is not None and len(items) > most - worker.tasks:
            rest = items[most - worker.tasks :]
            del items[most - worker.tasks :]
            with pool.lock:
                job.window.give_back(chunk, rest)
            pool.notify(job.window.available())
        exchange = Exchange(pool, slot, chunk, items, worker, self._awake)
        exchange.run()
        worker.tasks += exchange.size  # what came back was not begun
        self._grace_until = exchange.grace_until
        if worker.used and not worker.ended:
            pool.thrives()
        return True

    def close(self) -> None:
        self._born.put(None)
        self._release(self._grace_until or clock() + GRACE_S)

    def _release(self, until: float) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            unused = worker.ended and not worker.used
            worker.end(until)
            self._pool.unregister(self, unused=unused, why=_stillborn(worker.exitcode))


def _stillborn(exitcode: int | None) -> BaseException:
    if exitcode == NO_GUARD:
        return RuntimeError(f"the main module starts a run while a worker process imports it: {GUARD}")
    return RuntimeError(
        f"three worker processes in a row ended before their first item, the last one with {_how(exitcode)}; "
        "likely causes: an initializer that ends the process, a main module that cannot be imported or lacks "
        '`if __name__ == "__main__":` '
        "(see what the worker wrote to stderr), or too little memory"
    )


def _how(exitcode: int | None) -> str:
    if exitcode is None:
        return "an unknown exit code"
    signal = WorkerDied.of(0, exitcode).signal
    return f"exit code {exitcode}" if signal is None else getattr(signal, "name", f"signal {signal}")
