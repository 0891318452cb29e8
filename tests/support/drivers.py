"""The drivers: all ways to run calls. The contract tests run on each. To add one, add a `Driver` to the table.

A test asks for what it needs through a fixture of `conftest.py`:

- `driver`: any driver; the functions must be importable by a worker process (`functions_for_workers.py`)
- `inside`: calls run in this process, so that closures, gates and shared lists work
- `overlapping`: like `inside`; calls also overlap, and go on while the consumer is away
- `own`: like `overlapping`; the library also makes the workers
- `refilling`: like `own`; a new worker also replaces one whose call was given up by `timeout`
- `apart`: like `overlapping`, but only drivers whose pools share little code: for tests that take time
- `kinds`: those of `apart`, and serial
- `pulling`: calls run in this process, and the consumer pulls the source
"""

import asyncio
import random
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

import clusters
from async_runs_as_sync import InLoop, in_loop
from event_loops import KINDS
from inturn import Processes, Threads, ordered_map
from waiting import Gate


@dataclass(frozen=True, eq=False)
class Driver:
    name: str
    executor: Callable[[ExitStack, int], object]
    """Makes what `executor=` is given, for so many workers; what must be ended goes on the stack."""
    in_process: bool = True
    """Closures and shared state are visible to the calls."""
    concurrent: bool = True
    """Calls overlap, and go on while the consumer is away."""
    owned: bool = True
    """The library makes the workers, and ends them."""
    refills: bool = False
    """A new worker replaces one whose call was given up by `timeout`."""
    apart: bool = False
    """Its pool shares little code with the other pools: tests that take time run on these only."""
    live: bool = False
    """A feeder pulls the source, not the consumer."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Further arguments of each run."""
    most: int = 4
    """How many combinations of a test's other parameters it runs, unless it is in `FULLY_TESTED` of conftest.py."""
    map: Callable[..., Any] = ordered_map
    in_loop: bool = False
    """Runs are asynchronous: requests of other threads, and signals, wait while a pull blocks the event loop."""
    cluster: bool = False
    """Its workers are those of a cluster, which stays until the tests end: see `clusters.py`."""
    lacks: frozenset[str] = frozenset()
    """Options that its runs do not have."""
    marks: tuple[pytest.MarkDecorator, ...] = ()

    @property
    def blocks(self) -> bool:
        """A call blocks the loop, so that nothing else happens meanwhile; and a pull blocks the calls."""
        return self.in_loop and not self.concurrent


class DuckFuture:
    """The public methods of a future, and nothing else."""

    __slots__ = ("__weakref__", "_future")

    def __init__(self) -> None:
        self._future: Future[Any] = Future()

    def cancel(self) -> bool:
        return self._future.cancel()

    def cancelled(self) -> bool:
        return self._future.cancelled()

    def running(self) -> bool:
        return self._future.running()

    def done(self) -> bool:
        return self._future.done()

    def result(self, timeout: float | None = None) -> Any:
        return self._future.result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return self._future.exception(timeout)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Once it was called, the callback refers to nothing: so tests of references need no garbage collector."""
        owed = [(fn, self)]

        def call(_: object) -> None:
            callback, me = owed.pop()
            callback(me)

        self._future.add_done_callback(call)


class DuckExecutor:
    """Has `submit` and nothing else that is public, and takes what is queued in any order."""

    __slots__ = ("__weakref__", "_changed", "_closed", "_queue", "_random", "_threads")

    def __init__(self, stack: ExitStack, workers: int, seed: int = 0) -> None:
        self._changed = threading.Condition()
        self._queue: list[tuple[DuckFuture, Callable[[], Any]]] = []
        self._random = random.Random(seed)
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()
        stack.callback(self._close)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> DuckFuture:
        future = DuckFuture()
        with self._changed:
            self._queue.append((future, lambda: fn(*args, **kwargs)))
            self._changed.notify()
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                future, call = self._queue.pop(self._random.randrange(len(self._queue)))
            if future._future.set_running_or_notify_cancel():
                try:
                    value = call()
                except BaseException as error:
                    future._future.set_exception(error)
                    del error
                else:
                    future._future.set_result(value)
                    del value
            del future, call

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()


def borrowed(stack: ExitStack, workers: int) -> ThreadPoolExecutor:
    return stack.enter_context(ThreadPoolExecutor(workers))


def in_loop_driver(
    name: str, executor: object, make_loop: Callable[[], Any] = asyncio.new_event_loop, **capabilities: Any
) -> Driver:
    """Asynchronous runs, each in an event loop that the consumer drives."""
    return Driver(
        name,
        lambda stack, workers: executor,
        map=partial(in_loop, make_loop=make_loop),
        in_loop=True,
        lacks=frozenset({"chunksize", "live"}),
        marks=(pytest.mark.filterwarnings("ignore:unclosed <ordered_amap:ResourceWarning"),),  # some are to be dropped
        **capabilities,
    )


DRIVERS = [
    Driver("thread", lambda stack, workers: "thread", refills=True, apart=True),
    Driver("Threads", lambda stack, workers: Threads(), refills=True, most=2),
    Driver("timeout", lambda stack, workers: "thread", refills=True, apart=True, settings={"timeout": 100.0}),
    Driver("live", lambda stack, workers: "thread", refills=True, live=True, settings={"live": True}),
    Driver("borrowed", borrowed, owned=False, apart=True),
    Driver("duck", DuckExecutor, owned=False, most=2),
    Driver("callable", lambda stack, workers: ThreadPoolExecutor, most=2),
    Driver("serial", lambda stack, workers: "serial", concurrent=False, apart=True),
    Driver("process", lambda stack, workers: "process", in_process=False),
    Driver("fork", lambda stack, workers: Processes(start_method="fork"), in_process=False, most=2),
    Driver(
        "kept-threads", lambda stack, workers: stack.enter_context(Threads(max_workers=workers)), owned=False, most=2
    ),
    Driver(
        "kept-processes",
        lambda stack, workers: stack.enter_context(Processes(start_method="fork", max_workers=workers)),
        in_process=False,
        most=2,
    ),
    in_loop_driver("tasks", None, concurrent=False, apart=True),
    *(
        in_loop_driver(f"tasks-{kind}", None, KINDS[kind], concurrent=False, most=1)
        for kind in ("eager", "uvloop")
        if kind in KINDS
    ),
    in_loop_driver("loop-thread", "thread", apart=True, refills=True),
    *(
        Driver("interpreter", lambda stack, workers: "interpreter", in_process=False, most=2)
        for _ in ("3.14 or later",)
        if sys.version_info >= (3, 14)
    ),
    *(
        Driver(name, connect, in_process=False, owned=False, most=1, cluster=True, marks=clusters.MARKS[name])
        for name, connect in (("dask", clusters.dask), ("ray", clusters.ray), ("loky", clusters.loky))
    ),
]


class Runner:
    """A driver at work in one test: makes runs, and ends them, and their executors, with the test."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.stack = ExitStack()
        self._runs: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def live(self) -> bool:
        return self.driver.live

    def executor(self, workers: int = 4) -> Any:
        return self.driver.executor(self.stack, workers)

    def map(self, fn: Callable[..., Any], *iterables: Any, concurrency: int = 4, **settings: Any) -> Any:
        if "executor" not in settings:
            settings["executor"] = self.executor(concurrency)
        for option in self.driver.lacks & settings.keys():
            if settings.pop(option):
                pytest.skip(f"its runs have no {option}")
        run = self.driver.map(fn, *iterables, concurrency=concurrency, **{**self.driver.settings, **settings})
        self._runs.add(run)
        return run

    def end(self) -> None:
        Gate.open_all()
        for run in list(self._runs):
            run.close()
            if isinstance(run, InLoop):
                run.end()
        self.stack.close()
