"""Where one call at a time runs, if calls are tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from inturn._core.job import Job, Slot
from inturn._engine.chunk import Chunk

from .events import Timer

__all__ = ["Starts", "TaskSlot"]


class Starts(Protocol):
    """The pool of tasks, as far as its slots and an `EagerTask` are concerned."""

    @property
    def job(self) -> Job: ...
    @property
    def call(self) -> Callable[[Any, Any], Coroutine[Any, Any, Any]]: ...
    def waits(self, slot: TaskSlot, /) -> None: ...
    def end(self, slot: TaskSlot, /) -> None: ...
    def failed(self, chunk: Chunk, item: Any, error: BaseException, elapsed: float, /) -> None: ...


class TaskSlot(Slot):
    """Where one call at a time runs; its states are told in `tasks`."""

    __slots__ = ("item", "late", "mark", "task", "timer")

    def __init__(self) -> None:
        super().__init__()
        self.item: Any = None
        self.task: asyncio.Task[Any] | None = None
        self.mark = 0.0  # when the call began
        self.timer: Timer | None = None
        self.late = False
