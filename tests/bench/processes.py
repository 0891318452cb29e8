"""Rows about processes: P2, P5, P11."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from . import work
from .harness import Goal, Plan, Table, present, row
from .peers import PROCESSES, Peer, our_processes, plain
from .threads import per_item, seconds


@row("P2", "processes, a tiny function, 2,000,000 items, 2 workers")
def tiny(plan: Plan) -> Table:
    full = plan.size(2_000_000, 200_000)
    fewer = {
        "Executor.map(chunksize=64)": full // 4,
        "Pool.imap": full // 20,
        "mpire": full // 20,
        "joblib": full // 40,
        **dict.fromkeys(["Executor.map", "loky", "pebble", "pypeln"], full // 200),
    }
    racers: dict[str, Peer] = {"inturn": our_processes(), **PROCESSES}
    figures = plan.race({name: partial(per_item, peer, fewer.get(name, full), 2) for name, peer in racers.items()})
    us = figures["inturn"]
    return Table(
        "µs per item",
        figures,
        [
            Goal(
                "no slower than the hand-tuned `Pool.imap(chunksize=64)`", us / figures["Pool.imap(chunksize=64)"], 1.0
            ),
            Goal("at least 100 times faster than `Executor.map`", figures["Executor.map"] / us, least=100),
        ],
        ["the slower ones: over fewer items, per item"],
        beside="inturn",
    )


def bare(fn: Callable[[Any], Any], items: Sequence[Any], workers: int, consume: Any) -> None:
    """A share of the items for each of so many processes, and no results: what the cores of this machine give."""
    shares = [multiprocessing.Process(target=work.call_each, args=(fn, items[k::workers])) for k in range(workers)]
    for each in shares:
        each.start()
    for each in shares:
        each.join()


@row("P5", "processes, 1 ms of pure Python per item, 2,000 items, 2 workers")
def busy(plan: Plan) -> Table:
    items = [int(work.loops_for(0.001))] * plan.size(2000, 500)
    racers: dict[str, Peer] = {"inturn": our_processes(), "plain loop": plain, "bare processes": bare, **PROCESSES}
    taken = plan.race({name: partial(seconds, peer, work.burn, items, 2) for name, peer in racers.items()})
    figures = {name: taken["plain loop"] / figure for name, figure in taken.items()}
    goal = Goal("at least 1.9 times as fast as the plain loop, on two free cores", figures["inturn"], least=1.9)
    share = f"{figures['inturn'] / figures['bare processes']:.2f} of what two bare processes reach on this machine"
    return Table("times as fast as the plain loop", figures, [goal], [share])


@row("P11", "processes, 8 MB to the worker and back, 2 workers")
def large(plan: Plan) -> list[Table]:
    ours = our_processes()
    count, size = plan.size(60, 20), 8_000_000
    payloads: dict[str, Any] = {"bytes": bytes(size)}
    if present("numpy"):
        import numpy as np

        payloads["NumPy arrays"] = np.zeros(size // 8)

    def megabytes(peer: Peer, payload: Any) -> float:
        def source() -> Iterable[Any]:
            for _ in range(count):
                yield payload

        return 2 * count * size / 1e6 / seconds(peer, work.same, source(), 2)

    tables = []
    for kind, payload in payloads.items():
        racers: dict[str, Peer] = {"inturn": ours, **PROCESSES}
        del racers["Executor.map(chunksize=64)"], racers["Pool.imap(chunksize=64)"]
        figures = plan.race({name: partial(megabytes, peer, payload) for name, peer in racers.items()})
        ratio = figures["inturn"] / figures["Executor.map"]
        goals = [Goal(f"{kind}: at least 3 times the throughput of `Executor.map`", ratio, least=3)]
        tables.append(Table("MB/s, both ways counted", figures, goals, title=f"8 MB to the worker and back, {kind}"))
    return tables
