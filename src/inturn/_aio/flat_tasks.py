"""The pool behind `ordered_aflat_map`: a task for each attempt, producing into the item's lane.

A slot is kept from an item's first attempt to its end, as `lanes` requires. Between two attempts a
task *holds* the slot: it waits until the pause is over or the policy has decided.

========= ================================= ========================================================
slot      condition                         left by
========= ================================= ========================================================
producing ``call`` is the attempt's         the end of its task; `_expire`, then late as in `tasks`
full      producing, and ``timer`` is None  room in the lane
holding   its task runs `_hold`             the end of the pause, or a decision
given up  ``call`` is another's, or None    (the end of the task is ignored)
========= ================================= ========================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from functools import partial
from inspect import isawaitable
from typing import Any

from inturn._core.elements import aclose
from inturn._core.flat_job import NOTHING, FlatJob
from inturn._core.slot import Call
from inturn._engine.chunk import Chunk
from inturn._engine.lanes import Lane, Phase
from inturn._model.outcome import Kind, shorten

from .tasks import TURN_S, TaskPool, TaskSlot, WrappedError

__all__ = ["LaneTaskPool"]


class LaneTaskPool(TaskPool):
    """At most `concurrency` items at once, each from its first element to its end."""

    job: FlatJob

    def _run(self, slot: TaskSlot, chunk: Chunk, until: float) -> bool:
        self._attempt(slot)
        return True

    def _attempt(self, slot: TaskSlot) -> None:
        """Run the item of the slot once."""
        item = next(slot.chunk.todo, NOTHING)
        if item is NOTHING:  # drained: the item never starts
            super()._end(slot)
            return
        slot.item, slot.mark, slot.late = item, self.job.clock(), False
        slot.call = call = Call(None, slot.mark)
        self._limit(slot)
        self._start(slot, self._produce(slot, call, slot.chunk.out[0], item), self._task_done)

    def _start(self, slot: TaskSlot, coro: Coroutine[Any, Any, None], done: Any) -> None:
        job = self.job
        slot.task = task = self._make(coro, context=job.context.copy())
        self.tasks[task] = slot
        if job.stage is not None:
            task.set_name(job.label(slot.chunk.index))
        task.add_done_callback(partial(done, slot), context=job.context)
        if self._cancelled:
            task.cancel()

    async def _produce(self, slot: TaskSlot, call: Call, lane: Lane, item: Any) -> None:
        """Append the elements of the item to its lane."""
        job, clock = self.job, self.job.clock
        iterator: Any = None
        try:
            if self.director is None:
                iterator = await self._elements_of(job.fn, item)
            else:
                iterator = self.director(slot.chunk, partial(self._elements_of, job.fn, item))
            take = iterator.__anext__
            breath = clock() + TURN_S
            while True:
                if lane.full():
                    await self._wait_for_room(slot, call, lane)
                try:
                    element = await take()
                except StopAsyncIteration:
                    iterator = None
                    return
                if slot.call is not call or slot.late:
                    return  # given up, or past its time limit: drop the element
                lane.made += 1
                lane.append(element)
                del element
                if job.sleeping:
                    job.rouse(lane.index)
                if clock() >= breath:
                    await asyncio.sleep(0)
                    breath = clock() + TURN_S
        except (SystemExit, KeyboardInterrupt) as error:
            caught = error
        finally:
            await aclose(iterator)
        raise WrappedError(caught, Kind.PASSING)

    async def _wait_for_room(self, slot: TaskSlot, call: Call, lane: Lane) -> None:
        """Wait for room in the lane; the time limit does not count this time (guarantee 17)."""
        slot.stop_timer()
        begun = self.job.clock()
        while lane.full():
            lane.producer_waits.append(None)
            try:
                await lane.event.wait(None)  # type: ignore[attr-defined]
            finally:
                lane.producer_waits.clear()
        if slot.call is call:
            slot.mark += self.job.clock() - begun
            self._limit(slot)

    async def _elements_of(self, fn: Any, item: Any) -> AsyncIterator[Any]:
        """An iterator over what ``fn`` returns; an awaitable is awaited first."""
        result = fn(item)
        if isawaitable(result):
            result = await result
            if hasattr(type(result), "__iter__") and not hasattr(type(result), "__aiter__"):
                result = _Each(result)
        if hasattr(type(result), "__aiter__"):
            self._proven = True
            return aiter(result)
        text = f"fn must return an async iterable, got {type(result).__name__}: {shorten(result)}; "
        text += "make it an async generator function, "
        text += 'or have a plain generator function run elsewhere with executor="thread" or "process"'
        raise WrappedError(TypeError(text), Kind.FAILED if self._proven else Kind.FATAL)

    async def _hold(self, lane: Lane) -> None:
        """Keep the slot until the item runs again, or has ended."""
        while True:
            left = self.job.reopens_in(lane)
            if lane.phase is Phase.OPEN or lane.phase is Phase.ENDED:
                return
            await lane.event.wait(left)  # type: ignore[attr-defined]

    def _record(self, slot: TaskSlot, task: asyncio.Task[Any]) -> None:
        try:
            task.result()
        except BaseException as error:  # it is raised in the consumer
            self._failed(slot.chunk, slot.item, error, self.job.clock() - slot.mark)
        else:
            lane: Lane = slot.chunk.out[0]
            lane.finish()
            self.job.rouse(lane.index)

    def _end(self, slot: TaskSlot) -> None:
        """An attempt has ended: free the slot, unless another attempt may follow."""
        lane: Lane = slot.chunk.out[0]
        slot.call = slot.item = slot.task = None
        if self.job.stopped or lane.phase is Phase.ENDED:
            super()._end(slot)
        else:
            self._start(slot, self._hold(lane), self._hold_done)

    def _hold_done(self, slot: TaskSlot, task: asyncio.Task[Any]) -> None:
        del self.tasks[task]
        if not task.cancelled():
            task.result()  # only an error of this library can be raised here
        if self.job.stopped or slot.chunk.out[0].phase is Phase.ENDED:
            super()._end(slot)
            self.notify(self.job.window.available())
        else:
            self._attempt(slot)


class _Each:
    """An async iterator over a plain one; a generator's frame would keep the element that it has yielded."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._iterator = iter(items)

    def __aiter__(self) -> _Each:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            raise StopAsyncIteration from None
