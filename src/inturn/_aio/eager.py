"""Eager tasks for Python 3.11, which has none: one task carries calls that return at once, and becomes the task of
one that waits.

A turn of the pump is a task here. It runs the first step of each call itself, in the call's own context. A call that
returns at
once has cost no task. At the first call that waits, the turn is over and the task belongs to that call until its end:
``current_task()`` is the same from the call's first line to its last, and no other call will see it again.

So only calls that have returned at once share a task. One of them could still have left something on it: a request to
cancel it, a reference by which somebody cancels it later, a callback for when it is done, a name. After each call the
task is looked at, and if it is not as it was before, it is used up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from sys import getrefcount
from time import perf_counter as clock
from typing import Any
from weakref import getweakrefcount

from inturn._engine.chunk import Chunk

from .slot import Starts, TaskSlot

__all__ = ["EagerTask"]


class _Rest:
    """What is left of a call after its first step, driven in its own context; to be awaited by its task."""

    __slots__ = ("_context", "_coro", "_waits_for")

    def __init__(self, context: Context, coro: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._context = context
        self._coro = coro
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        run, send, throw, waits_for = self._context.run, self._coro.send, self._coro.throw, self._waits_for
        step: Any
        while True:
            try:
                given = yield waits_for
                step = send
            except GeneratorExit:
                run(self._coro.close)
                raise
            except BaseException as error:  # it is the call's
                given, step = error, throw
            try:
                waits_for = run(step, given)
            except StopIteration as stop:
                return stop.value
            finally:
                del given  # an error's traceback holds this frame


class EagerTask:
    """The task of one turn; `rest` is the call that it has come to belong to."""

    __slots__ = ("_task", "rest")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.rest: _Rest | None = None

    def run(self, pool: Starts, slot: TaskSlot, chunk: Chunk, until: float) -> bool:
        """Run a chunk until one of its calls waits or the turn is over; False if the task is used up."""
        job, call = pool.job, pool.call
        task: Any = self._task  # also its private attributes, which are what they are in 3.11
        fn, copy = job.fn, job.context.copy
        append: Any = chunk.out.append
        name, weak, refs = task.get_name(), getweakrefcount(task), 0
        refs = getrefcount(task)
        mark = slot.since
        unused = False
        item: Any = None
        context: Any = None
        coro: Any = None
        for item in chunk.todo:
            context, coro = copy(), call(fn, item)
            try:
                waits_for = context.run(coro.send, None)
            except StopIteration as stop:
                if task._must_cancel:
                    pool.failed(chunk, item, asyncio.CancelledError(), clock() - mark)
                else:
                    append(stop.value)
            except BaseException as error:  # it travels to the consumer
                pool.failed(chunk, item, error, clock() - mark)
            else:
                slot.item, slot.task, slot.mark = item, task, mark
                self.rest = _Rest(context, coro, waits_for)
                pool.waits(slot)
                break
            mark = clock()
            if (
                getrefcount(task) != refs
                or task._must_cancel
                or getweakrefcount(task) != weak
                or task._callbacks is not None
                or task.get_name() is not name
            ):
                job.window.take_back(chunk)
                pool.end(slot)
                break
            if mark >= until:
                job.window.take_back(chunk)
        else:
            pool.end(slot)
            unused = True
        item = append = context = coro = None  # an error's traceback leads to this frame
        del chunk
        return unused
