"""The events of a schedule, and their picture of text for the message of a test that fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Event", "timeline"]

_MOST_COLUMNS: Final = 100
_MOST_TIMES: Final = 6
_MARKS: Final = {
    "pulled": "p",
    "started": "s",
    "made": "m",
    "ended": "e",
    "failed": "x",
    "given up": "T",
    "delivered": "d",
    "done": "D",
    "left out": "o",
    "raised": "R",
    "closed": "c",
}
# What an item does after an event, until its next one.
_AFTERWARDS: Final = {"pulled": ".", "started": "-", "made": "-", "ended": "~", "failed": "~", "given up": "~"}


@dataclass(slots=True, unsafe_hash=True)
class Event:
    """One thing that happened in a run.

    Attributes:
        time: When, in seconds of virtual time.
        what: ``"pulled"``, ``"started"``, ``"made"`` (one element, flat maps only), ``"ended"``, ``"failed"`` (an
            attempt), ``"given up"`` (by ``timeout``), ``"delivered"`` (a result, or one element), ``"done"`` (all of an
            item was delivered, flat maps only), ``"left out"``,
            ``"raised"`` (the error of this item ends the run), or ``"closed"`` (the run ended before the item did).
        index: The position of the item in the source, from 0.
        attempt: 1 for the first run of the item, 2 for the second, …
        run: Which of the runs that the schedule was given to: 0 for the first that began.
    """

    time: float
    what: str
    index: int
    attempt: int = 1
    run: int = 0


def timeline(title: str, events: Sequence[Event]) -> str:
    """A row for each item, and a column for each event, of each run by itself."""
    lines = [title]
    for run in sorted({event.run for event in events}):
        if run:
            lines.append(f"run {run}:")
        lines += _rows([event for event in events if event.run == run])
    happened = {event.what for event in events}
    if happened:
        used = ", ".join(f"{mark} {what}" for what, mark in _MARKS.items() if what in happened)
        lines.append(f"({used}; - under way, ~ waits for its turn)")
    return "\n".join(lines)


def _rows(events: Sequence[Event]) -> list[str]:
    left_out = max(0, len(events) - _MOST_COLUMNS)
    rows: dict[int, list[str]] = {event.index: [] for event in sorted(events, key=lambda event: event.index)}
    doing = dict.fromkeys(rows, " ")
    flat = any(event.what == "done" for event in events)  # its items go on after an element
    passing: list[str] = []
    for column, event in enumerate(events):
        for index, row in rows.items():
            row.append(_MARKS[event.what] if index == event.index else doing[index])
        doing[event.index] = _AFTERWARDS.get(event.what, "-" if flat and event.what == "delivered" else " ")
        if column and event.time > events[column - 1].time:
            passing.append(f"{event.time:g} s before event {column + 1}")
    width = max(len(str(index)) for index in rows)
    lines = [f"  item {index:{width}} {''.join(row[left_out:]).rstrip()}" for index, row in rows.items()]
    if left_out:
        lines = [line for line in lines if line.split()[2:]]
        lines.insert(0, f"  (the last {_MOST_COLUMNS} of {len(events)} events)")
    if passing:
        more = "" if len(passing) <= _MOST_TIMES else ", …"
        lines.append(f"  the time is {', '.join(passing[:_MOST_TIMES])}{more}")
    return lines
