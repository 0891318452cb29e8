"""The threads of a run, or of a ``with`` block: see `store`.

A thread works for one slot after the other, if it is kept:

======== =============================================== ==========================================
thread   how it is told                                  left by
======== =============================================== ==========================================
at work  ``_slot`` is set                                its slot's end; then the store decides
idle     it is in the store; waits for its ``_event``    `take_up`; the end of the store, from which it
                                                         takes itself (`Store.retract`), if no slot has
gone     ``left`` is open
======== =============================================== ==========================================

The threads of slots with worker processes are kept, too, with their processes: so a run need not
start any.
"""

from __future__ import annotations

from contextvars import Context, ContextVar
from typing import Any, Final

from inturn._base.events import Latch, ThreadEvent
from inturn._core.job import Job
from inturn._core.slot import Slot
from inturn._core.threads import CallThread
from inturn._model.threads import Threads, finalize
from inturn._model.workers import Block

from .store import Store

__all__ = ["ThreadStore", "WorkerThread"]

_ABSENT: Final = object()


class WorkerThread(CallThread):
    """A thread of a store; it works for one slot after the other while the store keeps it."""

    def __init__(self, store: ThreadStore, job: Job, slot: Slot) -> None:
        store.started += 1
        super().__init__(job, slot, f"{store.name}-{store.started}", self._serve)
        self.prepared = False  # whether the initializer has run
        self._store = store
        self._event = ThreadEvent()
        self._prepared: Context | None = None  # that of the initializer; `_context` is an attribute of every thread
        self._variables: list[tuple[ContextVar[Any], Any]] = []  # what the initializer of a thread that is kept has set

    def take_up(self, job: Job, slot: Slot) -> None:
        """Work for this slot: the thread is idle, or about to be."""
        self.job = job
        self._slot = slot
        self._event.set()

    def wake(self) -> None:
        """The store has ended."""
        self._event.set()

    def _serve(self) -> None:
        store = self._store
        try:
            while self._serve_slot():
                while self._slot is None:
                    if store.ended and store.retract(self):
                        return  # else a slot has taken it, and is about to say so
                    self._event.wait()
        finally:
            context, self._prepared = self._prepared, None  # it may hold the job, which holds the thread
            try:
                if context is not None:
                    context.run(finalize, store.finalizer)
            finally:
                self._variables.clear()
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

    def prepare(self, job: Job) -> Context | None:
        """Run the initializer, if that was not done. Returns the context of which each call of the job gets a copy.

        None: the job's own.
        """
        store = self._store
        if not self.prepared:
            if store.initializer is not None or store.finalizer is not None:
                base = store.block.context if store.keeps else job.context
                context = base.copy()
                if store.initializer is not None:
                    context.run(store.initializer, *store.initargs)
                self._prepared = context
                if store.keeps:
                    self._variables = [each for each in context.items() if base.get(each[0], _ABSENT) is not each[1]]
            self.prepared = True
        if not store.keeps:
            return self._prepared
        if not self._variables:
            return None
        context = job.context.copy()
        context.run(self._set_variables)
        return context

    def _set_variables(self) -> None:
        for variable, value in self._variables:
            variable.set(value)


class ThreadStore(Store[WorkerThread]):
    """The threads of a run, or of a `with` block."""

    def __init__(self, settings: Threads, *, name: str, least: int, block: Block | None) -> None:
        super().__init__(least=least, most=settings.max_workers, block=block)
        self.initializer = settings.initializer
        self.initargs = settings.initargs
        self.finalizer = settings.finalizer
        self.name = name
        self.started = 0

    def _end_idle(self) -> bool:
        for thread in list(self._all):
            thread.wake()
        if not self._all:
            self._look_whether_gone()
        return True
