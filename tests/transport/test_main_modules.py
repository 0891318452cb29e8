"""Programs whose main module the workers have, or lack: what travels by name, what by value, and what the cure is."""

import os
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest

import inturn
from inturn._processes.start import main_of_workers
from inturn._transport.pickling import Main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals")

METHODS = ["fork", "forkserver", "spawn"]

PROGRAM = """
import enum, multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from inturn import Processes, ordered_map, retry

class MyError(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code, self.text = code, text
    def __reduce__(self):
        return MyError, (self.code, self.text)

class Item:
    def __init__(self, number):
        self.number = number

class Colour(enum.Enum):
    RED = 1
    BLUE = 2

STATE = None

def initialize(value):
    global STATE
    STATE = value

def work(item):
    assert isinstance(item, Item)
    if item.number == 2:
        raise MyError(7, "two")
    return item, Colour(item.number % 2 + 1), STATE

def main(method, whose):
    context = multiprocessing.get_context(method)
    if whose == "ours":
        executor = Processes(initialize, ("set",), start_method=method)
    elif whose == "mine":
        executor = ProcessPoolExecutor(2, context, initialize, ("set",))
    else:
        executor = ProcessPoolExecutor(2, context)
    seen = []
    def answer(failure):
        seen.append(type(failure.error))
        return failure.error
    policy = retry(2, on=MyError, backoff=0, then=answer)
    results = list(ordered_map(work, map(Item, range(5)), executor=executor, concurrency=2, on_error=policy))
    assert seen == [MyError], seen
    assert (results[2].code, results[2].text) == (7, "two")
    for i in (0, 1, 3, 4):
        item, colour, state = results[i]
        assert type(item) is Item and item.number == i
        assert colour is Colour(i % 2 + 1)
        assert state == (None if whose == "bare" else "set"), state
    offset = 10
    more = list(ordered_map(lambda item: (item.number + offset, Colour.RED, isinstance(item, Item), STATE),
                            map(Item, range(3)), executor=executor, concurrency=2, chunksize=1))
    assert [each[0] for each in more] == [10, 11, 12]
    assert all(each[1] is Colour.RED and each[2] for each in more), more
    assert all(each[3] == (None if whose == "bare" else "set") for each in more), more
    if isinstance(executor, ProcessPoolExecutor):
        executor.shutdown()
    print("well done")

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(inturn.__file__).parents[1])}


def script(path):
    (path / "program.py").write_text(PROGRAM)
    return [str(path / "program.py")], None


def module(path):
    script(path)
    return ["-m", "program"], None


def package(path):
    (path / "program").mkdir()
    (path / "program" / "__init__.py").write_text("")
    (path / "program" / "__main__.py").write_text(PROGRAM)
    return ["-m", "program"], None


def directory(path):
    package(path)
    return [str(path / "program")], None


def archive(path):
    with zipfile.ZipFile(path / "program.pyz", "w") as file:
        file.writestr("__main__.py", PROGRAM)
    return [str(path / "program.pyz")], None


def standard_input(path):
    return ["-"], PROGRAM


def command(path):
    return ["-c", PROGRAM], None


NOTEBOOK = """
import sys, types
cells = types.ModuleType("__main__")  # as a notebook's kernel does it: no file, and nothing to import
sys.modules["__main__"] = cells
exec(compile({program!r}, "<cell>", "exec"), vars(cells))
"""


def notebook(path):
    (path / "kernel.py").write_text(NOTEBOOK.format(program=PROGRAM))
    return [str(path / "kernel.py")], None


HAVING = [script, module]
LACKING = [package, directory, archive, standard_input, command, notebook]
SOME = [
    script,
    notebook,
]  # a forked worker has all of its parent, and the fork server reads the main module as `spawn` does


def each(ways, methods=METHODS):
    """Ways with start methods: all of them with `spawn`."""
    everything = os.environ.get("INTURN_TESTS") == "all"
    pairs = [(way, method) for method in methods for way in ways if everything or method == "spawn" or way in SOME]
    return pytest.mark.parametrize(("way", "method"), pairs)


def run(path, way, *arguments, without_cloudpickle=False, program=None):
    options, text = way(path)
    if without_cloudpickle:
        (path / "cloudpickle.py").write_text("raise ImportError('as if it were not installed')")
    paths = [str(path), environment()["PYTHONPATH"]]
    return subprocess.run(
        [sys.executable, "-W", "ignore", *options, *arguments],
        input=text,
        text=True,
        capture_output=True,
        cwd=path,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


@each(HAVING + LACKING)
def test_g25_what_the_main_module_defines_travels(tmp_path, way, method):
    pytest.importorskip("cloudpickle")
    done = run(tmp_path, way, method, "ours")
    assert (done.stdout, done.stderr) == ("well done\n", "")


@each(HAVING + LACKING)
def test_g25_what_the_main_module_defines_travels_through_an_executor_of_the_users(tmp_path, way, method):
    pytest.importorskip("cloudpickle")
    if way is standard_input and method != "fork":
        pytest.skip("its workers cannot be started: multiprocessing takes '<stdin>' for a file")
    has = way in HAVING or method == "fork"
    done = run(tmp_path, way, method, "mine" if has else "bare")
    assert (done.stdout, done.stderr) == ("well done\n", "")


PLAIN = """
import sys
from inturn import Processes, ordered_map

class Item:
    pass

def work(item):
    return 1

if __name__ == "__main__":
    fn, item = (work, 1) if sys.argv[2] == "fn" else (repr, Item())
    list(ordered_map(fn, [item], executor=Processes(start_method=sys.argv[1])))
"""


@each(LACKING, ["forkserver", "spawn"])
@pytest.mark.parametrize("what", ["fn", "item"])
def test_g25_without_cloudpickle_the_message_names_the_cure(tmp_path, monkeypatch, way, what, method):
    monkeypatch.setitem(globals(), "PROGRAM", PLAIN)
    done = run(tmp_path, way, method, what, without_cloudpickle=True)
    assert done.returncode == 1
    assert "pip install 'inturn[pickle]'" in done.stderr
    assert "could not be unpickled" in done.stderr
    assert "in a row" not in done.stderr


@each(HAVING)
def test_g25_without_cloudpickle_what_workers_have_travels_as_ever(tmp_path, monkeypatch, way, method):
    monkeypatch.setitem(globals(), "PROGRAM", PLAIN)
    for what in ("fn", "item"):
        done = run(tmp_path, way, method, what, without_cloudpickle=True)
        assert (done.returncode, done.stderr) == (0, "")


HEAVY = """
import pickle, sys
from concurrent.futures import ProcessPoolExecutor
from inturn import ordered_map

class Heavy:
    def __reduce__(self):
        raise AssertionError("it travels")

HEAVY = Heavy()

def work(item):
    return type(HEAVY).__name__, item

if __name__ == "__main__":
    with ProcessPoolExecutor(2) as executor:
        assert list(ordered_map(work, range(3), executor=executor)) == [("Heavy", i) for i in range(3)]
    print("well done")
"""


@pytest.mark.parametrize("way", HAVING)
def test_g25_a_global_of_the_main_module_stays_where_it_is(tmp_path, monkeypatch, way):
    pytest.importorskip("cloudpickle")
    monkeypatch.setitem(globals(), "PROGRAM", HEAVY)
    done = run(tmp_path, way)
    assert (done.stdout, done.stderr) == ("well done\n", "")


def test_g25_what_is_sent_by_value_while_the_main_module_defines_more(monkeypatch):
    pytest.importorskip("cloudpickle")
    from inturn._transport.by_value import _main_namespace

    class Name(str):
        __slots__ = ()

        def __eq__(self, other):
            main.another_name = 1
            return False

        __hash__ = str.__hash__

    def function():
        pass

    function.__module__ = Name("somewhere")
    main = types.ModuleType("__main__")
    main.function = function
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert _main_namespace() is vars(main)
    assert main.another_name


def test_a_main_script_that_nobody_may_look_at_is_none(monkeypatch):
    path = "/" + "x" * 5000  # looking at it is an error, as it is for a service that has dropped its privileges
    monkeypatch.setattr(sys.modules["__main__"], "__file__", path, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert main_of_workers("spawn") == (Main.OWN_WORKER, path)
