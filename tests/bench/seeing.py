"""The row about watching a run: what `progress`, `live` and `trace` cost a tiny item."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from inturn import ordered_map

from . import work
from .harness import Goal, Plan, Table, row


def cpu_per_item(count: int, **options: Any) -> float:
    """Return the microseconds of processor time an item takes; other programs on the machine hardly count."""
    started = time.process_time()
    for _ in ordered_map(work.same, range(count), concurrency=4, **options):
        pass
    return (time.process_time() - started) / count * 1e6


@row("Seeing", "threads, a tiny function, 200,000 items, 4 workers: what it costs to look")
def seeing(plan: Plan) -> Table:
    count = plan.size(200_000, 50_000)
    figures = plan.race(
        {
            "plain": partial(cpu_per_item, count),
            "progress=callable": partial(cpu_per_item, count, progress=lambda stats: None),
            "live=True": partial(cpu_per_item, count, live=True),
            "trace=True": partial(cpu_per_item, count, trace=True),
        }
    )
    return Table(
        "µs of CPU per item",
        figures,
        [
            Goal("`progress`: at most 1 µs more", figures["progress=callable"] - figures["plain"], most=1.0),
            Goal("`live`: at most 1 µs more", figures["live=True"] - figures["plain"], most=1.0),
        ],
        ["a trace is paid by those who ask for one"],
    )
