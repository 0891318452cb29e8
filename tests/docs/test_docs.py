"""Everything the documentation shows runs."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clusters
import inturn
from waiting import HANG_S

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python[ \t]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
ENGINES = {
    "dask": re.compile(r"^from distributed import", re.MULTILINE),
    "ray": re.compile(r"^import ray\b", re.MULTILINE),
}
BLOCKS = [
    pytest.param(
        page,
        page.read_text()[: match.start(1)].count("\n"),
        match[1],
        id=f"{page.name}-{number}",
        marks=[mark for name, needs in ENGINES.items() if needs.search(match[1]) for mark in clusters.MARKS[name]],
    )
    for page in PAGES
    for number, match in enumerate(BLOCK.finditer(page.read_text()), 1)
]
MODULES = sorted(
    module.name.partition(".")[2]
    for module in pkgutil.walk_packages(inturn.__path__, "inturn.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize(("page", "line", "code"), BLOCKS)
def test_every_block_of_python_in_the_documentation_runs(page, line, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n" * line + code  # blank lines, so that a traceback shows the line of the page
    if "process" in code.lower():  # its workers import the program
        (tmp_path / "block.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(Path(inturn.__file__).parents[1]))
        strict = [] if "import Client" in code or "import ray" in code else ["-W", "error"]  # theirs are not ours
        subprocess.run([sys.executable, *strict, "block.py"], check=True, timeout=HANG_S)
    else:
        exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("name", ["", *MODULES])
def test_every_example_in_a_docstring_runs(name):
    module = importlib.import_module(f"inturn.{name}".rstrip("."))
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in finder.find(module, globs={**vars(inturn), **vars(module)}):
        runner.run(test)
    assert runner.failures == 0


def test_every_public_function_shows_an_example():
    for name in inturn.__all__:
        thing = getattr(inturn, name)
        if callable(thing) and not isinstance(thing, type):
            assert ">>>" in thing.__doc__, name


def test_the_readme_has_no_link_that_is_dead_where_it_is_shown_alone():
    """On PyPI the pages of the repository are not beside it: it names them instead."""
    text = PAGES[0].read_text()
    assert all("://" in target for target in re.findall(r"\]\(([^)]+)\)", text))
    for page in re.findall(r"`(docs/[^`]*)`", text):
        assert (ROOT / page).exists(), page


def test_every_link_inside_the_documentation_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_contents():
    contents = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        if page.stem != "index":
            assert f"]({page.name})" in contents, page.name
            assert f"\n{page.stem}\n" in contents, page.name


@pytest.mark.parametrize("name", inturn.__all__)
def test_every_public_name_is_in_the_reference(name):
    assert re.search(rf":: {name}(\(\))?$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_is_at_most_100_columns_wide(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in prose.splitlines() if len(line) > 100 and not line.startswith("|")] == []
