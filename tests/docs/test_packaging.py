"""What `pyproject.toml` says of the package."""

import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
GROUPS = PROJECT["dependency-groups"]
EXTRAS = PROJECT["project"]["optional-dependencies"]


def group(name):
    found = []
    for each in GROUPS[name]:
        found += group(each["include-group"]) if isinstance(each, dict) else [each]
    return found


def test_the_extra_for_developers_is_the_group_of_the_same_name():
    assert sorted(EXTRAS["dev"]) == sorted(group("dev"))


def test_nothing_is_published_for_developers_but_that():
    assert set(EXTRAS) == {"progress", "pickle", "dask", "ray", "testing", "dev"}
    assert PROJECT["project"]["dependencies"] == []


def test_the_extras_that_tests_need_are_in_their_group():
    needed = {entry.split(">=")[0] for name in ("progress", "pickle", "testing") for entry in EXTRAS[name]}
    assert needed <= {entry.split(">=")[0] for entry in group("test")}


def test_free_threading_is_claimed():
    assert "Programming Language :: Python :: Free Threading :: 3 - Stable" in PROJECT["project"]["classifiers"]
