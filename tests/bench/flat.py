"""Rows about `ordered_flat_map`: P8."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import inturn

from .harness import Goal, Plan, Table, present, row
from .peers import feature

ELEMENTS, PAUSE_S, WORKERS = 20, 0.005, 4


def produce(item: int) -> Iterator[int]:
    """Yield elements at the pace of a device: audio frames, say."""
    for n in range(ELEMENTS):
        time.sleep(PAUSE_S)
        yield item * ELEMENTS + n


async def produce_async(item: int) -> AsyncIterator[int]:
    for n in range(ELEMENTS):
        await asyncio.sleep(PAUSE_S)
        yield item * ELEMENTS + n


def _ours(count: int) -> Iterator[int]:
    with feature("ordered_flat_map")(produce, range(count), concurrency=WORKERS) as elements:
        yield from elements


def _lists(count: int) -> Iterator[int]:
    """Collect a list per item and yield it in its turn: the usual pattern."""
    with ThreadPoolExecutor(WORKERS) as executor:
        for elements in executor.map(lambda item: list(produce(item)), range(count)):
            yield from elements


async def _ours_async(count: int) -> AsyncIterator[int]:
    async with feature("ordered_aflat_map")(produce_async, range(count), concurrency=WORKERS) as elements:
        async for element in elements:
            yield element


async def _aiostream(count: int) -> AsyncIterator[int]:
    from aiostream import stream

    async with stream.concatmap(stream.iterate(range(count)), produce_async, task_limit=WORKERS).stream() as elements:
        async for element in elements:
            yield element


def _in_loop(run: Callable[[int], AsyncIterator[int]], count: int) -> Iterator[int]:
    loop = asyncio.new_event_loop()
    elements = run(count)
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(elements))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@row("P8", "flat map: items of 20 elements, 5 ms each, 4 workers")
def flat(plan: Plan) -> list[Table]:
    feature("ordered_flat_map")
    count = plan.size(40, 12)
    ideal = count * ELEMENTS * PAUSE_S / WORKERS
    firsts: dict[str, list[float]] = {}

    def total(name: str, run: Callable[[int], Iterable[int]]) -> float:
        started = time.perf_counter()
        for element in run(count):
            if element == 0:
                firsts.setdefault(name, []).append((time.perf_counter() - started) * 1e3)
        return (time.perf_counter() - started) / ideal

    racers: dict[str, Callable[[int], Iterable[int]]] = {"inturn": _ours, "a list per item": _lists}
    if hasattr(inturn, "ordered_aflat_map"):
        racers["inturn, asyncio"] = partial(_in_loop, _ours_async)
    if present("aiostream"):
        racers["aiostream.concatmap"] = partial(_in_loop, _aiostream)
    totals = plan.race({name: partial(total, name, run) for name, run in racers.items()})
    first = {name: sorted(each)[len(each) // 2] for name, each in firsts.items()}
    mine = [name for name in totals if name.startswith("inturn")]
    return [
        Table(
            "ms to the first element",
            first,
            [Goal(f"{name}: first element within 10 ms", first[name], most=10) for name in mine],
            title="flat map, time to the first element",
        ),
        Table(
            "÷ ideal (total sleep / 4)",
            totals,
            [Goal(f"{name}: at most 1.08 times the ideal", totals[name], most=1.08) for name in mine],
            title="flat map, total",
        ),
    ]
