"""``python tests/bench/picture.py docs/images/slow_head.svg`` draws the picture of README.md.

The same slow item under `Executor.map`, `ThreadPool.imap` and `ordered_map`: measured, and drawn as `run.trace` is.
Needs Python 3.14 or later, where `Executor.map` has a `buffersize`.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from inturn import ordered_map
from inturn._model.drawing import timeline
from inturn._model.recorder import TraceItem, Wait

WORKERS, WINDOW, ITEMS = 4, 32, 60
SLOW = 2  # the index of the slow item
LEGEND = 34  # pixels, left out but for the last


def seconds(index: int) -> float:
    """Return how long the item takes."""
    return 0.5 if index == SLOW else 0.05


class Observed:
    """One ordered map at work: what it pulls, calls and delivers, and when."""

    def __init__(self, start: Callable[[Callable[[int], int], Iterator[int]], Iterator[int]]) -> None:
        self.pulled: dict[int, float] = {}
        self.calls: dict[int, tuple[int, float, float]] = {}
        self.delivered: list[tuple[int, float]] = []
        self.waits: list[Wait] = []
        self.held = 0  # the most items that were pulled and not yet delivered
        self.zero = time.perf_counter()
        results = start(self.call, self.source())
        begun = self.now()
        for index in results:
            self.delivered.append((index, self.now()))
            self.waits.append(Wait(begun, self.now(), index))
            begun = self.now()

    def now(self) -> float:
        return time.perf_counter() - self.zero

    def source(self) -> Iterator[int]:
        for index in range(ITEMS):
            self.pulled[index] = self.now()
            self.held = max(self.held, len(self.pulled) - len(self.delivered))
            yield index

    def call(self, index: int) -> int:
        started = self.now()
        time.sleep(seconds(index))
        self.calls[index] = (threading.get_ident(), started, self.now())
        return index

    def draw(self, title: str) -> str:
        workers: dict[int, int] = {}
        delivered = dict(self.delivered)
        items = []
        for index, (thread, started, finished) in sorted(self.calls.items(), key=lambda call: call[1][1]):
            worker = workers.setdefault(thread, len(workers) + 1)
            items.append(TraceItem(index, 1, worker, self.pulled[index], started, finished, delivered[index], "done"))
        return timeline(items, self.delivered, self.waits, title.format(held=self.held))


def main() -> None:
    with ThreadPoolExecutor(WORKERS) as executor, ThreadPool(WORKERS) as pool:
        ways: list[tuple[str, Callable[[Any, Any], Any]]] = [
            (
                "Executor.map(buffersize=4): workers idle behind a slow item",
                lambda fn, xs: executor.map(fn, xs, buffersize=WORKERS),
            ),
            ("Pool.imap: workers busy, but all {held} items read at once", pool.imap),
            (
                f"ordered_map(window={WINDOW}): workers busy, at most {{held}} items held",
                lambda fn, xs: ordered_map(fn, xs, concurrency=WORKERS, window=WINDOW),
            ),
        ]
        pictures = [Observed(start).draw(title) for title, start in ways]
    top, parts = 0.0, []
    for number, picture in enumerate(pictures, 1):
        full = float(re.search(r' height="([\d.]+)"', picture)[1])  # type: ignore[index]
        height = full if number == len(pictures) else full - LEGEND
        picture = picture.replace(f'960 {full:g}"', f'960 {height:g}"', 1)
        picture = picture.replace(f' height="{full:g}"', f' height="{height:g}"', 1)
        parts.append(picture.replace("<svg ", f'<svg y="{top:g}" ', 1))
        top += height
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {top:g}" width="960" height="{top:g}">'
    Path(sys.argv[1]).write_text(head + "".join(parts) + "</svg>\n")


if __name__ == "__main__":
    main()
