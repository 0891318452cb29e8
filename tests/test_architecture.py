"""The shape of the library itself: who imports whom, how long files are, what an import costs."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import inturn

PACKAGE = Path(inturn.__file__).parent
MODULES = sorted(module.name for module in pkgutil.iter_modules([str(PACKAGE)]) if module.name != "__main__")
HEAVY = {
    "asyncio", "cloudpickle", "concurrent.futures.process", "concurrent.futures.thread", "dask", "dataclasses", "distributed",
    "inspect", "logging", "multiprocessing", "ray", "tqdm", "typing_extensions",
}  # fmt: skip


def imports(module):
    """The modules of the library that this one imports when it is itself imported."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found.update([node.module] if node.module else [alias.name for alias in node.names])
        if isinstance(node, ast.ImportFrom | ast.Import) and not getattr(node, "level", 0):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not any(name.split(".")[0] == "inturn" for name in names), "the package imports itself relatively"
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse((PACKAGE / f"{module}.py").read_text()))
    return found & set(MODULES)


def reach(module):
    found, todo = set(), [module]
    while todo:
        for each in imports(todo.pop()):
            if each not in found:
                found.add(each)
                todo.append(each)
    return found


def test_imports_point_downwards_only():
    for module in MODULES:
        assert module not in reach(module), f"{module} is in a circle"


LAYERS = [
    {"__init__"},
    {"_api"},
    {"_sync", "_async"},
    {"_window", "_lanes"},
    {"_outcome"},
]  # as docs/design.md draws them; what stands between them may be reached from above


@pytest.mark.parametrize(("upper", "lower"), [(u, low) for u in range(len(LAYERS)) for low in range(u)])
def test_no_layer_imports_one_above_it(upper, lower):
    for module in LAYERS[upper] & set(MODULES):
        assert not reach(module) & LAYERS[lower], module


@pytest.mark.parametrize("engine", ["_window", "_lanes"])
def test_the_engine_has_no_threads_no_clock_and_no_io(engine):
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{engine}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    assert not {name.split(".")[0] for name in names} & {"threading", "queue", "time", "asyncio", "os", "io", "_thread"}
    assert not (reach(engine) & {"_thread_pool", "_borrowed", "_processes", "_sync", "_async"})


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_no_file_has_grown_past_one_thought(path):
    lines = path.read_text().splitlines()
    if path.name.startswith("_api"):  # signatures and their documentation; what is left is short
        lines = lines[max(number for number, line in enumerate(lines) if line == "@overload") :]
    assert len(lines) <= 360


@pytest.mark.parametrize("module", MODULES)
def test_what_a_module_says_it_has_it_has(module):
    module = importlib.import_module(f"inturn.{module}")
    assert module.__doc__
    for name in module.__all__:
        assert hasattr(module, name), name


def test_every_public_name_is_there_once_and_documented():
    assert len(inturn.__all__) == len(set(inturn.__all__))
    for name in inturn.__all__:
        thing = getattr(inturn, name)
        if callable(thing):
            assert thing.__doc__, name


def test_no_name_without_underscore_is_there_by_accident():
    public = {name for name in vars(inturn) if not name.startswith("_")}
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
    assert not any(name.split(".")[0] in {"multiprocessing", "asyncio", "tqdm"} for name in extra)


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()


def test_the_library_has_a_version():
    assert inturn.__version__
