"""The pool behind ``executor="process"``: each slot is a thread with a worker process of its own.

The thread claims a chunk, sends it to its process, and waits for the outcomes. So there is no
dispatcher: chunks are claimed as late as on threads, and work goes on without the consumer. What
can happen to a chunk::

    packed ──▶ sent ──▶ reported, in one or several parts ──▶ done
                 │
                 ├─ its time slice ends: what the worker has not started goes back to the window
                 ├─ the run is over, or an earlier failure ends it: the same, then the grace period
                 ├─ an item's time limit ends: the process is killed, the item fails
                 └─ the process dies: see `exchange`

======= ============================= =============================================================
backend condition                     left by
======= ============================= =============================================================
none    ``_worker`` is None           `ready`: takes an idle process from the store, or starts one,
                                      and waits until it has ``fn``
idle    ``_worker`` is up, no chunk   `run`; `close`; `ready`, after its most tasks
busy    in `run`                      the last outcome; the death of the process
failed  ``pool.fatal_error`` is set   (the next item that is claimed fails with it; the run ends)
======= ============================= =============================================================

A process belongs to the `ProcessStore`. A slot has it from `ready` to `close`, which gives it back
(to be kept, or to be ended), and nobody else uses it meanwhile. So whatever happens to a process in
a run, the slot ends it and starts another one, and the store never sees it again.
"""

from __future__ import annotations

import atexit
from multiprocessing import util
from queue import SimpleQueue
from typing import Any, Final

from inturn._base.clock import clock
from inturn._base.patching import no_processes
from inturn._core.job import Job
from inturn._core.threads import at_exit
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind, detach
from inturn._model.processes import Processes, WorkerDied
from inturn._model.workers import Block
from inturn._pools.store import store_of
from inturn._pools.threads import Backend, ThreadPool, ThreadSlot
from inturn._transport.pickling import Main, dumps_fn, noted, unpack_error
from inturn._transport.wire import PipeEvent

from .exchange import Exchange
from .handle import GRACE_S, Event, Handle
from .setup import Setup
from .start import GUARD, NO_GUARD, choose_method, main_of_workers, user_code_lock
from .store import ProcessStore
from .worker import READY, REFUSED, UP

__all__ = ["ProcessPool"]

_AIM_S: Final = 0.006  # seconds that a batch is to take, as sending one is dear: nearly a time slice
_TINY: Final = 1 / 3  # items that take less than this part of it may widen a default window
_EARLY_DEATHS: Final = 3  # in a row, of workers before their first item; then the run ends

# Exit handlers run in reverse order. Ours is registered after that of `multiprocessing`, so it runs
# before it: `multiprocessing` would wait for our processes without telling them to end.
atexit.unregister(at_exit)
atexit.register(at_exit)
_finalizer: util.Finalize[Any] | None = None


def end_runs_at_exit() -> None:
    """Guarantee 15: have open runs ended at exit.

    A child process of `multiprocessing` runs no exit handlers, only the finalizers of
    `multiprocessing`, and it starts without those of its parent.
    """
    global _finalizer
    if _finalizer is None or not _finalizer.still_active():
        _finalizer = util.Finalize(None, at_exit, exitpriority=100)


class ProcessPool(ThreadPool):
    """Slots with a worker process each; see `ThreadPool`."""

    kind = "process"
    kills = True
    sends_ahead = True  # a worker that is up gets a chunk before it has answered that it has `fn`

    store: ProcessStore

    def __init__(self, job: Job, settings: Processes, *, least: int, slices: bool) -> None:
        def make(block: Block | None) -> ProcessStore:
            name = "inturn-process" if block else job.label("process")
            return ProcessStore(settings, name=name, least=least, block=block)

        store: ProcessStore = store_of(settings, make)
        super().__init__(job, store, store.threads, lambda: WorkerBackend(self), slices=slices)
        self.keeper = settings
        job.window.aim_s, job.window.tiny = _AIM_S, _TINY
        self.settings = store.settings
        self.method = ""
        self.stop_event: PipeEvent | None = None
        self.fatal_error: BaseException | None = None
        self._registered: set[WorkerBackend] = set()
        self._early_deaths = 0
        self._fns: dict[Main, bytes] = {}

    # ---- consumer --------------------------------------------------------------------------------

    def open(self) -> None:
        no_processes()
        end_runs_at_exit()
        self.method = choose_method(self.settings.start_method)
        self.stop_event = PipeEvent()
        super().open()

    def settle(self) -> None:
        if self.method == "fork" and self._permits and not self.store.full() and self._wanting():
            self.job.supervisor.settle()  # it may be inside a pull: it waits in C, see `start`

    # ---- backends --------------------------------------------------------------------------------

    def vacate(self, slot: ThreadSlot, worker: Any) -> bool:
        super().vacate(slot, worker)
        return self.threads.park(slot.thread)

    def _fn_for(self, main: Main) -> bytes:
        """``fn`` for a worker that knows this of the main module."""
        if main not in self._fns:
            self._fns[main] = dumps_fn(self.job.fn, main)
        return self._fns[main]

    def take_process(self) -> Handle | None:
        """Take an idle process, or start one; None if the run is over. `introduce` follows.

        Raises:
            OSError: The system refuses another process.
            Exception: ``fn`` or the initializer cannot be pickled.
        """
        stop_event = self.stop_event
        handle = None if stop_event is None else self.store.take(self.share)
        if handle is None or stop_event is None:
            del stop_event
            return self._start_process()
        try:
            self._fn_for(handle.main)
        except Exception:
            self.store.put_back(handle)
            raise
        handle.attach(stop_event)
        return handle

    def introduce(self, handle: Handle) -> None:
        """Have a process use ``fn``; it may owe an answer: see `Handle.owes_an_answer`."""
        number = self.share.number
        if number in handle.known:
            handle.use(number)
            return
        try:
            handle.begin(number, self._fn_for(handle.main))
        except BaseException as error:  # out of memory
            handle.kill()
            handle.close()
            self.store.remove(handle)
            # Without its traceback: its frames would keep the handle, and so the descriptors of the stop event.
            raise error.with_traceback(None) from error.__cause__

    def _start_process(self) -> Handle | None:
        main = main_of_workers(self.method)
        self._fn_for(main)
        # The traceback of an error would keep this frame, and so the descriptors of the stop event.
        # So the event is read after `fn` was pickled, and the traceback of later errors is cut.
        stop_event = self.stop_event
        if stop_event is None:
            return None
        store = self.store
        store.started += 1
        setup = Setup(self.settings, main)
        try:
            name = f"inturn-{store.started}" if store.keeps else self.job.label(store.started)
            handle = Handle(self.method, name, stop_event, setup, main)
        except Exception as error:
            raise error.with_traceback(None) from error.__cause__
        finally:
            del stop_event
        store.add(handle)
        if not store.keeps:
            self.introduce(handle)  # at once: the process need not wait for it when it is up
        return handle

    def register(self, backend: WorkerBackend) -> None:
        """Count the backend as one that has a process, or is about to start one."""
        with self.lock:
            self._registered.add(backend)

    def unregister(self, backend: WorkerBackend, *, unused: bool, why: BaseException | None = None) -> None:
        """The backend's process has ended. `unused`: it died before its first item.

        Guarantee 25: three such deaths in a row, for the reason `why`, end the run.
        """
        with self.lock:
            self._registered.discard(backend)
            if not unused:
                return
            self._early_deaths += 1
            if self._early_deaths >= _EARLY_DEATHS and self.fatal_error is None:
                self.fatal_error = why

    def item_was_run(self) -> None:
        """A worker has run an item: count early deaths from zero again."""
        self._early_deaths = 0

    def continue_without(self, backend: WorkerBackend, error: BaseException) -> bool:
        """The system refuses a process for the backend.

        Returns:
            Whether the run continues with the processes that it has (guarantee 28).
        """
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
            stop_event.set()  # before the next line: an interrupt in between must not lose the event
            self.stop_event = None


class WorkerBackend(Backend):
    """The worker processes of one slot, one after the other; see the table above."""

    watched = False

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._job = pool.job
        self._worker: Handle | None = None
        self._user_code: Any = None
        self._process_started: SimpleQueue[None] = SimpleQueue()
        self._grace_until: float | None = None
        # A time limit counts from when the worker takes an item, and unpickling `fn` may take long.
        self._sends_ahead = pool.store.keeps and pool.sends_ahead and pool.job.timeout is None

    def open(self) -> None:
        self._user_code = user_code_lock()
        try:
            self.ready()  # a slot counts as started when its process is up
        finally:
            self._process_started.put(None)

    def started(self) -> None:
        if self._pool.method == "fork":
            self._process_started.get()

    def ready(self) -> bool:
        """Make sure that a process is up; False if the system refuses one and the run goes on."""
        pool, worker = self._pool, self._worker
        if worker is not None and (worker.ended or self._exhausted(worker)):
            self._end(worker, clock() + GRACE_S)
        while self._worker is None and pool.fatal_error is None:
            pool.register(self)
            try:
                worker = pool.take_process()
            except OSError as error:
                if pool.continue_without(self, error.with_traceback(None)):
                    return False
                break
            except Exception as error:  # an object may refuse to be pickled with any error
                pool.fatal_error = detach(error)
                break
            finally:
                self._process_started.put(None)
            if worker is None:
                break
            self._wait_until_up(worker)
        return True

    def _exhausted(self, worker: Handle) -> bool:
        return worker.tasks == self._pool.settings.max_tasks_per_worker

    def _wait_until_up(self, worker: Handle) -> None:
        pool = self._pool
        introduced = not pool.store.keeps  # else it may be kept without being up, and must have nothing of this run
        worker.awaited = pool.share.number
        while True:
            if worker.is_up and not introduced:
                introduced = True
                pool.introduce(worker)
                if self._sends_ahead and not worker.down.used():  # else a chunk would overwrite `fn`
                    worker.awaited = 0
                    break
            if introduced and not worker.owes_an_answer():
                break
            said = worker.wait()
            if said is Event.OVER or worker.ignores_stop:
                self._grace_until = clock() + GRACE_S
                if not pool.store.keeps:
                    self._end(worker, self._grace_until)
                    return
                break  # it is given back as it is: the next run waits until it is up
            if said is Event.DIED:
                error = _early_death(worker.exitcode)
                if worker.exitcode == NO_GUARD:
                    pool.fatal_error = error
                self._end(worker, clock(), why=None if worker.used else error)
                return
            if said[0] == UP:
                worker.is_up = True
            elif said[0] == REFUSED:
                self._refused(worker)
                return
            elif said[0] != READY:
                self._failed(worker, *said)
                return
        self._worker = worker

    def _failed(self, worker: Handle, what: str, packed: Any) -> None:
        """The initializer has failed, or could not be unpickled."""
        error = unpack_error(packed)
        if what == "unread":
            self._pool.fatal_error = error
            self._end(worker, clock() + GRACE_S)
        else:
            noted(error, "the initializer failed in each of three worker processes in a row")
            self._end(worker, clock() + GRACE_S, why=error)

    def _refused(self, worker: Handle) -> None:
        """The worker could not unpickle ``fn``, but is well: other runs may have it."""
        pool = self._pool
        pool.fatal_error = unpack_error(worker.refusals.pop(pool.share.number))
        if not pool.store.keeps:
            self._end(worker, clock() + GRACE_S)
            return
        self._worker = None
        worker.ignore_stop()
        pool.store.put_back(worker)
        pool.unregister(self, unused=False)

    def run(self, chunk: Chunk, slot: ThreadSlot) -> bool:
        pool, job, worker = self._pool, self._job, self._worker
        items = list(chunk.todo)
        if not items:
            return True
        if worker is None:
            if pool.fatal_error is not None:
                job.failed(chunk, items[0], pool.fatal_error, 0.0, Kind.FATAL)
            return True  # without an error: the run is over
        worker.forget_all()
        most = pool.settings.max_tasks_per_worker
        if most is not None and len(items) > most - worker.tasks:
            remainder = items[most - worker.tasks :]
            del items[most - worker.tasks :]
            with pool.lock:
                job.window.give_back(chunk, remainder)
            pool.notify(job.window.available())
        exchange = Exchange(pool, slot, chunk, items, worker, self._user_code)
        exchange.run()
        worker.tasks += exchange.size
        self._grace_until = exchange.grace_until
        if pool.share.number in worker.refusals:
            self._refused(worker)
            return True
        if worker.used and not worker.ended:
            pool.item_was_run()
        return True

    def close(self) -> Handle | None:
        self._process_started.put(None)
        worker = self._worker
        if worker is None:
            return None
        until = self._grace_until or clock() + GRACE_S
        if self._pool.store.keeps and not (worker.ended or self._exhausted(worker)):
            self._worker = None
            worker.ignore_stop()
            self._pool.unregister(self, unused=False)
            return worker
        self._end(worker, until)
        return None

    def discard(self, worker: Handle) -> None:
        self._end(worker, self._grace_until or clock() + GRACE_S)

    def _end(self, worker: Handle, until: float, *, why: BaseException | None = None) -> None:
        """End the process, kill it if it has not ended in time. `why`: it has failed before its first item."""
        self._worker = None
        unused = why is not None or (worker.ended and not worker.used)
        worker.end(until)
        self._pool.store.remove(worker)
        self._pool.unregister(self, unused=unused, why=why or _early_death(worker.exitcode))


def _early_death(exitcode: int | None) -> BaseException:
    """The error that ends the run when workers die before their first item."""
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
