"""How a plan is carried out: by a consumer in a thread, or in an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from inturn import (
    Processes,
    Threads,
    ordered_aflat_map,
    ordered_amap,
    ordered_flat_map,
    ordered_gather,
    ordered_map,
)

from .plans import BY_SIGNAL, LEAVES, POLICY, Plan
from .work import Caller, SourceOops


class Signalled(Exception):
    """Raised by a signal handler."""


class Body(Exception):
    """Raised by the body of a loop."""


class Shared:
    """What lives as long as the soak: executors that are passed in."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(4)
        self.processes = ProcessPoolExecutor(2, multiprocessing.get_context("forkserver"))
        self.kept_threads: Any = None  # a `with` block lasts for a round
        self.kept_processes: Any = None
        for pool, workers in ((self.threads, 4), (self.processes, 2)):  # none of them is to start later
            list(pool.map(time.sleep, [0.2] * workers))

    @contextlib.contextmanager
    def keep(self) -> Iterator[None]:
        """Workers that all runs of a round may share."""
        with Threads(max_workers=3) as self.kept_threads, Processes(max_workers=2) as self.kept_processes:
            yield
        self.kept_threads = self.kept_processes = None

    def close(self) -> None:
        self.threads.shutdown()
        self.processes.shutdown()


def executor_of(plan: Plan, shared: Shared) -> Any:
    if "kept" in plan.driver:
        return shared.kept_processes if "process" in plan.driver else shared.kept_threads
    word = plan.driver.rpartition(" ")[2]
    return {
        "executor": shared.processes if plan.driver == "process executor" else shared.threads,
        "callable": ThreadPoolExecutor,
        "Threads": Threads(initializer=time.perf_counter, finalizer=time.perf_counter),
        "fork": Processes(start_method="fork"),
        "spawn": Processes(start_method="spawn"),
        "forkserver": Processes(start_method="forkserver", max_tasks_per_worker=7),
        "live": "thread",
        "tasks": None,
        "gather": None,
    }.get(word, word)


class Source:
    """The source of a plan. It knows how many items are held, as far as the consumer has said what it was given."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.pulled = 0
        self.received = 0
        self.most = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self.plan.items:
            self.pulled += 1
            self.most = max(self.most, self.pulled - self.received)
            yield item
        if self.plan.source_fails:
            raise SourceOops

    async def stream(self) -> Any:
        for number, item in enumerate(self):
            if number % 5 == 4:
                await asyncio.sleep(0)
            yield item

    def given(self) -> Any:
        if self.plan.tasks and self.plan.endless:
            return self.stream()
        return (
            iter(self)
            if self.plan.endless or self.plan.source_fails or "window" in self.plan.options
            else self.plan.items
        )

    def check(self) -> None:
        """Guarantee 3, where each item delivers one result."""
        window = self.plan.options.get("window")
        if window is not None and not self.plan.flat and self.plan.policy in {"raise", "return", "sentinel", "retry"}:
            ahead = self.plan.driver == "live" or self.plan.tasks  # it may pull before the consumer has counted
            assert self.most <= window + ahead, f"{self.most} items were held, with window={window}"


def carry_out(plan: Plan, rng: random.Random, shared: Shared) -> None:
    """Run it, and check what was delivered; `AssertionError` if that is wrong."""
    directory = tempfile.mkdtemp(prefix="soak-") if plan.in_processes else None
    caller = Caller(directory, shared.threads)
    try:
        source = Source(plan)
        if plan.tasks:
            asyncio.run(_in_loop(plan, caller, source, shared))
        else:
            _in_thread(plan, caller, source, rng, shared)
        source.check()
    finally:
        caller.released.set()
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)


# ---- in a thread ---------------------------------------------------------------------------------


def _in_thread(plan: Plan, caller: Caller, source: Source, rng: random.Random, shared: Shared) -> None:
    options = {**plan.options, "executor": executor_of(plan, shared), "on_error": POLICY.get(plan.policy, plan.policy)}
    if plan.driver == "live":
        options["live"] = True
    make, fn = (ordered_flat_map, caller.flat) if plan.flat else (ordered_map, caller)
    run = make(fn, source.given(), **options)
    caller.close = run.close
    outcome = Outcome()
    helper = threading.Timer(plan.delay_s, run.close) if plan.ending == "elsewhere" else None
    if helper is not None:
        helper.start()
    try:
        try:
            _arm(plan, run)
            _consume(plan, run, source, outcome)
        finally:
            _disarm(plan)
    except (Signalled, KeyboardInterrupt):  # in `next`, or in the body of the loop
        if plan.ending not in BY_SIGNAL:
            raise
        _disarm(plan)
    got, end, complete = outcome.got, outcome.end, outcome.complete
    if plan.ending == "drop":
        caller.close = None
        del run
    elif plan.ending == "error":
        with contextlib.suppress(Body), run:
            raise Body
    else:
        run.close()
        assert next(run, None) is None
        assert run.stats.running == 0 or run.stats.abandoned, run.stats
        if complete and end is None and not plan.flat and "skip" not in plan.policy and "own" not in plan.policy:
            assert run.stats.delivered == len(got), run.stats
    if helper is not None:
        helper.join()
    caller.close = None
    plan.check(got, end, complete=complete)


class Outcome:
    """What the consumer was given: the results, the name of the error, and whether that was all."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.end: str | None = None
        self.complete = False


def _consume(plan: Plan, run: Any, source: Source, outcome: Outcome) -> None:
    try:
        for result in run:
            outcome.got.append(result)
            source.received += 1
            if plan.slow:
                time.sleep(0.001)
            if len(outcome.got) == plan.after and plan.ending in LEAVES:
                return
        outcome.complete = plan.ending == "all" or plan.ending in LEAVES
    except (Signalled, AssertionError):
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and plan.ending == "interrupt":
            raise
        if not (isinstance(error, TimeoutError) and plan.ending == "deadline" and "deadline" in str(error)):
            outcome.end = type(error).__name__


def _arm(plan: Plan, run: Any) -> None:
    """Have a signal of the system's timer end the run, at any moment."""

    def handler(number: int, frame: Any) -> None:
        if plan.ending == "close by signal":
            run.close()
        elif plan.ending == "interrupt":
            raise KeyboardInterrupt
        else:
            raise Signalled

    if plan.ending in BY_SIGNAL:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, max(1e-5, plan.delay_s))


def _disarm(plan: Plan) -> None:
    if plan.ending in BY_SIGNAL:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


# ---- in an event loop ----------------------------------------------------------------------------


async def _in_loop(plan: Plan, caller: Caller, source: Source, shared: Shared) -> None:
    before = asyncio.all_tasks()
    options = {**plan.options, "on_error": POLICY.get(plan.policy, plan.policy)}
    if plan.driver == "gather":
        await _gather(plan, caller, source, options)
    else:
        await _iterate(plan, caller, source, options, shared)
    for _ in range(1000):  # tasks that a dropped run has cancelled end by themselves
        left = asyncio.all_tasks() - before
        if not left:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"tasks are left: {left}")


async def _gather(plan: Plan, caller: Caller, source: Source, options: dict[str, Any]) -> None:
    got: list[Any] = []
    try:
        async with asyncio.timeout(plan.delay_s if plan.ending == "cancel" else None) as limit:
            got = await ordered_gather(caller.task, source.given(), **options)
    except BaseException as error:
        if isinstance(error, TimeoutError) and limit.expired():
            return
        assert type(error).__name__ in plan.errors_of_all(), f"it raised {error!r}"
    else:
        plan.check(got, None, complete=True)


async def _iterate(plan: Plan, caller: Caller, source: Source, options: dict[str, Any], shared: Shared) -> None:
    got: list[Any] = []
    end: str | None = None
    complete = False
    run: Any
    executor = executor_of(plan, shared)
    if plan.flat:
        run = ordered_aflat_map(caller.aflat, source.given(), **options)
    elif executor is None:
        run = ordered_amap(caller.task, source.given(), **options)
    else:
        run = ordered_amap(caller, source.given(), executor=executor, **options)
    caller.close = run.aclose
    closer = asyncio.create_task(_close_later(run, plan.delay_s)) if plan.ending == "elsewhere" else None
    limit = asyncio.timeout(plan.delay_s if plan.ending == "cancel" else None)
    try:
        async with limit:
            async for result in run:
                got.append(result)
                source.received += 1
                if plan.slow:
                    await asyncio.sleep(0.001)
                if len(got) == plan.after and plan.ending in LEAVES:
                    break
            else:
                complete = plan.ending == "all" or plan.ending in LEAVES
    except BaseException as error:
        end = type(error).__name__
        if end == "TimeoutError" and (limit.expired() or (plan.ending == "deadline" and "deadline" in str(error))):
            end = None
        elif isinstance(error, AssertionError):
            raise
    if closer is not None:
        await closer
    caller.close = None
    if plan.ending == "drop":
        del run
    elif plan.ending == "error":
        with contextlib.suppress(Body):
            async with run:
                raise Body
    else:
        await run.aclose()
        assert run.stats.running == 0 or run.stats.abandoned, run.stats
    plan.check(got, end, complete=complete)


async def _close_later(run: Any, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await run.aclose()
