"""The pool behind ``executor="process"``: each slot is a thread with a worker process of its own.

The thread claims a chunk, sends it to its process, and waits for the outcomes (see `exchange`). So
there is no dispatcher: chunks are claimed as late as on threads, and work goes on without the
consumer.

A process belongs to the `ProcessStore`. A slot has it from `ready` to `close`, and nobody else uses
it meanwhile. So whatever happens to a process in a run, the slot ends it and starts another one. If
that is not possible, ``fatal_error`` is set: the next item that is claimed fails with it, which ends
the run. docs/design.md has a table of the states.
"""

from __future__ import annotations

import atexit
import os
from functools import cache
from multiprocessing import util
from typing import Any, Final

from inturn._base.events import Latch
from inturn._base.patching import no_processes
from inturn._core.job import Job
from inturn._core.threads import at_exit
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind, detach
from inturn._model.processes import Processes, WorkerDied
from inturn._model.workers import Block
from inturn._pools.store import store_of
from inturn._pools.threads import ThreadPool, ThreadSlot
from inturn._transport.pickling import Main, dumps_fn, noted, unpack_error
from inturn._transport.wire import PipeEvent

from .exchange import ChunkExchange
from .handle import Event, Handle
from .start import GUARD, NO_GUARD, Setup, choose_method, drop_user_code_lock, main_of_workers, user_code_lock
from .store import ProcessStore
from .worker import Answer, Ask

__all__ = ["ProcessPool", "ProcessSlot"]

_AIM_S: Final = 0.0075  # seconds that a batch is to take, as sending one is dear: nearly a time slice
_TINY: Final = 1 / 3  # items that take less than this part of it may widen a default window
_EARLY_DEATHS: Final = 3  # in a row, of workers before their first item; then the run ends

# Exit handlers run in reverse order. Ours is registered after that of `multiprocessing`, so it runs
# before it: `multiprocessing` would wait for our processes without telling them to end.
atexit.unregister(at_exit)
atexit.register(at_exit)


@cache
def _end_runs_at_exit(pid: int) -> None:
    """Guarantee 15: a child of `multiprocessing` runs no exit handlers, only finalizers of its own."""
    util.Finalize(None, at_exit, exitpriority=100)


class ProcessPool(ThreadPool):
    """Slots with a worker process each; see `ThreadPool`."""

    kind = "process"
    kills = True

    store: ProcessStore

    def __init__(self, job: Job, settings: Processes, slot: type[ProcessSlot], *, least: int, slices: bool) -> None:
        def make(block: Block | None) -> ProcessStore:
            name = "inturn-process" if block else job.label("process")
            return ProcessStore(settings, name=name, least=least, block=block)

        store: ProcessStore = store_of(settings, make)
        super().__init__(job, settings, store, store.threads, slot, slices=slices)
        job.window.aim_s, job.window.tiny = _AIM_S, _TINY
        self.method = ""
        self.main = Main.SAME
        self.stop_event: PipeEvent | None = None
        self.fatal_error: BaseException | None = None
        self.early_deaths = 0  # since a worker has run an item
        self.registered: set[ProcessSlot] = set()  # those that have a process, or are about to start one
        self._fns: dict[Main, bytes] = {}

    def open(self) -> None:
        no_processes()
        _end_runs_at_exit(os.getpid())
        self.method = choose_method(self.store.settings.start_method)
        self.main, _ = main_of_workers(self.method)
        self.stop_event = PipeEvent()
        super().open()

    def settle(self) -> None:
        if self.method == "fork" and self._permits and not self.store.full() and self._wanting():
            self.job.supervisor.settle()  # it may be inside a pull: it waits in C, see `start`

    def vacate(self, slot: ThreadSlot, worker: Any) -> bool:
        super().vacate(slot, worker)
        return self.threads.park(slot.thread)

    def fn_for(self, main: Main) -> bytes:
        """``fn`` for a worker that knows this of the main module."""
        if main not in self._fns:
            self._fns[main] = dumps_fn(self.job.fn, main)
        return self._fns[main]

    def take_process(self) -> Handle | None:
        """Take an idle process, or start one; None if the run is over.

        The traceback of an error would keep this frame, and so the stop event's descriptors: it is cut.
        """
        stop_event, store = self.stop_event, self.store
        if stop_event is None:
            return None
        handle = store.take(self.share)
        if handle is not None:
            handle.attach(stop_event)
            return handle
        store.started += 1
        name = f"inturn-{store.started}" if store.keeps else self.job.label(store.started)
        try:
            handle = Handle(self.method, name, stop_event, Setup(store.settings, self.main), self.main)
        except Exception as error:
            raise error.with_traceback(None) from error.__cause__
        finally:
            del stop_event
        store.add(handle)
        return handle

    def unregister(self, slot: ProcessSlot, *, unused: bool, why: BaseException | None = None) -> None:
        """The slot's process has ended. Guarantee 25: three in a row before their first item end the run."""
        with self.lock:
            self.registered.discard(slot)
            self.early_deaths += unused
            if unused and self.early_deaths >= _EARLY_DEATHS and self.fatal_error is None:
                self.fatal_error = why

    def continue_without(self, slot: ProcessSlot, error: BaseException) -> bool:
        """The system refuses a process; whether the run continues with those that it has (guarantee 28)."""
        with self.lock:
            self.registered.discard(slot)
            if self.registered:
                return True
            self.fatal_error = self.fatal_error or error
            return False

    def stop(self) -> None:
        super().stop()
        stop_event = self.stop_event
        if stop_event is not None:
            stop_event.set()  # before the next line: an interrupt in between must not lose the event
            self.stop_event = None


class ProcessSlot(ThreadSlot):
    """A slot whose thread has a worker process, or several, one after the other."""

    calls_here = False
    pool: ProcessPool
    sends_ahead = True  # a worker that is up gets a chunk before it has answered that it has `fn`

    def __init__(self, pool: ProcessPool) -> None:
        super().__init__(pool)
        self._worker: Handle | None = None
        self._user_code: Any = None
        self._process_started = Latch()

    def open(self) -> None:
        try:
            self._user_code = user_code_lock()
            self.ready()  # a slot counts as started when its process is up
        finally:
            self._process_started.open()

    def started(self) -> None:
        if self.pool.method == "fork":
            self._process_started.wait()

    def ready(self) -> bool:
        """Make sure that a process is up; False if the system refuses one and the run goes on."""
        pool, worker = self.pool, self._worker
        if worker is not None and self._spent(worker):
            self.discard(worker)
        while self._worker is None and pool.fatal_error is None:
            pool.registered.add(self)
            try:
                self._packed_fn(pool.main)
                worker = pool.take_process()
            except OSError as error:
                if pool.continue_without(self, error.with_traceback(None)):
                    return False
                break
            except Exception as error:  # an object may refuse to be pickled with any error
                pool.fatal_error = detach(error)
                break
            finally:
                self._process_started.open()
            if worker is None:
                break
            self._wait_until_up(worker)
        return True

    def _packed_fn(self, main: Main) -> bytes:
        with self._user_code:
            return self.pool.fn_for(main)

    def _spent(self, worker: Handle) -> bool:
        return worker.ended or worker.tasks == self.pool.store.settings.max_tasks_per_worker

    def _wait_until_up(self, worker: Handle) -> None:
        pool, number = self.pool, self.pool.share.number
        # A time limit counts from when the worker takes an item, and unpickling `fn` may take long.
        ahead = self.sends_ahead and pool.store.keeps and pool.job.timeout is None
        introduced = False
        while True:
            # One that is kept may be kept without being up, and must have nothing of this run then.
            if not introduced and (worker.is_up or not pool.store.keeps):
                introduced = True
                if not self._introduce(worker):
                    return
                if ahead and not worker.down.used():  # else a chunk would overwrite `fn`
                    break
            if introduced and worker.is_up and number not in worker.unanswered:
                break
            said = worker.wait()
            if said is Event.OVER or worker.grace_until is not None:
                break  # if it is kept, it is given back as it is: the next run waits until it is up
            if said is Event.DIED:
                if worker.exitcode == NO_GUARD:
                    pool.fatal_error = _early_death(NO_GUARD)
                self.discard(worker)
                return
            if self._refused(worker):
                break
            if said[0] == Answer.UP:
                worker.is_up = True
            elif said[0] not in {Answer.READY, Answer.REFUSED}:
                with self._user_code:
                    error = unpack_error(said[1])
                if said[0] == Answer.UNREAD:
                    pool.fatal_error = error
                else:
                    noted(error, "the initializer failed in each of three worker processes in a row")
                self.discard(worker, error)
                return
        self._worker = worker

    def _introduce(self, worker: Handle) -> bool:
        """Have the process use ``fn``; False if that fails, as when memory runs out."""
        pool, number = self.pool, self.pool.share.number
        try:
            if number in worker.known:
                worker.send((0, Ask.USE, number))
            else:
                worker.begin(number, self._packed_fn(worker.main))
        except Exception as error:
            pool.fatal_error = detach(error)
            worker.kill()
            self.discard(worker)
            return False
        return True

    def _refused(self, worker: Handle) -> bool:
        """Whether the worker could not unpickle ``fn``, which ends the run, but not the worker."""
        pool = self.pool
        packed = worker.refusals.pop(pool.share.number, None)
        if packed is not None:
            with self._user_code:
                pool.fatal_error = unpack_error(packed)
        return packed is not None

    def _usable(self) -> Handle | None:
        """The worker, if there is one and it has ``fn``."""
        worker = self._worker
        return worker if worker is not None and self.pool.share.number in worker.known else None

    def run(self, chunk: Chunk) -> bool:
        pool, job, worker = self.pool, self.pool.job, self._usable()
        items = list(chunk.todo)
        if not items:
            return True
        if worker is None:
            if pool.fatal_error is not None:
                job.failed(chunk, items[0], pool.fatal_error, 0.0, Kind.FATAL)
            return True  # without an error: the run is over
        worker.forget()
        exchange = ChunkExchange(self, chunk, items, worker, self._user_code)
        if (most := pool.store.settings.max_tasks_per_worker) is not None:
            exchange.give_back(most - worker.tasks)
        exchange.run()
        worker.tasks += len(exchange.items)
        if not self._refused(worker) and worker.used:
            pool.early_deaths = 0
        return True

    def close(self) -> Handle | None:
        drop_user_code_lock(self._user_code)
        worker = self._worker
        if worker is None:
            return None
        if not self.pool.store.keeps or self._spent(worker):
            self.discard(worker)
            return None
        self._worker = None
        worker.detach()
        self.pool.unregister(self, unused=False)
        return worker

    def discard(self, worker: Handle, why: BaseException | None = None) -> None:
        """End the process, kill it if it has not ended in time. `why`: it has failed before its first item."""
        self._worker = None
        unused = why is not None or (worker.ended and not worker.used)
        worker.end()
        self.pool.store.remove(worker)
        self.pool.unregister(self, unused=unused, why=why or _early_death(worker.exitcode))


def _early_death(exitcode: int | None) -> BaseException:
    """The error that ends the run when workers die before their first item."""
    if exitcode == NO_GUARD:
        return RuntimeError(f"the main module starts a run while a worker process imports it: {GUARD}")
    signal = WorkerDied.of(0, exitcode).signal
    how = "an unknown exit code" if exitcode is None else f"exit code {exitcode}"
    how = how if signal is None else getattr(signal, "name", f"signal {signal}")
    return RuntimeError(
        f"three worker processes in a row ended before their first item, the last one with {how}; "
        "likely causes: an initializer that ends the process, a main module that cannot be imported or lacks "
        '`if __name__ == "__main__":` '
        "(see what the worker wrote to stderr), or too little memory"
    )
