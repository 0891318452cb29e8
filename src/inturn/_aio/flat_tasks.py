"""The pool behind `ordered_aflat_map`: each attempt at an item is an asyncio task that produces into the item's lane.

A slot is kept from an item's first attempt to its end, as `lanes` wants it: between two attempts a task *holds* it,
which waits for the pause to be over or for the policy to decide.

========= ============================================ =======================================================
slot     how it is told                               left by
========= ============================================ =======================================================
producing ``call`` is the attempt's                    its task's end; `_expire`, then it is late (see `tasks`)
resting   besides, ``timer`` is None: the lane is full its lane's event
holding   its task is `_hold`                          the pause's end or a decision: another attempt, or free
given up  ``call`` is another's, or None               the task's end, which nobody sees
========= ============================================ =======================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from functools import partial
from inspect import isawaitable
from time import perf_counter as clock
from typing import TYPE_CHECKING, Any, Final

from inturn._core.flat_job import NOTHING, FlatJob
from inturn._core.job import Call
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

_TURN_S: Final = 0.002  # how long a producer that never waits keeps the loop to itself


def new_event() -> LoopEvent:
    """The wake-up of a lane whose producer is a task of the running loop."""
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
        """Run the item of the slot."""
        job, chunk = self.job, slot.chunk
        assert chunk is not None
        item = next(chunk.todo, NOTHING)
        if item is NOTHING:  # drained: it never starts
            super().end(slot)
            return
        lane: Lane = chunk.out[0]
        slot.item, slot.mark, slot.late = item, clock(), False
        slot.call = call = Call(None, slot.mark)
        self._limit(slot)
        self._start(slot, self._produce(slot, call, lane, item), job.context.copy(), self._landed)

    def _start(self, slot: TaskSlot, coro: Coroutine[Any, Any, None], context: Context, landed: Any) -> None:
        assert self._loop is not None
        make = self._make or self._loop.create_task
        slot.task = task = make(coro, context=context)  # type: ignore[call-arg]
        self._tasks[task] = slot
        task.add_done_callback(partial(landed, slot), context=self.job.context)
        if self.job.stopped:
            self.cancel_late(task)

    # ---- in the task -----------------------------------------------------------------------------

    async def _produce(self, slot: TaskSlot, call: Call, lane: Lane, item: Any) -> None:
        """Run the item once, into its lane."""
        job = self.job
        iterator: Any = None
        try:
            iterator = await self._elements_of(job.fn, item)
            take = iterator.__anext__
            breath = clock() + _TURN_S
            while True:
                if lane.full():
                    await self._rest(slot, call, lane)
                try:
                    element = await take()
                except StopAsyncIteration:
                    iterator = None
                    return
                if slot.call is not call or slot.late:
                    return  # too late
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

    async def _rest(self, slot: TaskSlot, call: Call, lane: Lane) -> None:
        """Wait for room in the lane; the item's clock stands still."""
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
        begun = clock()
        while lane.full():
            lane.producer_waits.append(None)
            try:
                await lane.event.wait(None)  # type: ignore[attr-defined]
            finally:
                lane.producer_waits.clear()
        if slot.call is call:
            slot.mark += clock() - begun
            self._limit(slot)

    async def _elements_of(self, fn: Any, item: Any) -> AsyncIterator[Any]:
        """An iterator over what ``fn`` returns, or what that is when it has been awaited."""
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
        """Keep the slot until the item runs again, or does not."""
        while True:
            left = None
            if lane.phase is Phase.PAUSING:
                left = lane.due - clock()
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
        except BaseException as error:  # it travels to the consumer
            self.failed(chunk, slot.item, error, clock() - slot.mark)
        else:
            lane.finish()
            self.job.rouse(lane.index)

    def end(self, slot: TaskSlot) -> None:
        """An attempt is over: the slot is free, unless there may be another one."""
        assert slot.chunk is not None
        lane: Lane = slot.chunk.out[0]
        slot.call = slot.item = slot.task = None
        if self.job.stopped or lane.phase is Phase.ENDED:
            super().end(slot)
        else:
            self._start(slot, self._hold(lane), self.job.context.copy(), self._held)

    def _held(self, slot: TaskSlot, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        assert slot.chunk is not None
        if not task.cancelled():
            task.result()  # it raises nothing but faults of ours
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
    except Exception:  # as for calls that end after the run
        pass
