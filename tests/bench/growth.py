"""Row P15: how cost grows with items, window, concurrency and payload.

``python tests/bench/growth.py docs/images/growth.svg`` draws the curves.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench import tasks, work
from bench.harness import Goal, Plan, Table, number, row
from bench.peers import THREADS, Peer, our_processes, ours
from bench.threads import per_item, seconds

_WAIT_S = 0.1
_SLEEP_S = 0.02

Points = dict[int, float]


class Curve(NamedTuple):
    """How a figure grows with a quantity. A power of the quantity is a straight line where both axes are logarithmic."""

    title: str
    unit: str
    quantity: str
    lines: dict[str, Points]  # by contestant
    goals: list[Goal]


def exponent(points: Points) -> float:
    """Return the slope of the line through the logarithms, by least squares."""
    xs = [math.log(x) for x in points]
    ys = [math.log(y) for y in points.values()]
    x, y = fmean(xs), fmean(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def _measured(plan: Plan, contestants: dict[str, dict[int, Callable[[], float]]]) -> dict[str, Points]:
    figures = plan.race({f"{name}|{x}": call for name, calls in contestants.items() for x, call in calls.items()})
    return {name: {x: figures[f"{name}|{x}"] for x in calls} for name, calls in contestants.items()}


# ---- the curves ----------------------------------------------------------------------------------


def by_items(plan: Plan) -> Curve:
    counts = [10**k for k in range(3, plan.size(8, 6))]

    def run(peer: Peer, workers: int, count: int) -> float:
        return seconds(peer, work.same, range(count), workers)

    def run_tasks(count: int) -> float:
        started = time.perf_counter()
        asyncio.run(tasks.ours(work.same_async, range(count), 16))
        return time.perf_counter() - started

    lines = _measured(
        plan,
        {
            "inturn, threads": {n: partial(run, ours, 4, n) for n in counts},
            "inturn, processes": {n: partial(run, our_processes(), 2, n) for n in counts},
            "inturn, asyncio": {n: partial(run_tasks, n) for n in counts[:-1]},
        },
    )
    goals = [
        Goal(f"{name}: exponent, 1 expected", exponent(dict(list(points.items())[-3:])), most=1.1)
        for name, points in lines.items()
    ]
    return Curve("tiny items", "s", "items", lines, goals)


def by_window(plan: Plan) -> Curve:
    windows = [4**k for k in range(3, 9)]
    count = plan.size(200_000, 50_000)
    runs = {window: partial(per_item, partial(ours, window=window), count, 4) for window in windows}
    lines = _measured(plan, {"inturn, threads": runs})
    goals = [Goal("exponent, at most 0 expected", exponent(lines["inturn, threads"]), most=0.1)]
    return Curve("tiny items on 4 threads", "µs per item", "window", lines, goals)


def by_threads(plan: Plan) -> Curve:
    counts = [1, 4, 16, 64] + ([] if plan.quick else [256, 512])

    def run(peer: Peer, workers: int) -> float:
        return seconds(peer, work.sleep, [_SLEEP_S] * (workers * 20), workers) / (20 * _SLEEP_S)

    racers: dict[str, Peer] = {"inturn, threads": ours, "ThreadPoolExecutor": THREADS["Executor.map"]}
    lines = _measured(plan, {name: {n: partial(run, peer, n) for n in counts} for name, peer in racers.items()})
    last = counts[-1]
    ratio = lines["inturn, threads"][last] / lines["ThreadPoolExecutor"][last]
    goals = [Goal(f"{last} threads: no slower than `ThreadPoolExecutor`", ratio, most=1.0)]
    return Curve("20 sleeps of 20 ms for each thread", "times the ideal", "threads", lines, goals)


def by_tasks(plan: Plan) -> Curve:
    counts = [256, 4096, 10_000]
    calls = plan.size(20_000, 10_000)

    def cpu(run: Callable[..., Coroutine[Any, Any, None]], concurrency: int) -> float:
        started = time.process_time()
        asyncio.run(run(asyncio.sleep, [_WAIT_S] * calls, concurrency))
        return (time.process_time() - started) / calls * 1e6

    racers = {"inturn, asyncio": tasks.ours, "Semaphore + gather": tasks.gathered}
    lines = _measured(plan, {name: {n: partial(cpu, run, n) for n in counts} for name, run in racers.items()})
    goals = [
        Goal(
            f"{n:,} at once: no more than Semaphore + gather",
            lines["inturn, asyncio"][n] / lines["Semaphore + gather"][n],
            most=1.0,
        )
        for n in counts
    ]
    return Curve("calls that wait 0.1 s", "µs of CPU per call", "tasks at once", lines, goals)


def by_payload(plan: Plan) -> Curve:
    sizes = [1, *(4**k for k in range(5, plan.size(14, 12)))]

    def run(size: int) -> float:
        count = max(20, min(2000, plan.size(400_000_000, 40_000_000) // size))
        return seconds(our_processes(), work.same, [bytes(size)] * count, 2) / count * 1e3

    lines = _measured(plan, {"inturn, processes": {size: partial(run, size) for size in sizes}})
    large = {size: figure for size, figure in lines["inturn, processes"].items() if size >= 1 << 20}
    goals = [Goal("exponent from 1 MB on, 1 expected", exponent(large), most=1.1)]
    return Curve("bytes to a worker and back, 2 workers", "ms per item", "bytes", lines, goals)


CURVES = [by_items, by_window, by_threads, by_tasks, by_payload]


@row("P15", "how cost grows")
def growth(plan: Plan) -> list[Table]:
    tables = []
    for measure in CURVES:
        curve = measure(plan)
        figures = {
            f"{name}, {x:,} {curve.quantity}": figure
            for name, points in curve.lines.items()
            for x, figure in points.items()
        }
        tables.append(Table(curve.unit, figures, curve.goals, title=f"{curve.title}, by {curve.quantity}"))
    return tables


# ---- the picture ---------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 460, 250, 56, 44, 16, 40

_STYLE = """
.growth { font: 12px system-ui, sans-serif; --ink: #222; --grid: #ddd; --paper: #fff }
.growth text { fill: var(--ink) }
.growth .grid { stroke: var(--grid) }
.growth .a { stroke: #0b6bcb; fill: #0b6bcb } .growth .b { stroke: #c2570c; fill: #c2570c }
.growth .c { stroke: #2f8132; fill: #2f8132 }
.growth polyline.line { fill: none; stroke-width: 2 }
.growth text.a, .growth text.b, .growth text.c { stroke: none }
@media (prefers-color-scheme: dark) { .growth { --ink: #ddd; --grid: #444; --paper: #16181c } }
"""


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
    return low, max(high, low + 1)


def _short(power: int) -> str:
    if -3 <= power <= 3:
        return f"{10.0**power:g}"
    return {4: "10 k", 5: "100 k", 6: "1 M", 7: "10 M", 8: "100 M"}.get(power, f"1e{power}")


def _panel(curve: Curve, left: int, top: int) -> list[str]:
    xs = [x for points in curve.lines.values() for x in points]
    ys = [y for points in curve.lines.values() for y in points.values()]
    (x0, x1), (y0, y1) = _decades(xs), _decades(ys)
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + _LEFT + (math.log10(x) - x0) / (x1 - x0) * width
        return across, top + _TOP + (y1 - math.log10(y)) / (y1 - y0) * height

    parts = [f'<text x="{left + _LEFT}" y="{top + 16}" font-weight="600">{curve.title}</text>']
    parts.append(f'<text x="{left + _LEFT}" y="{top + 32}">{curve.unit}</text>')
    for power in range(x0, x1 + 1):
        across = at(10.0**power, 10.0**y0)[0]
        parts.append(
            f'<line class="grid" x1="{across:.1f}" x2="{across:.1f}" y1="{top + _TOP}" y2="{top + _TOP + height}"/>'
        )
        parts.append(
            f'<text x="{across:.1f}" y="{top + _TOP + height + 16}" text-anchor="middle">{_short(power)}</text>'
        )
    for power in range(y0, y1 + 1):
        down = at(10.0**x0, 10.0**power)[1]
        parts.append(
            f'<line class="grid" x1="{left + _LEFT}" x2="{left + _LEFT + width}" y1="{down:.1f}" y2="{down:.1f}"/>'
        )
        parts.append(f'<text x="{left + _LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{_short(power)}</text>')
    parts.append(f'<text x="{left + _LEFT + width}" y="{top + _HEIGHT - 8}" text-anchor="end">{curve.quantity}</text>')
    for place, (name, points) in enumerate(curve.lines.items()):
        kind = "abc"[place]
        path = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in points.items())
        parts.append(f'<polyline class="line {kind}" points="{path}"/>')
        parts += [
            '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>'.format(kind, *at(x, y)) for x, y in points.items()
        ]
        parts.append(f'<text class="{kind}" x="{left + _LEFT + 8}" y="{top + _TOP + 16 + 15 * place}">{name}</text>')
    return parts


def picture(curves: Sequence[Curve]) -> str:
    """Return the curves as a self-contained SVG, in two columns."""
    rows = -(-len(curves) // 2)
    size = f'width="{2 * _WIDTH}" height="{rows * _HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="growth" {size} viewBox="0 0 {2 * _WIDTH} {rows * _HEIGHT}">'
    ]
    parts += [f"<style>{_STYLE}</style>", f'<rect {size} style="fill: var(--paper)"/>']
    for place, curve in enumerate(curves):
        parts += _panel(curve, place % 2 * _WIDTH, place // 2 * _HEIGHT)
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    chosen = [measure(Plan(3, quick=False, label="growth")) for measure in CURVES]
    Path(sys.argv[1]).write_text(picture(chosen), encoding="utf-8")
    for curve in chosen:
        for name, points in curve.lines.items():
            print(curve.title, name, {x: number(y) for x, y in points.items()})
        print(*curve.goals, sep="\n")
