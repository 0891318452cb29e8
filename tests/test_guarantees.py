"""Every numbered guarantee has a line in the docs and a test that names it."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "guarantees.md").read_text(encoding="utf-8")
NUMBERS = [int(number) for number in re.findall(r"^(\d+)\. ", PAGE, re.MULTILINE)]


def test_the_guarantees_are_numbered_without_a_gap():
    assert list(range(1, 34)) == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_each_guarantee_has_a_test_that_names_it(number):
    name = f"def test_g{number:02}_"
    assert any(name in path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.py"))
