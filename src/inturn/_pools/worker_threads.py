"""The threads of a run, or of a ``with`` block: see `store`.

A thread that is kept works for one slot after the other. Between two slots it is in the store, and
waits for its ``event``: `ThreadPool.grow` gives it a slot, or the store has ended, and the thread
takes itself out (`Store.retract`) and ends. The threads of slots with worker processes are kept
with their processes.
"""

from __future__ import annotations

from contextvars import Context
from typing import Any

from inturn._base.events import Latch, ThreadEvent
from inturn._core.job import Job
from inturn._core.slot import Slot
from inturn._core.threads import CallThread
from inturn._model.threads import Threads, finalize
from inturn._model.workers import Block

from .store import Store

__all__ = ["ThreadStore", "WorkerThread"]


class WorkerThread(CallThread):
    def __init__(self, store: ThreadStore, job: Job, slot: Slot) -> None:
        store.started += 1
        super().__init__(job, slot, f"{store.name}-{store.started}", self._serve)
        self.event = ThreadEvent()  # an idle thread has a slot again, or the store has ended
        self.prepared: Context | None = None  # that of the initializer, once it has run
        self._store = store

    def _serve(self) -> None:
        store = self._store
        try:
            while self._serve_slot():
                while self._slot is None:
                    if store.block.left and store.retract(self):
                        return  # else a slot has taken it, and is about to say so
                    self.event.wait()
        finally:
            context, self.prepared = self.prepared, None  # it may hold the job, which holds the thread
            try:
                if context is not None:
                    context.run(finalize, store.settings.finalizer)
            finally:
                store.remove(self)
                self.left.open()

    def _serve_slot(self) -> bool:
        """Work for the slot until it leaves; whether the store keeps this thread then."""
        slot: Any = self._slot
        left: Latch = slot.left
        try:
            return bool(slot.work())
        finally:
            del slot
            left.open()  # now nothing here refers to the slot or its run

    def prepare(self, job: Job) -> Context:
        """Run the initializer, once; returns the context of which each call of the job gets a copy."""
        store = self._store
        base = store.block.context if store.keeps else job.context
        if self.prepared is None:
            context = base.copy()
            if store.settings.initializer is not None:
                context.run(store.settings.initializer, *store.settings.initargs)
            self.prepared = context
        if not store.keeps:
            return self.prepared
        context = job.context.copy()
        for variable, value in self.prepared.items():
            if variable not in base or base[variable] is not value:  # the initializer has set it
                context.run(variable.set, value)
        return context


class ThreadStore(Store[WorkerThread]):
    def __init__(self, settings: Threads, *, name: str, least: int, block: Block | None) -> None:
        super().__init__(least=least, most=settings.max_workers, block=block)
        self.settings = Threads(*settings._settings())  # a copy: when the user's object is lost, the store ends
        self.name = name

    def _end_idle(self) -> bool:
        for thread in list(self._all):
            thread.event.set()
        self._look_whether_gone()
        return True
