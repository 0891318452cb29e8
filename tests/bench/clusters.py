"""Row P17: tiny items through Dask and Ray, on a cluster of two workers on this machine."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import inturn

from . import work
from .harness import Goal, NotYet, Plan, Table, present, row

FEWER = 2_000


def _spent(count: int, start: Callable[[], Iterable[Any]]) -> float:
    """Microseconds per item."""
    started = time.perf_counter()
    assert sum(1 for _ in start()) == count
    return (time.perf_counter() - started) / count * 1e6


def _ours(executor: Any, count: int) -> float:
    return _spent(count, lambda: inturn.ordered_map(work.same, range(count), executor=executor))


def _table(plan: Plan, name: str, peer: str, executor: Any, theirs: Callable[[], float]) -> Table:
    many = plan.size(100_000, 20_000)
    ours = f"inturn, executor={name}"
    figures = plan.race({ours: partial(_ours, executor, many), peer: theirs})
    goal = Goal(f"{name}: at most a twentieth of `{peer}`", figures[ours] / figures[peer], most=0.05)
    note = f"inturn over {many:,} items, `{peer}` over {FEWER:,}, per item"
    return Table("µs per item", figures, [goal], [note], beside=ours, title=f"tiny items through {name}, 2 workers")


def _dask(plan: Plan) -> Table:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):

        def theirs() -> float:
            return _spent(FEWER, lambda: client.gather(client.map(work.same, range(FEWER), pure=False)))

        return _table(plan, "client", "client.map", client, theirs)


class Worker:
    def same(self, item: Any) -> Any:
        return item


def _ray(plan: Plan) -> Table:
    import ray
    from ray.util import ActorPool

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # its workers import this package
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        kind = ray.remote(num_cpus=0)(Worker)  # so that CPUs are left for the tasks of the other contestant
        pool = ActorPool([kind.remote() for _ in range(2)])

        def theirs() -> float:
            return _spent(FEWER, lambda: pool.map(lambda actor, item: actor.same.remote(item), range(FEWER)))

        return _table(plan, "ray", "ActorPool.map", ray, theirs)
    finally:
        ray.shutdown()


@row("P17", "tiny items through Dask and Ray, 2 workers")
def clusters(plan: Plan) -> list[Table]:
    tables = [measure(plan) for module, measure in (("distributed", _dask), ("ray", _ray)) if present(module)]
    if not tables:
        raise NotYet("neither distributed nor ray is installed")
    return tables
