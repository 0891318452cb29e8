"""What every run has that a user holds, whichever driver it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from .stats import Stats

if TYPE_CHECKING:
    from .recorder import Recorder
    from .trace import Trace

__all__ = ["Handle"]

_BELIEVED: Final = 10_000_000
"""A length that sources claim is passed on up to here: `list` makes room for it at once, and it may be wrong."""


class Handle:
    """The base of the types of runs: it tells a run from everything else.

    Attributes:
        indexed: Whether it delivers ``(index, result)``.
    """

    __slots__ = ("_name", "_run", "indexed")

    _name: str
    _run: Any
    indexed: bool

    def __length_hint__(self) -> int:
        """How many results are still to come, where the sources tell; an estimate, as some may be left out."""
        left: int | None = self._run.left()
        return NotImplemented if left is None or left > _BELIEVED else left

    @property
    def stages(self) -> tuple[Handle, ...]:
        """The runs that are chained to this one, in the order in which items pass them; the last is this one."""
        return (*(stage for each in self._run.upstream for stage in each.stages), self)

    def _leave_chain(self) -> None:
        """End the run without waiting: the run whose source it is has ended. From anywhere (async: in its loop)."""

    def _drop_chain(self) -> None:
        """The run whose source it is was dropped; from anywhere, takes no lock and waits for nothing."""

    def _tasks(self) -> list[Any]:
        """Tasks that are to be awaited after that."""
        return []

    def _joins(self) -> list[Any]:
        """Calls that wait, after that, for threads and processes."""
        return []

    @property
    def stats(self) -> Stats:
        """A snapshot of the run; at any time, from any thread."""
        stats: Stats = self._run.stats()
        return stats

    @property
    def trace(self) -> Trace:
        """When each item was pulled, started, finished and delivered; of a run that was made with ``trace=True``.

        Raises:
            AttributeError: The run is not traced.
        """
        recorder: Recorder | None = self._run.job.trace
        if recorder is None:
            raise AttributeError(f"this {self._name} is not traced: give it trace=True")
        from .trace import Trace

        return Trace(recorder, self._title())

    def _title(self) -> str:
        stage = "" if self._run.job.stage is None else f"{self._run.job.stage}: "
        return f"{stage}{self._name} of {self._run.name}"

    def _repr_html_(self) -> str:
        from .run_table import run_table

        return run_table(self._title(), self.stats)

    def __repr__(self) -> str:
        stats = self.stats
        stage = "" if self._run.job.stage is None else f" {self._run.job.stage!r}"
        return (
            f"<{self._name}{stage} of {self._run.name}: {stats.pulled} pulled, {stats.running} running, "
            f"{stats.waiting} waiting, {stats.delivered} delivered, {stats.failed} failed>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle a run ({self._name}): it holds workers and an iterator; send the items instead")
