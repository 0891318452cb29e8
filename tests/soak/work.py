"""What the runs of the soak call, in this process and in workers.

An item is ``(index, kind, amount)``. What becomes of it depends on nothing else, so that `plans` knows it beforehand.
"""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from inturn import ordered_map

Item = tuple[int, str, float]
LONG_S = 600.0  # a call that hangs; it is given up, killed or cancelled long before


class Oops(Exception):
    """The error of a call."""


class SourceOops(Exception):
    """The error of a source."""


def value_of(item: Item) -> Any:
    index, kind, amount = item
    if kind == "big":
        return bytes([index % 256]) * int(amount)
    if kind in {"nested", "shared"}:
        return index, sum(range(int(amount)))
    return index, "done"


class Caller:
    """``fn`` of a run; what it needs to know of its attempts is in this process, or in files.

    Args:
        directory: Where attempts are written down, for calls in other processes.
        shared: An executor on which runs inside of calls run.
    """

    def __init__(self, directory: str | None = None, shared: Any = None) -> None:
        self.directory = directory
        self.shared = shared
        self.calls: Counter[int] = Counter()
        self.lock = threading.Lock()
        self.released = threading.Event()  # ends the calls that hang in threads
        self.close: Any = None  # called by the item of kind "close"

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["directory"])  # type: ignore[misc]

    def attempt(self, index: int) -> int:
        """Count this attempt of the item."""
        if self.directory is None:
            with self.lock:
                self.calls[index] += 1
                return self.calls[index]
        attempt = 1
        while True:
            try:
                (Path(self.directory) / f"{index}-{attempt}").touch(exist_ok=False)
            except FileExistsError:
                attempt += 1
            else:
                return attempt

    def __call__(self, item: Item) -> Any:
        index, kind, amount = item
        self.before(index, kind, amount)
        if kind == "sleep":
            time.sleep(amount)
        elif kind == "spin":
            until = time.perf_counter() + amount
            while time.perf_counter() < until:
                pass
        elif kind == "hang":
            self.released.wait(LONG_S)
        elif kind == "nested":
            return index, sum(ordered_map(abs, range(int(amount)), concurrency=2))
        elif kind == "shared":
            return index, sum(ordered_map(abs, range(int(amount)), concurrency=2, executor=self.shared))
        elif kind == "close":
            self.close()
        elif kind == "lock":
            return threading.Lock()  # cannot be pickled
        return value_of(item)

    def before(self, index: int, kind: str, amount: float) -> None:
        """What fails, fails here."""
        if kind == "fail":
            raise Oops(index)
        if kind == "stop":
            raise StopIteration(index)
        if kind == "exit":
            raise SystemExit(index)
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(LONG_S)
        if kind == "leave":
            os._exit(0)
        if (kind == "flaky" or self.directory is None) and self.attempt(index) <= amount and kind == "flaky":
            raise Oops(index)

    def flat(self, item: Item) -> Any:
        """``fn`` of a flat map: elements, and then what becomes of the item."""
        index, kind, amount = item
        before = elements_before(item)
        if kind in {"flaky", "fail0", "die0"}:
            self.before(index, kind.rstrip("0"), amount)
        for number in range(before):
            if kind == "sleep":
                time.sleep(amount / 10)
            yield index, number
        if kind == "hang":
            self.released.wait(LONG_S)
        elif kind == "close":
            self.close()
        elif kind in {"fail", "die", "leave", "exit"}:
            self.before(index, kind, amount)

    async def task(self, item: Item) -> Any:
        """``fn`` of the asynchronous siblings."""
        index, kind, amount = item
        self.before(index, kind, amount)
        if kind == "sleep":
            await asyncio.sleep(amount)
        elif kind == "hang":
            await asyncio.sleep(LONG_S)
        elif kind == "close":
            await self.close()
        elif kind == "spin":
            await asyncio.sleep(0)
        return value_of(item)

    async def aflat(self, item: Item) -> Any:
        index, kind, amount = item
        if kind in {"flaky", "fail0"}:
            self.before(index, kind.rstrip("0"), amount)
        for number in range(elements_before(item)):
            if kind == "sleep":
                await asyncio.sleep(amount / 10)
            yield index, number
        if kind == "hang":
            await asyncio.sleep(LONG_S)
        elif kind in {"fail", "exit"}:
            self.before(index, kind, amount)


def elements_before(item: Item) -> int:
    """How many elements an item of a flat map has before it ends, or fails."""
    index, kind, _ = item
    return 0 if kind in {"fail0", "die0"} else 1 + index % 9
