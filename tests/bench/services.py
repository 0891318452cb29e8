"""The row about rate limits: P16."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from .harness import Goal, Plan, Table, row
from .peers import feature

RATE = 200


def _threads(items: list[float]) -> list[float]:
    starts: list[float] = []

    def call(seconds: float) -> None:
        starts.append(time.perf_counter())
        time.sleep(seconds)

    for _ in feature("ordered_map")(call, items, concurrency=16, limit=RATE):
        pass
    return starts


def _tasks(items: list[float]) -> list[float]:
    starts: list[float] = []

    async def call(seconds: float) -> None:
        starts.append(time.perf_counter())
        await asyncio.sleep(seconds)

    async def main() -> None:
        async with feature("ordered_amap")(call, items, limit=RATE) as results:
            async for _ in results:
                pass

    asyncio.run(main())
    return starts


def most_in_a_second(starts: list[float]) -> int:
    """Return the largest number of starts in any interval of one second."""
    most = first = 0
    for last, at in enumerate(starts):
        while at - starts[first] > 1:
            first += 1
        most = max(most, last - first + 1)
    return most


@row("P16", "limit=200, 2,000 calls of 1 to 50 ms, 16 at once")
def limited(plan: Plan) -> Table:
    rng = random.Random(16)
    items = [rng.uniform(0.001, 0.050) for _ in range(plan.size(2000, 600))]
    most: dict[str, int] = {}

    def used(name: str, run: Callable[[list[float]], list[float]]) -> float:
        starts = sorted(run(items))
        most[name] = max(most.get(name, 0), most_in_a_second(starts))
        return 100 * (len(starts) - 1) / (RATE * (starts[-1] - starts[0]))

    figures = plan.race(
        {"inturn, threads": lambda: used("threads", _threads), "inturn, asyncio": lambda: used("asyncio", _tasks)}
    )
    goals = [Goal(f"{name[8:]}: at least 95 % of the quota used", figure, least=95) for name, figure in figures.items()]
    goals += [
        Goal(
            f"{name}: in no second more than rate * per + burst = {RATE + 1} starts, in any round", count, most=RATE + 1
        )
        for name, count in most.items()
    ]
    return Table("% of the quota used", figures, goals)
