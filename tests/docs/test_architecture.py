"""The shape of the library itself: who imports whom, how long files are, what an import costs; and that of its tests."""

import ast
import functools
import importlib
import inspect
import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import inturn

PACKAGE = Path(inturn.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
TESTS = Path(__file__).parents[1]
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in FILES)
ENTRIES = {"__init__", "__main__"}

WINGS = [
    "_base",
    "_model",
    "_transport",
    "_engine",
    "_core",
    "_pools",
    "_processes",
    ("_sync", "_aio"),
    "_api",
    "testing",
]
"""The sub-packages, from the ground up. A wing imports those below it; wings on one floor do not import each other."""

FLOOR = {wing: floor for floor, wings in enumerate(WINGS) for wing in ([wings] if isinstance(wings, str) else wings)}
HEAVY = {
    "asyncio", "cloudpickle", "concurrent.futures.process", "concurrent.futures.thread", "dask", "dataclasses", "distributed",
    "inspect", "logging", "multiprocessing", "ray", "tqdm", "typing_extensions",
}  # fmt: skip


def imports(module):
    """The modules of the library that this one imports: at the top, under TYPE_CHECKING and inside functions alike."""
    found = set()
    parts = module.split(".")
    for node in ast.walk(ast.parse((PACKAGE / f"{'/'.join(parts)}.py").read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            assert not any(name.partition(".")[0] == "inturn" for name in names), "written as from ... import"
        if not isinstance(node, ast.ImportFrom):
            continue
        where = ".".join(["inturn", *parts][: -node.level]) if node.level else ""
        where = ".".join(filter(None, [where, node.module]))
        if where.partition(".")[0] == "inturn":
            where = where.partition(".")[2]
            for alias in node.names:
                names = {where, f"{where}.{alias.name}".strip(".")} & set(MODULES)
                found |= names or {f"{where}.__init__".strip(".")}
    return found


@functools.cache
def all_imports():
    return {module: imports(module) for module in MODULES}


def reach(module):
    found, todo = set(), [module]
    while todo:
        new = all_imports()[todo.pop()] - found
        found |= new
        todo += new
    return found


def wing(module):
    return module.partition(".")[0]


def test_no_module_is_in_a_circle_of_imports():
    assert not [module for module in MODULES if module in reach(module)]


def test_imports_point_downwards_only():
    for module in MODULES:
        if wing(module) not in ENTRIES:
            others = all_imports()[module] - (
                {"__init__"} if wing(module) == "testing" else set()
            )  # a user of the library
            for other in others:
                assert wing(other) == wing(module) or FLOOR[wing(other)] < FLOOR[wing(module)], (module, other)


def test_every_folder_is_a_wing_that_says_what_may_come_in():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(FLOOR)
    for name in folders:
        assert "import" in importlib.import_module(f"inturn.{name}").__doc__.lower()
    assert len(folders | ENTRIES - {"__init__"}) <= 12


@pytest.mark.parametrize("engine", [module for module in MODULES if wing(module) == "_engine"])
def test_the_engine_has_no_threads_no_clock_and_no_io(engine):
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{engine.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    assert not {name.split(".")[0] for name in names} & {"threading", "queue", "time", "asyncio", "os", "io", "_thread"}


def test_no_file_has_grown_past_one_thought():
    for path in FILES:
        lines = path.read_text().splitlines()
        if path.parent.name == "_api":  # signatures and their documentation; what is left is short
            lines = lines[max((number for number, line in enumerate(lines) if line == "@overload"), default=0) :]
        assert len(lines) <= 450, path


def test_no_file_of_the_tests_is_longer_than_600_lines():
    lengths = {path.relative_to(TESTS).as_posix(): len(path.read_text().splitlines()) for path in TESTS.rglob("*.py")}
    assert not {name: length for name, length in lengths.items() if length > 600}


def test_the_folders_of_the_tests_are_the_wings():
    """Besides: what every driver must keep, what the documentation says, and what is no test."""
    folders = {path.parent.name for path in TESTS.glob("*/*.py")}
    assert folders == {name.strip("_") for name in FLOOR} | {
        "contract",
        "docs",
        "support",
        "bench",
        "soak",
        "mutations",
    }
    assert not list(TESTS.glob("test_*.py"))


def test_what_a_module_says_it_has_it_has():
    for name in MODULES:
        if not name.endswith(("__init__", "__main__")):
            module = importlib.import_module(f"inturn.{name}")
            assert module.__doc__, name
            assert [each for each in module.__all__ if not hasattr(module, each)] == [], name


def test_every_public_name_is_there_once_and_documented():
    assert len(inturn.__all__) == len(set(inturn.__all__))
    for name in inturn.__all__:
        thing = getattr(inturn, name)
        if callable(thing):
            assert thing.__doc__, name


@pytest.mark.parametrize("name", [*inturn.__all__, "RetryPolicy", "Skip"])
def test_every_public_name_says_that_it_is_of_inturn(name):
    thing = getattr(inturn, name)
    assert thing.__module__ == "inturn"
    assert getattr(thing, "__qualname__", name) == name


@pytest.mark.parametrize("function", ["ordered_map", "ordered_flat_map"])
def test_the_type_of_a_run_says_that_it_is_of_inturn_though_nobody_has_asked_for_it(function):
    code = f"import inturn; print(type(inturn.{function}(list, [])).__module__)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert out.stdout.strip() == "inturn"


@pytest.mark.parametrize("name", [name for name in inturn.__all__ if name.startswith("ordered_")])
def test_help_shows_one_short_signature_before_the_text(name):
    function = getattr(inturn, name)
    signature = str(inspect.signature(function))
    assert ":" not in signature
    assert "->" not in signature
    head, text, _ = pydoc.plain(pydoc.render_doc(function)).partition(function.__doc__.partition("\n")[0])
    assert text
    assert "".join(head.split()).endswith("".join((name + signature).split()))
    assert head.count("(") == 1


def test_no_name_without_underscore_is_there_by_accident():
    for name in inturn.__all__:
        getattr(inturn, name)  # some are imported when first asked for
    public = {name for name in vars(inturn) if not name.startswith("_")}
    public -= {"RetryPolicy", "Skip"}  # for annotations of one's own policies
    submodules = {name for name in public if type(getattr(inturn, name)) is type(sys)}
    assert public - submodules == set(inturn.__all__)


def _loaded(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    return set(out.stdout.split())


def _environment():
    import os

    return {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}


def test_importing_the_library_is_light():
    """Against what an empty program has loaded already, which an environment may add to."""
    extra = _loaded("import inturn") - _loaded("pass")
    assert not extra & HEAVY
    assert not extra & {f"inturn._model.{name}" for name in ("advice", "drawing", "limit", "recorder", "trace")}
    assert not any(name.split(".")[0] in {"multiprocessing", "asyncio", "tqdm"} for name in extra)


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()


def test_the_library_has_a_version():
    assert inturn.__version__


COINED = (
    r"\b(stations?|wardens?|flights?|leash|last will|carriers?|rang|rung|bells?|alarms?|deaf\w*|doom|hungry|swept)\b"
)


def test_the_words_are_those_of_the_field():
    """Words that were coined here took readers three readings each; docs/design.md has those that stand for them."""
    found = {path.name: re.findall(COINED, path.read_text(), re.IGNORECASE) for path in FILES}
    assert not {name: words for name, words in found.items() if words}
