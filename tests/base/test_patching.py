"""Threads that gevent or eventlet have patched; without either of them these tests are skipped."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import inturn

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.fixture(params=PATCH)
def patch(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is missing")
    return PATCH[request.param]


def said(*lines):
    code = "\n".join(["import sys", f"sys.path.insert(0, {str(Path(inturn.__file__).parents[1])!r})", *lines])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return (done.stdout.split("\n") + done.stderr.rstrip().split("\n")[-1:])[0 if not done.returncode else -1]


@pytest.mark.parametrize("settings", ["", "timeout=100", "live=True", "executor='serial'"])
def test_patched_before_the_import_it_works(patch, settings):
    run = f"import time; print(*ordered_map(lambda x: time.sleep(0.01) or x, range(9), concurrency=3, {settings}))"
    assert said(patch, "from inturn import ordered_map", run) == "0 1 2 3 4 5 6 7 8"


def test_patched_after_the_import_it_says_so(patch):
    assert "patch first" in said("from inturn import ordered_map", patch, "print(*ordered_map(abs, range(9)))")


def test_processes_name_the_cure(patch):
    run = "print(*ordered_map(abs, range(9), executor='process'))"
    assert "ProcessPoolExecutor" in said(patch, "from inturn import ordered_map", run)


TRACED = """
import threading

class Traced:
    "A lock that a profiler has put in the place of the real one: it works as ever."
    real = staticmethod(threading.Lock)
    def __init__(self):
        self.lock = Traced.real()
    def __getattr__(self, name):
        return getattr(self.lock, name)
    def __enter__(self):
        return self.lock.__enter__()
    def __exit__(self, *error):
        return self.lock.__exit__(*error)

threading.Lock = Traced
"""


@pytest.mark.parametrize("settings", ["", "timeout=100", "live=True", "executor=Processes(start_method='spawn')"])
def test_locks_that_a_profiler_wraps_after_the_import_are_no_obstacle(settings):
    run = f"print(*ordered_map(abs, range(9), concurrency=3, {settings}))"
    assert said("from inturn import Processes, ordered_map", TRACED, run) == "0 1 2 3 4 5 6 7 8"
