"""A run as a notebook shows it: a bar, its counts, and where the time went."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .stats import Stats

__all__ = ["run_table"]

_COUNTS = ("pulled", "running", "waiting", "delivered", "failed", "skipped", "retried", "abandoned")
_ALWAYS = frozenset({"pulled", "running", "waiting", "delivered"})
_TIMES = ("elapsed", "blocked_on_head", "blocked_on_source", "blocked_on_consumer")
_CELL = "padding:2px 14px 2px 0;text-align:left;border:0;background:none"


def run_table(title: str, stats: Stats) -> str:
    """HTML without references to anything else; colours are the notebook's."""
    counts = [(name, f"{getattr(stats, name):,}") for name in _COUNTS if name in _ALWAYS or getattr(stats, name)]
    times = [(name.replace("_", " "), f"{getattr(stats, name):.3f} s") for name in _TIMES]
    times.append(("workers busy", f"{stats.busy:.0%}"))
    done = stats.delivered + stats.skipped
    bar = ""
    if stats.total:
        share = min(1.0, done / stats.total)
        bar = (
            '<div style="height:6px;max-width:32em;border-radius:3px;background:rgba(127,127,127,.25);margin:4px 0">'
            f'<div style="height:6px;border-radius:3px;width:{share:.1%};background:#4c86c6"></div></div>'
            f'<div style="opacity:.7">{done:,} of {stats.total:,}</div>'
        )
    return (
        f'<div style="font-size:13px"><b>{escape(title)}</b>{bar}'
        f'<table style="border-collapse:collapse;margin-top:4px">{_row(counts)}{_row(times)}</table></div>'
    )


def _row(cells: list[tuple[str, str]]) -> str:
    text = "".join(
        f'<td style="{_CELL}"><span style="opacity:.7">{escape(name)}</span><br>{escape(value)}</td>'
        for name, value in cells
    )
    return f"<tr>{text}</tr>"
