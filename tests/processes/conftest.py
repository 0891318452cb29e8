"""Fixtures of the tests of worker processes."""

import pytest

from inturn import Processes


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def processes(request: pytest.FixtureRequest) -> Processes:
    return Processes(start_method=request.param)
