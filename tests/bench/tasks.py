"""Rows about asyncio: P3, and P7 with an async source."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from . import work
from .harness import Goal, Plan, Table, present, row
from .peers import feature


async def ours(fn: Callable[[Any], Awaitable[Any]], items: Iterable[Any], concurrency: int) -> None:
    async with feature("ordered_amap")(fn, items, concurrency=concurrency) as results:
        async for _ in results:
            pass


async def gathered(fn: Callable[[Any], Awaitable[Any]], items: Iterable[Any], concurrency: int) -> None:
    semaphore = asyncio.Semaphore(concurrency)

    async def one(item: Any) -> Any:
        async with semaphore:
            return await fn(item)

    for _ in await asyncio.gather(*(one(item) for item in items)):
        pass


async def _streamable(count: int) -> None:
    from streamable import stream

    async for _ in stream(range(count)).map(work.same_async, concurrency=16):
        pass


async def _aiostream(count: int) -> None:
    from aiostream import stream

    async with stream.map(stream.iterate(range(count)), work.same_async, task_limit=16).stream() as results:
        async for _ in results:
            pass


async def _aiometer(count: int) -> None:
    import aiometer

    for _ in await aiometer.run_on_each(work.same_async, range(count), max_at_once=16) or ():
        pass


@row("P3", "asyncio, a function that returns at once, 100,000 items, 16 at once")
def tiny(plan: Plan) -> Table:
    feature("ordered_amap")
    full = plan.size(100_000, 20_000)

    def per_item(run: Callable[[int], Awaitable[None]], count: int) -> float:
        async def main() -> float:
            started = time.perf_counter()
            await run(count)
            return (time.perf_counter() - started) / count * 1e6

        return asyncio.run(main())

    racers: dict[str, tuple[Callable[[int], Awaitable[None]], int]] = {
        "inturn": (lambda count: ours(work.same_async, range(count), 16), full),
        "Semaphore + gather": (lambda count: gathered(work.same_async, range(count), 16), full),
    }
    peers = {
        "streamable": (_streamable, full),
        "aiostream": (_aiostream, full // 10),
        "aiometer": (_aiometer, full // 10),
    }
    racers.update({name: peers[name] for name in present(*peers)})
    figures = plan.race({name: partial(per_item, run, count) for name, (run, count) in racers.items()})
    goals = [
        Goal(f"at most half of {name}", figures["inturn"] / figures[name], most=0.5)
        for name in ("Semaphore + gather", "streamable")
        if name in figures
    ]
    return Table("µs per item", figures, goals, ["aiometer keeps no order"], beside="inturn")


async def _live(count: int) -> AsyncIterator[float]:
    for _ in range(count):
        yield 0.01
        await asyncio.sleep(0.05)


async def _sleep(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return time.perf_counter()


def live_lateness(count: int) -> float:
    """Return the milliseconds that a due result of an async live source waits, at worst."""
    ordered_amap = feature("ordered_amap")

    async def main() -> float:
        worst = delivered = 0.0
        async with ordered_amap(_sleep, _live(count), concurrency=4) as results:
            async for moment in results:
                now = time.perf_counter()
                worst = max(worst, now - max(moment, delivered))
                delivered = now
        return worst * 1e3

    return asyncio.run(main())
