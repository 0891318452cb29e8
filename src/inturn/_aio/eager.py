"""Eager tasks for Python 3.11, which has none: calls that return at once share one task.

The problem: a task of its own costs each call a turn of the loop; an eager task, as of 3.12, only a
call that waits. What does not work on 3.11: to run the first step without a task, and make a task
for a call that waits. ``current_task()`` would change within the call, and so break
``asyncio.timeout``, task groups and cancellation counts. What works: the pump runs inside a task,
and runs the first step of each call itself, in the call's own context. At the first call that
waits, the pump stops, and its task belongs to that call until the end.

Only calls that have returned at once share a task. Even those could leave something on it: a
request to cancel it, a reference by which it is cancelled later, a done callback, a name. If
anything of it has changed after a call, it is not used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from contextvars import Context
from sys import getrefcount
from types import coroutine
from typing import Any
from weakref import getweakrefcount

from inturn._engine.chunk import Chunk

from .tasks import TaskPool, TaskSlot

__all__ = ["EagerTaskPool"]


@coroutine
def _remainder(context: Context, coro: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """The steps of a call after its first one, in the call's context; awaited by its task."""
    run, send, throw = context.run, coro.send, coro.throw
    step: Any
    while True:
        try:
            given = yield waits_for
            step = send
        except GeneratorExit:
            run(coro.close)
            raise
        except BaseException as error:  # pass it on to the call
            given, step = error, throw
        try:
            waits_for = run(step, given)
        except StopIteration as stop:
            return stop.value
        finally:
            del given  # the traceback of an error refers to this frame


class EagerTaskPool(TaskPool):
    """A pool of tasks whose pump runs inside tasks; not if the user has a task factory, which is respected."""

    _task: Any = None  # in which the pump runs now
    _remainder: Awaitable[Any] | None = None  # of the call to which that task belongs from now on

    def _schedule(self) -> None:
        if self._loop.get_task_factory() is not None:
            super()._schedule()
            return
        for _ in range(max(1, min(self._permits, self.job.ready()))):  # a task for each call
            self._scheduled += 1
            turn = asyncio.Task(self._turn(), loop=self._loop, context=self.job.context)
            self.tasks[turn] = None
            turn.add_done_callback(self._turn_cancelled)

    async def _turn(self) -> Any:
        try:
            task: Any = asyncio.current_task()
            del self.tasks[task]
            task.remove_done_callback(self._turn_cancelled)
            self._task = task
            self._pump()
            remainder, self._remainder, self._task = self._remainder, None, None
        except BaseException as error:  # of a signal handler: this turn would count for ever
            self._crash(error)
            return None
        return None if remainder is None else await remainder

    def _turn_cancelled(self, task: asyncio.Task[Any]) -> None:
        """The task was cancelled before it ran the pump."""
        self.tasks.pop(task, None)
        self._scheduled -= 1
        self.notify(1)

    def _run(self, slot: TaskSlot, chunk: Chunk, until: float) -> bool:
        """As in `TaskPool`; False if the task must not be used for another call."""
        task = self._task  # its private attributes are used: this is for 3.11 only
        if task is None:
            return super()._run(slot, chunk, until)
        job = self.job
        call: Any = self._call if self.director is None else self.director(chunk, self._call)
        fn, copy, clock = job.fn, job.context.copy, job.clock
        append: Any = chunk.out.append
        name, weak, refs = task.get_name(), getweakrefcount(task), getrefcount(task)
        mark = slot.since
        unused = False
        context: Any = None
        for item in chunk.todo:
            context, coro = copy(), call(fn, item)
            try:
                waits_for = context.run(coro.send, None)
            except StopIteration as stop:
                if task._must_cancel:
                    self._failed(chunk, item, asyncio.CancelledError(), clock() - mark)
                else:
                    append(stop.value)
            except BaseException as error:  # it is raised in the consumer
                self._failed(chunk, item, error, clock() - mark)
            else:
                slot.item, slot.task, slot.mark = item, task, mark
                self._remainder = _remainder(context, coro, waits_for)
                self._waits(slot)
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
                self._end(slot)
                break
            if mark >= until:
                job.window.take_back(chunk)
        else:
            self._end(slot)
            unused = True
        item = append = context = coro = None  # the traceback of an error refers to this frame
        del chunk
        return unused
