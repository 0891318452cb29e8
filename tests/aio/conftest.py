"""Fixtures of the async tests."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from event_loops import KINDS, run_in


@pytest.fixture(params=list(KINDS))
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]:
    """`run(main)` runs a coroutine function in a new event loop, once per kind of loop."""
    return lambda main: run_in(KINDS[request.param], main)
