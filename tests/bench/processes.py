"""Rows about processes: P2, P5, P11, P13, P14; and about what takes their place without the GIL: "nogil"."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import median
from typing import Any

from inturn._base.atomic import GIL

from . import work
from .harness import Goal, NotYet, Plan, Table, number, present, row
from .peers import PROCESSES, THREADS, Peer, our_processes, ours, plain
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


@row("nogil", "free-threaded Python: pure Python on 2 threads, beside processes")
def without_gil(plan: Plan) -> list[Table]:
    if GIL:
        raise NotYet("a free-threaded Python")
    tables = []
    for ms in (0.1, 1.0, 10.0):
        items = [max(1, int(work.loops_for(ms / 1000)))] * int(plan.size(2000, 500) / ms)
        racers: dict[str, Peer] = {
            "plain loop": plain,
            "inturn, threads": ours,
            "inturn, processes": our_processes(),
            "bare processes": bare,
            "ThreadPoolExecutor.map": THREADS["Executor.map"],
        }
        taken = plan.race({name: partial(seconds, peer, work.burn, items, 2) for name, peer in racers.items()})
        figures = {name: taken["plain loop"] / figure for name, figure in taken.items()}
        ratio = figures["inturn, threads"] / figures["inturn, processes"]
        goal = Goal("threads: at least 0.95 of the speed of processes", ratio, least=0.95)
        title = f"{ms} ms of pure Python per item, 2 workers"
        tables.append(Table("times as fast as the plain loop", figures, [goal], title=title))
    return tables


@row("P11", "processes, 8 MB to the worker and back, 2 workers")
def large(plan: Plan) -> list[Table]:
    processes = our_processes()
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
        racers: dict[str, Peer] = {"inturn": processes, **PROCESSES}
        del racers["Executor.map(chunksize=64)"], racers["Pool.imap(chunksize=64)"]
        figures = plan.race({name: partial(megabytes, peer, payload) for name, peer in racers.items()})
        ratio = figures["inturn"] / figures["Executor.map"]
        goals = [Goal(f"{kind}: at least 3 times the throughput of `Executor.map`", ratio, least=3)]
        tables.append(Table("MB/s, both ways counted", figures, goals, title=f"8 MB to the worker and back, {kind}"))
    return tables


_SIZES_MS = [0.02, 0.1, 0.3, 1.0, 3.0, 10.0]


@row("P13", "processes, items of 0.02 to 10 ms of pure Python, 2 workers, beside chunks tuned by hand")
def every_size(plan: Plan) -> list[Table]:
    tuned = {
        f"{name}(chunksize={size})": partial(PROCESSES[name], chunksize=size)
        for name in ("Executor.map", "Pool.imap")
        for size in (1, 16, 64)
    }
    tables = []
    for ms in _SIZES_MS:
        items = [max(1, int(work.loops_for(ms / 1000)))] * int(plan.size(1200, 400) / ms)
        racers: dict[str, Peer] = {"inturn": our_processes(), **tuned}
        used: dict[str, list[float]] = {name: [] for name in racers}
        taken = plan.race({name: partial(_timed, peer, items, used[name]) for name, peer in racers.items()})
        best = min(taken, key=lambda name: (name == "inturn", taken[name]))
        share = taken[best] / taken["inturn"]
        goal = Goal(f"{ms} ms: at least 0.97 of the speed of the best of them, `{best}`", share, least=0.97)
        cpu = {name: median(used[name][1:]) for name in taken}
        least = min(cpu, key=lambda name: (name == "inturn", cpu[name]))
        notes = []
        if multiprocessing.get_start_method() == "fork":  # else the workers are children of another process
            notes.append(
                f"CPU time of all processes: {number(cpu['inturn'])} s, "
                f"{number(cpu['inturn'] / cpu[least])} times `{least}`"
            )
        title = f"processes, {ms} ms of pure Python per item"
        tables.append(Table("s", taken, [goal], notes, beside="inturn", title=title))
    return tables


def _timed(peer: Peer, items: Sequence[int], used: list[float]) -> float:
    began = sum(os.times()[:4])
    taken = seconds(peer, work.burn, items, 2)
    used.append(sum(os.times()[:4]) - began)
    return taken


@row("P14", "processes, items that travel alone: CPU time of the parent")
def alone(plan: Plan) -> Table:
    """Measure two runs of different length: the difference has no starting and no ending of workers in it."""

    def cpu(peer: Peer, workers: int) -> float:
        def spent(items: int) -> float:
            began = time.process_time()
            seconds(peer, work.sleep, [0.02] * items, workers)
            return time.process_time() - began

        few, more = 20 * workers, plan.size(2000, 600)  # few: until all workers are started
        return (spent(few + more) - spent(few)) / more * 1e6

    counts = [2, 8, 32, 64]
    racers: dict[str, Peer] = {"inturn": our_processes(), "Executor.map": PROCESSES["Executor.map"]}
    figures = plan.race(
        {f"{name}, {count} workers": partial(cpu, peer, count) for count in counts for name, peer in racers.items()}
    )
    goals = [
        Goal(
            f"{count} workers: at most half of `Executor.map`",
            figures[f"inturn, {count} workers"] / figures[f"Executor.map, {count} workers"],
            most=0.5,
        )
        for count in counts
    ]
    return Table("µs of the parent's CPU per item of 20 ms", figures, goals)
