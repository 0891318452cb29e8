"""Guarantee 34, as a service sees it: the client of `docs/examples/api_calls.py` keeps its rules."""

import os
import re

import pytest

from programs import run_example

PACES = [1, *([0.1, 10] if os.environ.get("INTURN_LONG_TESTS") == "1" else [])]  # most of its time has its own pace


@pytest.mark.long
@pytest.mark.parametrize("pace", PACES)
def test_g34_a_client_keeps_the_rules_of_a_service_and_loses_nothing(pace, tmp_path):
    """The example itself checks that all answers are there, in order."""
    out = run_example("api_calls", cwd=tmp_path, pace=pace)
    assert out.count("800 items in order") == out.count("nothing lost") == 2
    assert out.count("  0 inside its 2 times of silence") == 2
    for calls, over in re.findall(r"counted (\d+) calls: (\d+) over its quota", out):
        assert int(over) <= int(calls) / 100  # a busy machine may deliver calls closer together than they started
    assert out.splitlines()[-1].startswith("gained: ")
