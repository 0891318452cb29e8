"""The events of a schedule as a picture of text, for the message of a test that fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

__all__ = ["timeline"]

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
_AFTERWARDS: Final = {  # what an item does after an event, until its next one
    "pulled": ".",
    "started": "-",
    "made": "-",
    "ended": "~",
    "failed": "~",
    "given up": "~",
}


class Happened(Protocol):
    """An event, as far as the picture shows it."""

    time: float
    what: str
    index: int
    run: int


def timeline(title: str, events: Sequence[Happened]) -> str:
    """A row for each item, and a column for each event, of each run by itself."""
    lines = [title]
    for run in sorted({event.run for event in events}):
        if run:
            lines.append(f"run {run}:")
        lines += _rows([event for event in events if event.run == run])
    used = [f"{mark} {what}" for what, mark in _MARKS.items() if any(event.what == what for event in events)]
    if used:
        lines.append(f"({', '.join(used)}; - under way, ~ waits for its turn)")
    return "\n".join(lines)


def _rows(events: Sequence[Happened]) -> list[str]:
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
