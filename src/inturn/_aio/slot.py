"""A slot whose calls are tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from inturn._core.job import Job
from inturn._core.slot import Slot
from inturn._engine.chunk import Chunk

from .events import Timer

__all__ = ["Starts", "TaskSlot"]


class Starts(Protocol):
    """What an `EagerTask` needs of the pool of tasks."""

    @property
    def job(self) -> Job: ...
    def call_of(self, chunk: Chunk, /) -> Callable[[Any, Any], Coroutine[Any, Any, Any]]: ...
    def waits(self, slot: TaskSlot, /) -> None: ...
    def end(self, slot: TaskSlot, /) -> None: ...
    def failed(self, chunk: Chunk, item: Any, error: BaseException, elapsed: float, /) -> None: ...


class TaskSlot(Slot):
    """Where one call at a time runs; its states are in `tasks`."""

    __slots__ = ("item", "late", "mark", "task", "timer")

    def __init__(self) -> None:
        super().__init__()
        self.item: Any = None
        self.task: asyncio.Task[Any] | None = None
        self.mark = 0.0  # when the call began
        self.timer: Timer | None = None
        self.late = False  # whether the call was cancelled by its time limit

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
