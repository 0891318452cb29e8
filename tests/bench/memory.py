"""Row P9: peak memory, each measurement in a fresh process (``python -m bench.memory driver items``)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from . import peers, work
from .harness import Goal, NotYet, Plan, Table, row

FEW = 10_000


def _consume(results: object) -> None:
    for _ in results:  # type: ignore[attr-defined]
        pass


def _borrowed(count: int) -> None:
    with ThreadPoolExecutor(4) as executor:
        peers.ours(work.same, range(count), 4, _consume, executor=executor)


def _tasks(count: int) -> None:
    import asyncio

    from .tasks import ours

    asyncio.run(ours(work.same_async, range(count), 16))


OURS: dict[str, Callable[[int], object]] = {
    "inturn, serial": lambda n: peers.ours(work.same, range(n), 1, _consume, executor="serial"),
    "inturn, threads": lambda n: peers.ours(work.same, range(n), 4, _consume),
    "inturn, threads, live": lambda n: peers.ours(work.same, range(n), 4, _consume, live=True),
    "inturn, borrowed executor": _borrowed,
    "inturn, processes": lambda n: peers.our_processes()(work.same, range(n), 2, _consume),
    "inturn, asyncio": _tasks,
}
PEERS: dict[str, Callable[[int], object]] = {
    name: lambda n, peer=peer: peer(work.same, range(n), 4, _consume)  # type: ignore[misc]
    for name, peer in peers.THREADS.items()
    if name in {"Executor.map", "ThreadPool.imap", "streamable", "joblib", "mpire"}
}


def peak_mb() -> float:
    """Return the most memory that this process and its largest child have held, in MB."""
    import resource  # not on Windows

    scale = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / scale
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would begin with what the parent held when it forked
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6 + children
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale + children


def measured(driver: str, count: int) -> float:
    """Return the peak in MB of a fresh process that runs so many items."""
    paths = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "bench.memory", driver, str(count)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        raise NotYet(done.stdout.strip())
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return float(done.stdout)


def growth(driver: str, count: int) -> float:
    """Return by how many MB the peak is higher with so many items than with a few."""
    return measured(driver, count) - measured(driver, FEW)


@row("P9", "peak memory, 10,000,000 items beside 10,000")
def memory(plan: Plan) -> Table:
    many, fewer = plan.size(10_000_000, 1_000_000), 200_000
    notes, racers = [], {}
    for name in OURS:
        try:
            measured(name, 1)
        except NotYet as missing:
            notes.append(f"{name}: {missing} is not there yet")
        else:
            racers[name] = partial(growth, name, many // 10 if "live" in name else many)  # live: 10 µs an item
    racers |= {f"{name}, {fewer:,} items": partial(growth, name, fewer) for name in PEERS}
    figures = {name: racer() for name, racer in racers.items()}  # once: nothing else moves these figures
    goals = [Goal(f"{name}: within 5 MB", figures[name], most=5) for name in OURS if name in figures]
    return Table("MB more", figures, goals, notes)


if __name__ == "__main__":
    try:
        {**OURS, **PEERS}[sys.argv[1]](int(sys.argv[2]))
    except NotYet as missing:
        print(missing)
        sys.exit(3)
    print(peak_mb())
