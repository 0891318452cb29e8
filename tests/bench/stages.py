"""The row about pipelines: how long a chain of stages takes, beside its slowest stage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from inturn import Processes, ordered_amap, ordered_map

from . import work
from .harness import Goal, Plan, Table, row

WORKERS = 4
WINDOW = 32
Item = tuple[float, ...]  # the seconds that each stage takes for it
first, second, third = (partial(work.sleep_for, stage) for stage in range(3))


def items_of(count: int) -> list[Item]:
    """Return items whose second stage takes one and a half times as long as the others."""
    durations = [work.spread(count, 0.002, 0.02, seed=stage) for stage in range(3)]
    return [(one, 1.5 * two, three) for one, two, three in zip(*durations, strict=True)]


def threads(items: list[Item]) -> int:
    """Run three stages on threads."""
    results: Iterable[Item] = items
    for fn in (first, second, third):
        results = ordered_map(fn, results, concurrency=WORKERS, window=WINDOW)
    return sum(1 for _ in results)


async def tasks(items: list[Item]) -> int:
    """Run three stages on asyncio."""
    results: Any = items
    for stage in range(3):
        results = ordered_amap(partial(work.sleep_for_async, stage), results, concurrency=WORKERS, window=WINDOW)
    async with results:
        return len([result async for result in results])


async def mixed(kept: Processes, items: list[Item]) -> int:
    """Run the stages on worker processes, asyncio and threads."""
    heard = ordered_map(first, items, executor=kept, concurrency=WORKERS, window=WINDOW)
    translated = ordered_amap(partial(work.sleep_for_async, 1), heard, concurrency=WORKERS, window=WINDOW)
    spoken = ordered_amap(third, translated, executor="thread", concurrency=WORKERS, window=WINDOW)
    async with spoken:
        return len([result async for result in spoken])


def only_second_thread(items: list[Item]) -> int:
    """Run the slowest stage by itself, on threads."""
    return sum(1 for _ in ordered_map(second, items, concurrency=WORKERS, window=WINDOW))


async def only_second_task(items: list[Item]) -> int:
    """Run the slowest stage by itself, on asyncio."""
    second_async = partial(work.sleep_for_async, 1)
    return len([item async for item in ordered_amap(second_async, items, concurrency=WORKERS, window=WINDOW)])


def one_after_the_other(items: list[Item]) -> int:
    """Run each stage to its end before the next one begins."""
    results = items
    with ThreadPoolExecutor(WORKERS) as pool:
        for fn in (first, second, third):
            results = list(pool.map(fn, results))
    return len(results)


def together(items: list[Item]) -> int:
    """Run all three stages of an item in one call, by as many workers as the stages have in all."""
    with ThreadPoolExecutor(3 * WORKERS) as pool:
        return sum(1 for _ in pool.map(all_three, items))


def all_three(item: Item) -> Item:
    return third(second(first(item)))


@row("stages", "three stages of 2 to 20 ms, the second one slower, 4 workers each, window=32")
def stages(plan: Plan) -> Table:
    items = items_of(plan.size(400, 100))
    late = work.sleep_overshoot()
    ideal = max(work.best_total([item[stage] + late for item in items], WORKERS, len(items)) for stage in range(3))

    def ratio(run: Callable[[], int]) -> float:
        started = time.perf_counter()
        assert run() == len(items)
        return (time.perf_counter() - started) / ideal

    with Processes(max_workers=WORKERS) as kept:
        list(ordered_map(first, items[: 2 * WORKERS], executor=kept, concurrency=WORKERS, chunksize=1))  # they are up
        figures = plan.race(
            {
                "inturn, threads": partial(ratio, lambda: threads(items)),
                "inturn, asyncio": partial(ratio, lambda: asyncio.run(tasks(items))),
                "inturn, processes, asyncio, threads": partial(ratio, lambda: asyncio.run(mixed(kept, items))),
                "the slowest stage by itself, threads": partial(ratio, lambda: only_second_thread(items)),
                "the slowest stage by itself, asyncio": partial(ratio, lambda: asyncio.run(only_second_task(items))),
                "Executor.map, a call for all stages, 12 workers": partial(ratio, lambda: together(items)),
                "Executor.map, stage after stage": partial(ratio, lambda: one_after_the_other(items)),
            }
        )
    by_itself = {"threads": "threads", "asyncio": "asyncio", "processes, asyncio, threads": "asyncio"}
    goals = [
        Goal(
            f"{chain}: at most 1.1 times its slowest stage by itself",
            figures[f"inturn, {chain}"] / figures[f"the slowest stage by itself, {kind}"],
            most=1.1,
        )
        for chain, kind in by_itself.items()
    ]
    return Table(
        "times the ideal of the slowest stage",
        figures,
        goals,
        [
            "one call for all stages needs one kind of worker for all of them, and none has a bound or a limit of its own"
        ],
    )
