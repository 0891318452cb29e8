"""The pool behind `ordered_aflat_map`: a task for each attempt, producing into the item's lane.

A slot is kept from an item's first attempt to its end, as `lanes` requires. Between two attempts a
task *holds* the slot: it waits until the pause is over or the policy has decided.

========= ================================= ===================================================
slot      condition                         left by
========= ================================= ===================================================
producing ``call`` is the attempt's         the end of its task; `_expire`, then late as in
                                            `tasks`
full      producing, and ``timer`` is None  room in the lane
holding   its task runs `_hold`             the end of the pause, or a decision: then another
                                            attempt, or the slot is free
given up  ``call`` is another's, or None    (the end of the task is ignored)
========= ================================= ===================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final

from inturn._core.flat_job import NOTHING, FlatJob
from inturn._core.slot import Call
from inturn._engine.chunk import Chunk
from inturn._engine.lanes import Lane, Phase
from inturn._model.outcome import Kind, shorten

from .eager import EagerTask
from .events import LoopEvent
from .slot import TaskSlot
from .tasks import TaskPool, WrappedError

if TYPE_CHECKING:
    from contextvars import Context

__all__ = ["LaneTaskPool", "new_event"]

_TURN_S: Final = 0.002  # maximum seconds per turn of a producer that does not wait


def new_event() -> LoopEvent:
    """The event of a lane whose producer is a task of the running loop."""
    return LoopEvent(asyncio.get_running_loop())


class LaneTaskPool(TaskPool):
    """At most `concurrency` items at once, each from its first element to its end."""

    job: FlatJob

    def _schedule(self) -> None:
        assert self._loop is not None
        self._scheduled = True
        self._loop.call_soon(self._pump, context=self.job.context)

    def _run(self, slot: TaskSlot, chunk: Chunk, until: float) -> None:
        self._attempt(slot)

    def _attempt(self, slot: TaskSlot) -> None:
        """Run the item of the slot once."""
        job, chunk = self.job, slot.chunk
        assert chunk is not None
        item = next(chunk.todo, NOTHING)
        if item is NOTHING:  # drained: the item never starts
            super().end(slot)
            return
        lane: Lane = chunk.out[0]
        slot.item, slot.mark, slot.late = item, job.clock(), False
        slot.call = call = Call(None, slot.mark)
        self._limit(slot)
        self._start(slot, self._produce(slot, call, lane, item), job.context.copy(), self._task_done)

    def _start(self, slot: TaskSlot, coro: Coroutine[Any, Any, None], context: Context, done: Any) -> None:
        assert self._loop is not None
        make = self._make or self._loop.create_task
        slot.task = task = make(coro, context=context)  # type: ignore[call-arg]
        self._tasks[task] = slot
        if self.job.stage is not None and slot.chunk is not None:
            task.set_name(self.job.label(slot.chunk.index))
        task.add_done_callback(partial(done, slot), context=self.job.context)
        if self.job.stopped:
            self.cancel_late(task)

    # ---- in the task -----------------------------------------------------------------------------

    async def _produce(self, slot: TaskSlot, call: Call, lane: Lane, item: Any) -> None:
        """Append the elements of the item to its lane."""
        job, clock = self.job, self.job.clock
        iterator: Any = None
        try:
            if self.director is None:
                iterator = await self._elements_of(job.fn, item)
            else:
                assert slot.chunk is not None
                iterator = self.director.elements_of(slot.chunk, partial(self._elements_of, job.fn, item))
            take = iterator.__anext__
            breath = clock() + _TURN_S
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
                    breath = clock() + _TURN_S
        except (SystemExit, KeyboardInterrupt) as error:
            caught = error
        finally:
            if hasattr(iterator, "aclose"):
                await _close(iterator)
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
        awaited = isawaitable(result)
        if awaited:
            result = await result
        if hasattr(type(result), "__aiter__"):
            self._proven = True
            return aiter(result)
        if awaited and hasattr(type(result), "__iter__"):
            self._proven = True
            return _Plain(iter(result))
        text = f"fn must return an async iterable, got {type(result).__name__}: {shorten(result)}; "
        text += "make it an async generator function, "
        text += 'or have a plain generator function run elsewhere with executor="thread" or "process"'
        raise WrappedError(TypeError(text), Kind.FAILED if self._proven else Kind.FATAL)

    async def _hold(self, lane: Lane) -> None:
        """Keep the slot until the item runs again, or has ended."""
        while True:
            left = None
            if lane.phase is Phase.PAUSING:
                left = lane.due - self.job.clock()
                if left <= 0:
                    left = self.job.again_in()
                if left <= 0:
                    lane.reopen()
            if lane.phase is Phase.OPEN or lane.phase is Phase.ENDED:
                return
            await lane.event.wait(left)  # type: ignore[attr-defined]

    # ---- afterwards ------------------------------------------------------------------------------

    def _record(self, slot: TaskSlot, task: asyncio.Task[Any]) -> None:
        chunk = slot.chunk
        assert chunk is not None
        lane: Lane = chunk.out[0]
        try:
            task.result()
        except BaseException as error:  # it is raised in the consumer
            self.failed(chunk, slot.item, error, self.job.clock() - slot.mark)
        else:
            lane.finish()
            self.job.rouse(lane.index)

    def end(self, slot: TaskSlot) -> None:
        """An attempt has ended: free the slot, unless another attempt may follow."""
        assert slot.chunk is not None
        lane: Lane = slot.chunk.out[0]
        slot.call = slot.item = slot.task = None
        if self.job.stopped or lane.phase is Phase.ENDED:
            super().end(slot)
        else:
            self._start(slot, self._hold(lane), self.job.context.copy(), self._hold_done)

    def _hold_done(self, slot: TaskSlot, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        assert slot.chunk is not None
        if not task.cancelled():
            task.result()  # only an error of this library can be raised here
        if self.job.stopped or slot.chunk.out[0].phase is Phase.ENDED:
            super().end(slot)
            self.notify(min(1, self.job.window.available()))
        else:
            self._attempt(slot)

    def _pump(self, turn: EagerTask | None = None) -> None:
        super()._pump(None)


class _Plain:
    """An async iterator over a plain one."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def __aiter__(self) -> _Plain:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            raise StopAsyncIteration from None


async def _close(iterator: Any) -> None:
    try:
        await iterator.aclose()
    except Exception:  # dropped, as errors of calls that end after the run
        pass
