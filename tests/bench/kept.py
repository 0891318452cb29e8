"""The row about workers that outlive a run."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from time import perf_counter as clock
from typing import Any

from inturn import Processes, Threads, ordered_map

from . import work
from .harness import Goal, Plan, Table, row

_RUNS = 20
_ITEMS = 20


def _milliseconds(run: Callable[[], Any], times: int = _RUNS) -> float:
    """Of `_RUNS` runs, measured by so many of them."""
    run()  # workers that are started when they are first needed are up then
    began = clock()
    for _ in range(times):
        run()
    return (clock() - began) * 1e3 * _RUNS / times


@row("kept", "20 runs of 20 tiny items, one after the other, on 2 workers that are kept")
def kept(plan: Plan) -> list[Table]:
    items = list(range(_ITEMS))
    tables = []
    with ExitStack() as stack:
        for method in multiprocessing.get_all_start_methods():
            anew = Processes(start_method=method, max_workers=2)
            list(ordered_map(work.same, items, executor=anew))  # now, so that a fork server is one that inturn starts
            context = multiprocessing.get_context(method)
            pool = stack.enter_context(context.Pool(2))
            executor = stack.enter_context(ProcessPoolExecutor(2, mp_context=context))
            workers = stack.enter_context(Processes(start_method=method, max_workers=2))
            racers: dict[str, Callable[[], Any]] = {
                "inturn": lambda workers=workers: list(ordered_map(work.same, items, executor=workers)),
                "Pool.imap": lambda pool=pool: list(pool.imap(work.same, items)),
                "Pool.map": lambda pool=pool: pool.map(work.same, items),
                "Executor.map": lambda executor=executor: list(executor.map(work.same, items)),
            }
            timed = {name: partial(_milliseconds, run) for name, run in racers.items()}
            timed["inturn, workers started for each run"] = partial(
                _milliseconds, lambda anew=anew: list(ordered_map(work.same, items, executor=anew)), times=2
            )
            figures = plan.race(timed)
            ratio = figures["inturn"] / figures["Pool.imap"]
            goals = [Goal("at most twice a reused `Pool`, whose results are as early (`imap`)", ratio, most=2)]
            tables.append(Table("ms for all runs", figures, goals, beside="inturn", title=f"20 runs, {method}"))
        threads = stack.enter_context(Threads(max_workers=2))
        figures = plan.race(
            {
                "inturn": lambda: _milliseconds(lambda: list(ordered_map(work.same, items, executor=threads))),
                "inturn, threads started for each run": lambda: _milliseconds(
                    lambda: list(ordered_map(work.same, items, concurrency=2))
                ),
            }
        )
        tables.append(Table("ms for all runs", figures, beside="inturn", title="20 runs, threads"))
    return tables
