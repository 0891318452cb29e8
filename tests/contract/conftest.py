"""Fixtures of the contract tests."""

import pytest

ITEMS = 12  # of most tests here


@pytest.fixture(params=[1, 5, ITEMS, 30], ids=["one", "below", "equal", "above"])
def window(request: pytest.FixtureRequest) -> int:
    """Windows below, at and above the number of items."""
    return request.param
