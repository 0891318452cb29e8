"""Every numbered guarantee has a line in the docs and a test that names it."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "guarantees.md").read_text(encoding="utf-8")
NUMBERS = [int(number) for number in re.findall(r"^(\d+)\. ", PAGE, re.MULTILINE)]
KEPT = [
    (int(entry.split(".")[0]), name, path)
    for entry in re.split(r"^(?=\d+\. )", PAGE, flags=re.MULTILINE)[1:]
    for name, path in re.findall(r"Kept by `([\w.]+)` in\s+`([\w/.]+)`", entry)
]


def test_the_guarantees_are_numbered_without_a_gap():
    planned = PAGE.partition("## Not built yet")[2].partition("\n## ")[0]
    missing = {int(number) for number in re.findall(r"^\| (\d+) \|", planned, re.MULTILINE)} - {19}  # in part
    assert [number for number in range(1, 39) if number not in missing] == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_each_guarantee_has_a_test_that_names_it(number):
    name = f"def test_g{number:02}_"
    assert any(name in path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))


def test_the_page_lists_the_test_files_of_each_guarantee():
    rows = {number: re.search(rf"^\| {number} \| (`.*/test_.*`) \|$", PAGE, re.MULTILINE) for number in NUMBERS}
    listed = {number: set(re.findall(r"`([\w/]+)`", row[1])) if row else set() for number, row in rows.items()}
    texts = {
        path.relative_to(TESTS).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
        for path in TESTS.rglob("test_*.py")
    }
    assert listed == {n: {name for name, text in texts.items() if f"def test_g{n:02}_" in text} for n in NUMBERS}


def test_the_page_says_of_each_guarantee_where_it_is_kept():
    assert sorted({number for number, _, _ in KEPT}) == NUMBERS


@pytest.mark.parametrize(("number", "name", "path"), KEPT)
def test_what_keeps_a_guarantee_bears_its_number(number, name, path):
    node = ast.parse((TESTS.parent / "src" / "inturn" / path).read_text(encoding="utf-8"))
    for part in name.split("."):
        node = next(child for child in node.body if getattr(child, "name", None) == part)
    named = re.findall(r"[Gg]uarantees? (\d+(?: and \d+)*)", ast.get_docstring(node) or "")
    assert str(number) in " and ".join(named).split(" and ")
