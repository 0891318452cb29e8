"""What every run has that a user holds, whichever driver it is of."""

from __future__ import annotations

from typing import Any, NoReturn

from .stats import Stats

__all__ = ["Handle"]


class Handle:
    """The base of the types of runs: it tells a run from everything else.

    Attributes:
        indexed: Whether it delivers ``(index, result)``.
    """

    __slots__ = ("_name", "_run", "indexed")

    _name: str
    _run: Any
    indexed: bool

    @property
    def stats(self) -> Stats:
        """A snapshot of the run; at any time, from any thread."""
        stats: Stats = self._run.stats()
        return stats

    def __repr__(self) -> str:
        stats = self.stats
        stage = "" if self._run.stage is None else f" {self._run.stage!r}"
        return (
            f"<{self._name}{stage} of {self._run.name}: {stats.pulled} pulled, {stats.running} running, "
            f"{stats.waiting} waiting, {stats.delivered} delivered, {stats.failed} failed>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle a run ({self._name}): it holds workers and an iterator; send the items instead")
