"""What a run tells of itself while it runs."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Final

__all__ = ["Stats"]


class Stats:
    """A snapshot of a run.

    Counts of items: `pulled` from the source, `running` now, `waiting` (complete, but not their turn), `delivered`,
    `failed` (for good, whatever the policy made of it), `skipped` (of those), `retried` (further attempts),
    `abandoned` (calls given up by a time limit that could not be killed), `total` (from ``length_hint``, or None).

    Times in seconds: `elapsed` since the first ``next``, `blocked_on_head` (``next`` waited for a call),
    `blocked_on_source` (``next`` waited for the source), `blocked_on_consumer` (the window was full of finished
    results and the workers were idle), `throttled` (something was ready to start and ``limit`` did not let it). `busy`
    is the mean share of ``concurrency`` in use, from 0 to 1. The repr rounds to milliseconds; the attributes do not.
    """

    # In the order in which they are shown: counts, then times.
    total: int | None
    pulled: int
    running: int
    waiting: int
    delivered: int
    failed: int
    skipped: int
    retried: int
    abandoned: int
    elapsed: float
    busy: float
    blocked_on_head: float
    blocked_on_source: float
    blocked_on_consumer: float
    throttled: float

    __slots__ = (*__annotations__, "_measured")

    def __init__(self, *, measured: dict[str, Any] | None = None, **values: Any) -> None:
        for name in _FIELDS:
            setattr(self, name, values[name])
        self._measured = measured  # what `advice` needs besides: see `Clocks.measured`

    @property
    def advice(self) -> str:
        """What holds the run back, by how much, and what to change; in words, a line for each thing.

        It comes from what was measured so far, so ask it of a run that has gone on for a while or has ended. Each line
        begins with what it is about: source, workers, window, consumer, limit or batching. The gain that it names is
        what the numbers promise if only this is changed. If the source is another run, the stage that holds the others
        back is named.
        """
        from .advice import advice

        return advice(self)

    def __repr__(self) -> str:
        values = [(name, getattr(self, name)) for name in _FIELDS]
        shown = [f"{name}={round(value, 3) if isinstance(value, float) else value}" for name, value in values]
        return f"Stats({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stats):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _FIELDS)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # compared by value

    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: getattr(self, name) for name in _FIELDS}
        return partial(Stats, measured=self._measured, **values), ()


_FIELDS: Final = Stats.__slots__[:-1]
