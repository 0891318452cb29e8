"""What the contestants are given to do; importable in worker processes."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median
from typing import Any


def same(x: Any) -> Any:
    """Return the argument: the tiniest function there is."""
    return x


async def same_async(x: Any) -> Any:
    """Return the argument without ever waiting."""
    return x


def sleep(seconds: float) -> float:
    """Sleep; return the time at which it was over."""
    time.sleep(seconds)
    return time.perf_counter()


def sleep_for(stage: int, item: tuple[float, ...]) -> tuple[float, ...]:
    """Sleep as long as that stage takes for the item; return the item."""
    time.sleep(item[stage])
    return item


async def sleep_for_async(stage: int, item: tuple[float, ...]) -> tuple[float, ...]:
    """Wait as long as that stage takes for the item; return the item."""
    await asyncio.sleep(item[stage])
    return item


def sleep_if_any(seconds: float) -> float:
    """Sleep if there is something to sleep; return the time at which it was over."""
    if seconds:
        time.sleep(seconds)
    return time.perf_counter()


def burn(loops: int) -> int:
    """Keep one CPU busy in pure Python."""
    total = 0
    for i in range(loops):
        total += i & 7
    return total


def call_each(fn: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """Call the function with each item, in a process of one's own."""
    for item in items:
        fn(item)


def loops_for(seconds: float) -> float:
    """Return how many loops of `burn` take that long, undisturbed."""

    def once() -> float:
        started = time.perf_counter()
        burn(100_000)
        return time.perf_counter() - started

    return seconds / min(once() for _ in range(20)) * 100_000


def sleep_overshoot() -> float:
    """Return by how many seconds `time.sleep` of a very short time is longer than asked for."""

    def once() -> float:
        started = time.perf_counter()
        time.sleep(1e-5)
        return time.perf_counter() - started - 1e-5

    return median(once() for _ in range(200))


def spread(count: int, shortest: float, longest: float, seed: int = 0) -> list[float]:
    """Return durations spread evenly over the orders of magnitude between the two, in random order."""
    rng = random.Random(20260101 + seed)
    return [math.exp(rng.uniform(math.log(shortest), math.log(longest))) for _ in range(count)]


def best_total(durations: Sequence[float], workers: int, window: int) -> float:
    """Return the seconds that items take which start in order, each as soon as a worker and the window allow.

    Item i may start when item i - window has been delivered, that is, when it and all before it have ended.
    """
    free = [0.0] * workers
    delivered: list[float] = []
    latest = 0.0
    for i, duration in enumerate(durations):
        start = max(heapq.heappop(free), delivered[i - window] if i >= window else 0.0)
        heapq.heappush(free, start + duration)
        latest = max(latest, start + duration)
        delivered.append(latest)
    return latest


def live(items: int, pause: float) -> Iterator[float]:
    """Yield an item, then pause, again and again: a source that is itself slow."""
    for _ in range(items):
        yield 0.01
        time.sleep(pause)


def worst_lateness(ready: Iterable[float]) -> float:
    """Consume results that say when they were ready; return the most seconds that one which was due had to wait.

    A result is due when it is ready and the one before it has been delivered.
    """
    worst = delivered = 0.0
    for moment in ready:
        now = time.perf_counter()
        worst = max(worst, now - max(moment, delivered))
        delivered = now
    return worst
