"""What a job asks of those that work for it but are not its workers."""

from __future__ import annotations

from typing import Any, Protocol

from inturn._engine.chunk import Chunk

__all__ = ["Feeds", "Timekeeper", "Watches"]


class Feeds(Protocol):
    """A thread that pulls the source; it is started by the supervisor.

    Where a run has no threads, `step` pulls in its stead, if there is room; False if it does not.
    """

    def start(self) -> None: ...
    def step(self) -> bool: ...
    def stop(self) -> None: ...


class Watches(Protocol):
    """Is told that items were pulled and what was delivered; it neither keeps that nor waits."""

    def pulled(self) -> None: ...
    def delivered(self, index: int, outcome: Any, /) -> None: ...


class Timekeeper:
    """Who looks at the clock for a run: a `Supervisor`, or timers of an event loop, which do less.

    `wake` says, from anywhere, that there may be something to do; `watch`, that a slot has begun a
    time slice or a time limit; `drop`, also in a finaliser, that the run's handle is gone. In
    `settle` the consumer waits while workers start that must not start beside code of the user.
    """

    def start(self) -> None: ...
    def settle(self) -> None: ...
    def wake(self) -> None: ...
    def watch(self) -> None: ...
    def drop(self) -> None: ...
    def join(self) -> None: ...
    def later(self, seconds: float, chunk: Chunk, /) -> None: ...  # let the chunk run again then
    def look_in(self, seconds: float, /) -> None: ...  # call `BasePool.notify` then, if not before
