"""What a worker does with a chunk, in its own thread."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any, Protocol

from inturn._engine.chunk import Chunk

from .roles import Timekeeper
from .slot import Call, Slot

__all__ = ["run_chunk", "run_watched"]


class Calls(Protocol):
    """A job."""

    fn: Callable[[Any], Any]
    context: contextvars.Context
    clock: Callable[[], float]
    supervisor: Timekeeper

    def failed(self, chunk: Chunk, item: Any, error: BaseException, elapsed: float, /) -> None: ...


def run_chunk(chunk: Chunk, job: Calls, context: contextvars.Context | None = None) -> None:
    """Run the items of a chunk, each in a context of its own (guarantee 21)."""
    fn, copy, append = job.fn, (job.context if context is None else context).copy, chunk.out.append
    clock = job.clock
    mark = clock()
    item = None
    try:
        for item in chunk.todo:
            try:
                append(copy().run(fn, item))
            except BaseException as error:  # it travels to the consumer
                now = clock()
                job.failed(chunk, item, error, now - mark)
                mark = now
    finally:
        # The frames of an error's traceback keep their callers' frames alive, this one among them.
        del fn, append, item, chunk, job


def run_watched(chunk: Chunk, job: Calls, slot: Slot, context: contextvars.Context | None = None) -> bool:
    """`run_chunk` under a time limit; False if a call was given up, and its worker has to leave."""
    fn, copy = job.fn, (job.context if context is None else context).copy
    clock = job.clock
    item = call = error = result = None
    try:
        for item in chunk.todo:
            slot.call = call = Call(item, clock())
            job.supervisor.watch()  # after `call` is set: the supervisor may be about to rest
            error = result = None
            try:
                result = copy().run(fn, item)
            except BaseException as caught:  # it travels to the consumer
                error = caught
            if not call.settle():
                return False
            slot.call = None
            if error is None:
                chunk.out.append(result)
            else:
                job.failed(chunk, item, error, clock() - call.started)
        return True
    finally:
        del fn, item, call, error, result, chunk, job, slot  # as in `run_chunk`
