"""Where the time of a run goes: what its consumer waits for, what workers could do meanwhile."""

from __future__ import annotations

from time import process_time
from typing import Any, Final

from inturn._base import checks
from inturn._base.atomic import GIL

from .job import Job

__all__ = ["Clocks"]

_MANY: Final = 64  # slots that are not looked at before each wait


class Clocks:
    """Of one run; only its consumer writes here. Times are in seconds of the run's clock."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.started: float | None = None
        self.ended: float | None = None
        self.left = 0.0  # when the consumer was last given something; 0: it is in ``next``
        self.body = 0.0  # what it has taken for it, until it came back
        self.on_head = 0.0
        self.on_source = 0.0
        self.on_consumer = 0.0
        self._computed_from = process_time()  # processor time
        self._computed_until: float | None = None
        self._nothing_pulled = False  # when the consumer began to wait
        self._busy_before: float | None = None  # what calls had taken, if the window was full then
        self._idle_behind_head = 0.0  # of all workers together, during such waits

    def begin(self) -> float:
        self.started = started = self._job.clock()
        self._computed_from = process_time()
        return started

    def end(self) -> None:
        if self.ended is None:
            self.ended = self._job.clock()
            self._computed_until = process_time()

    def wait(self) -> float:
        """The consumer waits from now on."""
        now, window = self._job.clock(), self._job.window
        self._nothing_pulled = window.taken == window.pulled
        full = not self._nothing_pulled and window.room() <= 0 and not window.exhausted
        self._busy_before = self.busy(now, exact=False) if full else None
        return now

    def waited(self, begun: float) -> None:
        """The consumer has waited until now."""
        job = self._job
        now = job.clock()
        if self._nothing_pulled:
            self.on_source += now - begun
        else:
            self.on_head += now - begun
        if self._busy_before is not None:  # what the workers could have done meanwhile, and did not
            busy = self.busy(now, exact=False) - self._busy_before
            self._idle_behind_head += job.concurrency * (now - begun) - busy
        if job.trace is not None and not job.pool.inline:
            job.trace.waits.note((begun, now, None if self._nothing_pulled else job.window.taken))

    def pulled(self, begun: float) -> None:
        """The consumer has read the source until now."""
        now, trace = self._job.clock(), self._job.trace
        self.on_source += now - begun
        if trace is not None:
            trace.waits.note((begun, now, None))

    def busy(self, now: float, *, exact: bool = True) -> float:
        """Seconds that calls have taken so far; if not `exact`, of many slots those that ended."""
        if not exact and self._job.concurrency > _MANY:
            return self._job.busy_s.value
        slots = self._job.pool.slots()
        return self._job.busy_s.value + sum(now - slot.since for slot in slots if slot.chunk is not None)

    def measured(self, title: str, *, ahead: bool, above: Any) -> dict[str, Any]:
        """What `Stats.advice` needs."""
        job, window = self._job, self._job.window
        return {
            "title": title,  # the `name` of the run, or what it is of
            "kind": job.pool.kind,
            "concurrency": job.concurrency,
            "window": window.limit,
            "chunksize": window.chunksize,
            "ahead": ahead,  # whether the source is pulled by somebody else than the consumer
            "body": self.body,
            "pulling": job.pulling_s if ahead else self.on_source,
            "idle_behind_head": max(0.0, self._idle_behind_head),
            "longest": job.longest_s,
            "computed": (self._computed_until or process_time()) - self._computed_from,
            "cpus": checks.cpus(),
            "gil": GIL,
            "above": above,  # the `Stats` of the run that is the source
        }
