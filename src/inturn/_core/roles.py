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


class Timekeeper:
    """Who looks at the clock for a run: a `Supervisor`, or the timers of an event loop, which need do less."""

    def start(self) -> None:
        """The run has begun."""

    def drop(self) -> None:
        """The run's handle is gone; from anywhere, also from a finaliser."""

    def settle(self) -> None:
        """Hold still while workers are started that must not be started beside code of the user."""

    def wake(self) -> None:
        """There may be something to do; from anywhere."""

    def watch(self) -> None:
        """A slot has begun a time slice or a time limit."""

    def later(self, seconds: float, chunk: Chunk, /) -> None:
        """The chunk is ready to run again after a pause."""
        raise NotImplementedError

    def look_in(self, seconds: float, /) -> None:
        """Call `BasePool.notify` in so many seconds, if not before."""
        raise NotImplementedError

    def join(self) -> None:
        """Wait until nothing of it is left."""
