"""Fixtures of the tests of worker processes."""

import itertools
import os

import pytest

from inturn import Processes


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def processes(request: pytest.FixtureRequest) -> Processes:
    return Processes(start_method=request.param)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test of all three start methods runs with `fork` and, in turn, with one of the two that start a program."""
    if os.environ.get("INTURN_TESTS") == "all":
        return
    others = itertools.cycle(["forkserver", "spawn"])
    left_out: set[pytest.Item] = set()
    for _, group in itertools.groupby(filter(_takes_processes, items), lambda item: item.nodeid.partition("[")[0]):
        without = next(others)
        left_out.update(item for item in group if item.callspec.params["processes"] == without)  # type: ignore[attr-defined]
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _takes_processes(item: pytest.Item) -> bool:
    return "processes" in getattr(getattr(item, "callspec", None), "params", {})
