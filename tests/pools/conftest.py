"""Clusters, for the tests that need one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import clusters


def _any_of(*names: str) -> list[Any]:
    return [pytest.param(name, marks=clusters.MARKS[name.partition("-")[0]]) for name in names]


@pytest.fixture(params=_any_of("dask", "dask-executor", "ray"))
def cluster(request: pytest.FixtureRequest) -> Any:
    """What is given as ``executor=``."""
    return clusters.executor(request.param)


@pytest.fixture(params=_any_of("dask", "ray"))
def client(request: pytest.FixtureRequest) -> Any:
    """The same without what `get_executor` returns: its futures may fail by themselves when a worker dies."""
    return clusters.executor(request.param)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[clusters.Place]:
    """Where calls on a cluster leave word, and wait for it."""
    place = clusters.Place(tmp_path)
    yield place
    place.say("over")  # nobody waits any longer
