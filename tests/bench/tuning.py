"""When parallel work pays: the figures of docs/tuning.md."""

from __future__ import annotations

from functools import partial

from . import work
from .harness import Plan, Table, row
from .peers import Peer, our_processes, ours, plain
from .threads import seconds

COSTS_US = [5, 20, 100, 300, 1000, 3000]


@row("T1", "how many times as fast as the plain loop, by the time of one item")
def pays(plan: Plan) -> list[Table]:
    tables = []
    per_second = work.loops_for(1.0)
    for kind, racer, fn in [
        ("threads, 8 of them, waiting", ours, work.sleep),
        ("processes, 2 of them, pure Python", our_processes(), work.burn),
    ]:
        figures = {}
        for cost in COSTS_US:
            if fn is work.sleep and cost < 100:  # shorter sleeps take as long
                continue
            item = cost / 1e6 if fn is work.sleep else int(per_second * cost / 1e6)
            items = [item] * max(50, int(plan.size(1_000_000, 300_000) / cost))
            workers = 8 if fn is work.sleep else 2
            racers: dict[str, Peer] = {"inturn": racer, "plain loop": plain}
            taken = plan.race({name: partial(seconds, peer, fn, items, workers) for name, peer in racers.items()})
            figures[f"items of {cost} µs"] = taken["plain loop"] / taken["inturn"]
        tables.append(Table("times as fast as the plain loop", figures, title=f"{kind}: when it pays"))
    return tables
