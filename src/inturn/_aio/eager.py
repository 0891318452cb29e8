"""Eager tasks for Python 3.11, which has none: calls that return at once share one task.

The problem: a task of its own costs each call a turn of the loop. Since 3.12 an eager task runs its
first step at once; a call that returns in it costs no turn. What does not work on 3.11: to run the
first step without a task, and make a task for a call that waits. ``current_task()`` would change
within the call, and so break ``asyncio.timeout``, task groups and cancellation counts. What works:
the pump runs inside a task, an `EagerTask`. It runs the first step of each call itself, in the
call's own context. At the first call that waits, the pump stops, and from then on its task belongs
to that call until the end. ``current_task()`` is the same from the call's first line to its last,
and no other call sees that task again.

So only calls that have returned at once share a task. Even those could leave something on it: a
request to cancel it, a reference by which it is cancelled later, a done callback, a name. After
each call the task is compared with what it was before; if anything has changed, it is not used
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from sys import getrefcount
from typing import Any
from weakref import getweakrefcount

from inturn._engine.chunk import Chunk

from .slot import Starts, TaskSlot

__all__ = ["EagerTask"]


class _Remainder:
    """The steps of a call after its first one, in the call's context; awaited by its task."""

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
            except BaseException as error:  # pass it on to the call
                given, step = error, throw
            try:
                waits_for = run(step, given)
            except StopIteration as stop:
                return stop.value
            finally:
                del given  # the traceback of an error refers to this frame


class EagerTask:
    """The task in which the pump runs; `remainder` is set when the task belongs to a call."""

    __slots__ = ("_task", "remainder")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.remainder: _Remainder | None = None

    def run(self, pool: Starts, slot: TaskSlot, chunk: Chunk, until: float) -> bool:
        """Run a chunk until a call waits or the turn ends; False if the task must not be reused."""
        job, call = pool.job, pool.call_of(chunk)
        task: Any = self._task  # its private attributes are used: this is for 3.11 only
        fn, copy, clock = job.fn, job.context.copy, job.clock
        append: Any = chunk.out.append
        name, weak, refs = task.get_name(), getweakrefcount(task), getrefcount(task)
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
            except BaseException as error:  # it is raised in the consumer
                pool.failed(chunk, item, error, clock() - mark)
            else:
                slot.item, slot.task, slot.mark = item, task, mark
                self.remainder = _Remainder(context, coro, waits_for)
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
        item = append = context = coro = None  # the traceback of an error refers to this frame
        del chunk
        return unused
