"""What a job asks of those that work for it but are not its workers."""

from __future__ import annotations

from typing import Any, Protocol

from inturn._engine.chunk import Chunk

__all__ = ["Feeds", "Timekeeper", "Watches"]


class Feeds(Protocol):
    """A thread that pulls the source."""

    def start(self) -> None:
        """Start it (supervisor only)."""

    def step(self) -> bool:
        """In its stead, where a run has no threads: pull, if there is room; False if nothing can be pulled now."""
        ...

    def stop(self) -> None:
        """The run is over; from anywhere."""


class Watches(Protocol):
    """Who is told what is pulled and delivered; in the thread that does it, which must not be held up."""

    def pulled(self) -> None:
        """The window has items more: `Window.pulled` counts them."""

    def delivered(self, index: int, outcome: Any, /) -> None:
        """What has become of the head, or an element of its; the outcome must not be kept."""


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

    def look_in(self, seconds: float, /) -> None:
        """Call `BasePool.notify` in so many seconds, if not before."""

    def join(self) -> None: ...
