"""What a job asks of those that work for it but are not its workers."""

from __future__ import annotations

from typing import Protocol

from inturn._engine.chunk import Chunk

__all__ = ["Feeds", "Timekeeper"]


class Feeds(Protocol):
    """A thread that pulls the source."""

    def start(self) -> None:
        """Start it (supervisor only)."""

    def stop(self) -> None:
        """The run is over; from anywhere."""


class Timekeeper(Protocol):
    """Who looks at the clock for a run: a `Supervisor`, or the timers of an event loop."""

    def start(self) -> None: ...
    def drop(self) -> None: ...
    def settle(self) -> None: ...
    def wake(self) -> None: ...
    def watch(self) -> None:
        """A slot has begun a time slice or a time limit."""

    def later(self, seconds: float, chunk: Chunk, /) -> None:
        """The chunk is ready to run again after a pause."""

    def join(self) -> None: ...
