"""Rows about threads, and some about both threads and processes: P1, P4, P6, P7, P10, P12."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import inturn
from inturn import ordered_map

from . import work
from .harness import Goal, NotYet, Plan, Table, row
from .peers import PROCESSES, THREADS, Peer, our_processes, ours
from .tasks import live_lateness


def seconds(peer: Peer, fn: Callable[..., Any], items: Iterable[Any], workers: int) -> float:
    """Return how long the peer takes from the start of its workers to their end."""

    def consume(results: Iterable[Any]) -> None:
        for _ in results:
            pass

    started = time.perf_counter()
    peer(fn, items, workers, consume)
    return time.perf_counter() - started


def per_item(peer: Peer, count: int, workers: int) -> float:
    """Return the microseconds an item takes with a function that returns its argument."""
    return seconds(peer, work.same, range(count), workers) / count * 1e6


@row("P1", "threads, a tiny function, 200,000 items, 4 workers")
def tiny(plan: Plan) -> Table:
    full = plan.size(200_000, 100_000)
    fewer = dict.fromkeys(["Executor.map", "streamable", "joblib", "mpire", "pebble", "pypeln"], full // 10)
    racers: dict[str, Peer] = {"inturn": ours, **THREADS}
    figures = plan.race({name: partial(per_item, peer, fewer.get(name, full), 4) for name, peer in racers.items()})
    ratio = figures["Executor.map"] / figures["inturn"]
    return Table(
        "µs per item",
        figures,
        [
            Goal("at most 0.5 µs per item", figures["inturn"], most=0.5),
            Goal("at least 25 times faster than `Executor.map`", ratio, least=25),
            Goal(
                "at most 2.5 times the hand-tuned `ThreadPool.imap(chunksize=64)`, which is unbounded",
                figures["inturn"] / figures["ThreadPool.imap(chunksize=64)"],
                most=2.5,
            ),
        ],
        [f"{', '.join(name for name in fewer if name in figures)}: over a tenth of the items, per item"],
        beside="inturn",
    )


def bare_threads(fn: Callable[..., Any], items: Iterable[Any], workers: int, consume: Any) -> None:
    """Run the items on threads and keep no order: what the machine can do."""
    source = iter(items)
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                item = next(source, None)
            if item is None:
                return
            fn(item)

    threads = [threading.Thread(target=run) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@row("P4", "threads, sleeps of 1 to 20 ms, 2,000 items, 16 workers")
def sleeps(plan: Plan) -> Table:
    rng = random.Random(4)
    items = [rng.uniform(0.001, 0.020) for _ in range(plan.size(2000, 500))]
    ideal = sum(items) / 16
    racers: dict[str, Peer] = {"inturn": ours, "bare threads, unordered": bare_threads, **THREADS}
    del racers["ThreadPool.imap(chunksize=64)"]
    figures = plan.race({name: partial(seconds, peer, work.sleep, items, 16) for name, peer in racers.items()})
    figures = {name: figure / ideal for name, figure in figures.items()}
    return Table(
        "÷ ideal (total sleep / 16)", figures, [Goal("at most 1.06 times the ideal", figures["inturn"], most=1.06)]
    )


def _spread(
    plan: Plan,
    kind: str,
    peers: tuple[Peer, Peer],
    fn: Callable[..., Any],
    workers: int,
    costs: list[float],
    items: Any,
) -> Table:
    """Race the first peer against the best schedule of the items' costs in seconds, in three orders.

    The second peer, an unbounded one, shows what the machine could do meanwhile.
    """
    by_cost = sorted(range(len(items)), key=costs.__getitem__)
    orders = {"at random": range(len(items)), "slow first": by_cost[::-1], "slow last": by_cost}
    windows = {"window by default": None, f"window={8 * workers}": 8 * workers}
    racers, best = {}, {}
    for order, indices in orders.items():
        for label, window in windows.items():
            name = f"inturn, {order}, {label}"
            arranged = [items[i] for i in indices]
            racers[name] = partial(seconds, partial(peers[0], window=window), fn, arranged, workers)
            best[name] = work.best_total([costs[i] for i in indices], workers, window or 2 * workers)
    racers["imap, at random, no window"] = partial(seconds, peers[1], fn, items, workers)
    best["imap, at random, no window"] = work.best_total(costs, workers, len(items))
    figures = {name: figure / best[name] for name, figure in plan.race(racers).items()}
    worst = max(figure for name, figure in figures.items() if name.startswith("inturn"))
    return Table(
        "÷ best schedule for that window",
        figures,
        [Goal(f"{kind}: at most 1.1 times the best schedule, whatever the order", worst, most=1.1)],
        ["best: items start in order, each as soon as a worker and the window (by default twice the workers) allow"],
        title=f"durations over four orders of magnitude, {kind}",
    )


@row("P6", "durations spread over four orders of magnitude")
def spread(plan: Plan) -> list[Table]:
    durations = work.spread(plan.size(2000, 500), 10e-6, 100e-3)
    overshoot = work.sleep_overshoot()
    costs = [duration + overshoot for duration in durations]
    tables = [_spread(plan, "16 threads", (ours, THREADS["ThreadPool.imap"]), work.sleep, 16, costs, durations)]
    try:
        processes = our_processes()
    except NotYet:
        return tables
    loops = work.loops_for(1.0)
    durations = work.spread(plan.size(2000, 300), 3e-6, 30e-3)
    burns = [int(d * loops) for d in durations]
    pair = (processes, PROCESSES["Pool.imap"])
    return [*tables, _spread(plan, "2 processes", pair, work.burn, 2, durations, burns)]


@row("P7", "a live source: an item each 50 ms, the function takes 10 ms")
def live(plan: Plan) -> Table:
    count = plan.size(20, 10)

    def lateness(peer: Peer) -> float:
        return peer(work.sleep, work.live(count, 0.05), 4, work.worst_lateness) * 1e3

    racers: dict[str, Peer] = {"inturn, live=True": partial(ours, live=True), "inturn": ours, **THREADS}
    del racers["ThreadPool.imap(chunksize=64)"]
    contestants = {name: partial(lateness, peer) for name, peer in racers.items()}
    if hasattr(inturn, "ordered_amap"):
        contestants["inturn, asyncio"] = partial(live_lateness, count)
    figures = plan.race(contestants)
    goals = [
        Goal("with `live=True`, at most 15 ms", figures["inturn, live=True"], most=15),
        Goal("without, one pull (50 ms) at most", figures["inturn"], most=50 + 15),
    ]
    if "inturn, asyncio" in figures:
        goals.append(Goal("asyncio, at most 15 ms", figures["inturn, asyncio"], most=15))
    return Table("ms that a due result waits, at worst", figures, goals)


@row("P10", "cost jumps from 1 µs to 200 ms without warning, 4 workers")
def jump(plan: Plan) -> list[Table]:
    return [_jump(plan, "threads", ours), _jump(plan, "processes", our_processes())]


def _jump(plan: Plan, kind: str, peer: Callable[..., Any]) -> Table:
    slow = plan.size(8, 4)
    run_of = [0.0] * 5000 + [0.2] * 5  # thousands of tiny ones, then five slow ones at once
    alone = [0.0] * 997 + [0.2]  # now and then a slow one
    items = (run_of * (slow // 2) + alone * slow) + [0.0] * 500
    waits: dict[str, list[float]] = {}

    def total(name: str, **options: Any) -> float:
        def consume(results: Iterable[float]) -> None:
            waits.setdefault(name, []).append(work.worst_lateness(results) * 1e3)

        started = time.perf_counter()
        peer(work.sleep_if_any, items, 4, consume, **options)
        return time.perf_counter() - started

    options: dict[str, dict[str, int]] = {
        "inturn": {},
        "inturn, chunksize=1": {"chunksize": 1},
        "inturn, window=4096": {"window": 4096},
        "inturn, chunksize=1, window=4096": {"chunksize": 1, "window": 4096},
    }
    figures = plan.race({name: partial(total, name, **given) for name, given in options.items()})
    late = {name: sorted(each)[len(each) // 2] for name, each in waits.items()}
    return Table(
        "s in all",
        figures,
        [
            Goal(
                "at most 1.1 times what chunks of one take",
                figures["inturn"] / figures["inturn, chunksize=1"],
                most=1.1,
            ),
            Goal(
                "the same, both with window=4096",
                figures["inturn, window=4096"] / figures["inturn, chunksize=1, window=4096"],
                most=1.1,
            ),
            Goal("no due result waits longer than the time slice (10 ms), in ms", late["inturn"], most=10),
            Goal("the same, with window=4096, in ms", late["inturn, window=4096"], most=10),
        ],
        title=f"cost jumps from 1 µs to 200 ms, {kind}",
    )


_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def import_ms(module: str) -> float:
    """Return the milliseconds that a fresh interpreter takes to import the module."""
    command = [sys.executable, "-c", _IMPORT.format(module)]
    cached = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=cached).stdout) * 1e3


def four_items(ours_too: bool) -> float:
    """Return the microseconds that four items on four threads take, pool and all."""
    times = 200
    started = time.perf_counter()
    for _ in range(times):
        if ours_too:
            for _ in ordered_map(work.same, range(4), concurrency=4):
                pass
        else:
            with ThreadPoolExecutor(4) as executor:
                for _ in executor.map(work.same, range(4)):
                    pass
    return (time.perf_counter() - started) / times * 1e6


@row("P12", "start-up")
def start_up(plan: Plan) -> list[Table]:
    plan = Plan(4 * plan.rounds, plan.quick, plan.label)
    imports = plan.race({name: partial(import_ms, name) for name in ("inturn", "concurrent.futures")})
    small = plan.race({"inturn": partial(four_items, True), "ThreadPoolExecutor": partial(four_items, False)})
    ratio = imports["inturn"] / imports["concurrent.futures"]
    return [
        Table(
            "ms",
            imports,
            [Goal("at most 1.3 times `import concurrent.futures`", ratio, most=1.3)],
            beside="concurrent.futures",
            title="import, in a fresh interpreter",
        ),
        Table(
            "µs",
            small,
            [Goal("at most 1.5 times the same by hand", small["inturn"] / small["ThreadPoolExecutor"], most=1.5)],
            beside="ThreadPoolExecutor",
            title="4 items on 4 threads, from start to end",
        ),
    ]
