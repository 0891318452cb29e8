"""What `advice` is given: a snapshot of a run, and what was measured besides."""

from __future__ import annotations

from typing import NamedTuple, Protocol

__all__ = ["Measured", "Snapshot"]


class Snapshot(Protocol):
    """What `advice` reads of `Stats`."""

    delivered: int
    skipped: int
    waiting: int
    retried: int
    elapsed: float
    busy: float
    blocked_on_head: float
    blocked_on_source: float
    throttled: float
    _measured: Measured | None


class Measured(NamedTuple):
    """What `advice` needs besides; numbers only. Times are in seconds."""

    title: str  # the `name` of the run, or what it is of
    kind: str  # of its workers, see `BasePool.kind`
    concurrency: int
    window: int
    chunksize: int | None
    ahead: bool  # whether the source is pulled by somebody else than the consumer
    body: float  # what the consumer did between two calls of `next`
    pulling: float  # what the source has taken
    idle_behind_head: float  # of all workers together, while the window was full behind the head
    longest: float  # the longest call
    computed: float  # processor time of this process
    cpus: int
    gil: bool
    above: Snapshot | None  # of the run that is the source
