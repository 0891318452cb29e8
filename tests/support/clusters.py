"""Real clusters of Dask and Ray, and a pool of loky, with two workers each. They start with the first test that needs
one. They stay until all tests of this process have run: to start one takes seconds. What they keep in this process
(threads, connections) comes and goes when they like. So conftest.py puts the tests that need one at the end, and does not
look for leftovers after them.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
import warnings
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from waiting import HANG_S

_running = ExitStack()


def _marks(module: str, package: str, *warnings: str) -> tuple[pytest.MarkDecorator, ...]:
    missing = find_spec(module) is None
    return (
        pytest.mark.skipif(missing, reason=f"{module} is not installed: pip install {package}"),
        pytest.mark.cluster,
        *(pytest.mark.filterwarnings(f"ignore:{text}") for text in warnings),
    )


MARKS = {
    "dask": _marks("distributed", "'inturn[dask]'"),
    "ray": _marks("ray", "'inturn[ray]'"),
    "loky": _marks("loky", "loky"),
}


@cache
def dask_cluster() -> Any:
    import dask
    from distributed import LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": 0,  # what dies is not run again by Dask: fewer deaths
        "distributed.deploy.lost-worker-timeout": "10 minutes",  # else a worker that is slow to restart is given up
    }
    _running.enter_context(dask.config.set(settings))
    return _running.enter_context(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))


@cache
def dask_client() -> Any:
    from distributed import Client

    return _running.enter_context(Client(dask_cluster()))


@cache
def ray_module() -> Any:
    import ray

    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # its workers have to find the tests
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # older versions leave files open
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    _running.callback(ray.shutdown)
    return ray


@cache
def loky_pool() -> Any:
    import loky

    pool = loky.get_reusable_executor(max_workers=2, timeout=None)
    _running.callback(pool.shutdown, kill_workers=True)
    return pool


def loky(stack: ExitStack, workers: int) -> Any:
    return loky_pool()


def dask(stack: ExitStack, workers: int) -> Any:
    return dask_client()


def ray(stack: ExitStack, workers: int) -> Any:
    return ray_module()


def executor(name: str) -> Any:
    if name == "ray":
        return ray_module()
    return dask_client() if name == "dask" else dask_client().get_executor()


class Place:
    """A directory in which calls, in any process of this machine, leave word, and wait for it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def say(self, word: object) -> None:
        (self.path / f"{word} {uuid.uuid4()}").write_text(str(os.getpid()))

    def heard(self, word: object) -> list[int]:
        """Who has said so, and how often: the numbers of the processes."""
        said = [path for path in self.path.iterdir() if path.name.rpartition(" ")[0] == str(word)]
        return [int(text) for path in said if (text := path.read_text())]

    def wait(self, word: object, times: int = 1) -> list[int]:
        """Until it was said so often; in a call also until the test is over."""
        until = time.monotonic() + HANG_S
        while len(pids := self.heard(word)) < times and not self.heard("over"):
            assert time.monotonic() < until, f"nobody said {word!r}, but {sorted(os.listdir(self.path))}"
            time.sleep(0.01)  # a file announces nothing to wait for
        return pids


def end() -> None:
    """End those that were started."""
    _running.close()
