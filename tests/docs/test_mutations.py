"""The ways to break the library of `tests/mutations` still fit its code. That each is caught is shown by that command."""

import ast
import shutil
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run():
    sys.path.insert(0, str(TESTS))
    try:
        from mutations import run
    finally:
        sys.path.remove(str(TESTS))
    return run


def test_every_mutation_can_be_applied_and_its_test_exists(run, tmp_path):
    for number, mutation in enumerate(run.MUTATIONS):
        src = tmp_path / str(number)
        shutil.copytree(run.ROOT / "src" / "inturn" / mutation.wing, src / "inturn" / mutation.wing)
        run.apply(mutation, src)
        file, _, name = mutation.test.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        names |= {ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets}
        assert name in names, mutation


def test_each_wing_that_runs_calls_is_broken_in_several_ways(run):
    wings = [mutation.wing for mutation in run.MUTATIONS]
    assert len(wings) >= 25
    for wing in ("_engine", "_core", "_pools", "_processes", "_transport", "_aio"):
        assert wings.count(wing) >= 4, wing


def test_contributing_lists_them(run):
    """If it does not: `python tests/mutations --write`."""
    assert run.BEGIN + run.table() + run.END in run.PAGE.read_text(encoding="utf-8")
