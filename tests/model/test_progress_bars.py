"""What `progress=True` shows in a terminal, in a log file and in a notebook, and what becomes of bars of the user's."""

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import types
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

import inturn
from functions_for_workers import double, fail_at
from inturn import Limiter, ordered_aflat_map, ordered_amap, ordered_flat_map, ordered_map, retry
from inturn._model import progress as progress_module
from terminal import Screen, run_in_terminal

pytest.importorskip("tqdm")
terminal = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")

# ---- a terminal ----------------------------------------------------------------------------------


@terminal
def test_in_a_terminal_a_run_is_one_line_that_is_drawn_over(tmp_path):
    screen, frames = run_in_terminal(
        """
from inturn import ordered_map
def call(i):
    if i == 7:
        raise ValueError
    return i
run = ordered_map(call, range(40), on_error="skip", name="fetch", progress=True)
for i in run:
    while i == 39 and run.stats.running:
        pass  # the worker of the last result has yet to leave its call
print("done")
""",
        tmp_path,
    )
    text = screen.text()
    assert re.match(r"fetch: 100%\|.*\| 40/40 \[.*it/s, running=0, waiting=0, failed=1\]$", text[0])
    assert text[1:] == ["done", ""]
    assert all(len([line for line in frame if line]) <= 2 for frame in frames)


@terminal
def test_in_a_terminal_nested_runs_stack_and_the_inner_ones_make_room(tmp_path):
    screen, frames = run_in_terminal(
        """
from inturn import ordered_map
def call(i):
    return i
for i in ordered_map(call, range(3), name="outer", progress=True):
    for j in ordered_map(call, range(5), name="inner", progress=True):
        pass
print("done")
""",
        tmp_path,
    )
    text = [line for line in screen.text() if line]
    assert len(text) == 2, text
    assert re.match(r"outer: 100%\|.*\| 3/3 ", text[0])
    assert text[1].endswith("done")
    assert any(frame[0].startswith("outer: ") and frame[1].startswith("inner: ") for frame in frames if len(frame) > 1)
    assert not any(frame[0].startswith("inner") for frame in frames)


@terminal
def test_in_a_terminal_runs_of_several_threads_have_a_line_each(tmp_path):
    screen, frames = run_in_terminal(
        """
import threading
from inturn import ordered_map
both = threading.Barrier(2)
def consume(name):
    for i in ordered_map(abs, range(4), name=name, progress=True):
        both.wait()
threads = [threading.Thread(target=consume, args=(name,)) for name in ("left", "right")]
for each in threads:
    each.start()
for each in threads:
    each.join()
""",
        tmp_path,
    )
    lines = [{line.split(":")[0] for line in frame if line} for frame in frames]
    assert {"left", "right"} in lines
    assert "4/4" in "".join(screen.text())


def test_the_screen_of_these_tests_draws_what_a_terminal_draws():
    screen = Screen()
    screen.write("one\rO\ntwo\x1b[A!\n\nthree\x1b[2A\rX")
    assert screen.text() == ["Xne!", "two", "three"]


# ---- a log file ----------------------------------------------------------------------------------


def lines_of(code, tmp_path, **periods):
    program = tmp_path / "program.py"
    settings = "".join(f"progress.{name} = {value}\n" for name, value in periods.items())
    program.write_text(f"from inturn._model import progress\n{settings}{code}")
    done = subprocess.run([sys.executable, "-W", "error", str(program)], capture_output=True, check=True, timeout=120)
    text = done.stderr.decode()
    assert "\r" not in text.replace("\r\n", "\n")
    return text.splitlines()


def test_in_a_log_file_a_short_run_is_one_line(tmp_path):
    [line] = lines_of(
        """
from inturn import ordered_map
for i in ordered_map(abs, range(5000), name="fetch", progress=True):
    pass
""",
        tmp_path,
    )
    assert re.fullmatch(r"fetch: 100%\|5000/5000 \[00:\d\d<00:00, +[\d.]+it/s, running=0, waiting=0\]", line)


def test_in_a_log_file_a_run_without_total_is_lines_of_counts(tmp_path):
    *others, last = lines_of(
        """
from inturn import ordered_map
for i in ordered_map(abs, iter(list(range(500))).__iter__(), executor="serial", progress=True):
    pass
for i in ordered_map(abs, (i for i in range(500)), executor="serial", progress=True):
    pass
""",
        tmp_path,
    )
    assert re.match(r"500it \[", last)
    assert len(others) == 1


def test_in_a_log_file_there_are_few_lines_at_growing_intervals(tmp_path):
    lines = lines_of(
        """
from inturn import ordered_map
now = [0.0]
progress.clock = lambda: now[0]
from inturn._core import consumer
consumer.clock = progress.clock
def call(i):
    now[0] += 1.0
    return i
for i in ordered_map(call, range(200), executor="serial", progress=True):
    pass
""",
        tmp_path,
    )
    counts = [int(re.search(r"\|(\d+)/200", line)[1]) for line in lines]
    assert counts == [10, 20, 35, 58, 92, 143, 200] or len(counts) <= 8
    assert counts == sorted(counts)
    assert counts[-1] == 200


def test_in_a_log_file_nested_and_concurrent_runs_are_whole_lines(tmp_path):
    lines = lines_of(
        """
from inturn import ordered_map
for i in ordered_map(abs, range(3), name="outer", progress=True):
    for j in ordered_map(abs, range(2), name="inner", progress=True):
        pass
""",
        tmp_path,
    )
    assert [line.split("|")[0] for line in lines] == ["inner: 100%"] * 3 + ["outer: 100%"]


@pytest.mark.parametrize("kind", ["amap", "aflat", "flat"])
def test_the_siblings_show_the_same(kind, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)

    async def call(i):
        return i

    async def produce(i):
        yield i

    async def main():
        if kind == "amap":
            run = ordered_amap(call, range(9), name="fetch", progress=True)
        else:
            run = ordered_aflat_map(produce, range(9), name="fetch", progress=True)
        async with run:
            return [i async for i in run]

    if kind == "flat":
        assert len(list(ordered_flat_map(lambda i: [i], range(9), name="fetch", progress=True))) == 9
    else:
        assert asyncio.run(main()) == [*range(9)]
    assert re.fullmatch(r"fetch: 100%\|9/9 \[.*\]\n", out.getvalue())


def test_failed_retried_and_throttled_are_shown_if_there_are_any(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    run = ordered_map(
        partial(fail_at, frozenset({2})),
        range(5),
        on_error=retry(attempts=2, backoff=0, then="skip"),
        limit=Limiter(1000, burst=1),
        progress=True,
    )
    assert len(list(run)) == 4
    assert re.search(r"failed=1, retried=1, throttled=\d\.\ds\]\n$", out.getvalue())


def test_a_program_without_a_console_shows_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert len(list(ordered_map(double, range(9), executor="serial", progress=True))) == 9


def test_a_log_that_is_closed_meanwhile_does_not_end_the_run(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    run = ordered_map(double, range(9), progress=True)
    assert next(run) == 0
    log.close()
    assert len(list(run)) == 8


def test_in_a_log_file_bars_that_the_environment_has_switched_off_are_no_lines(tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert lines_of("from inturn import ordered_map\nlist(ordered_map(abs, range(9), progress=True))", tmp_path) == []


# ---- a notebook ----------------------------------------------------------------------------------


def test_a_notebook_draws_over_though_it_is_no_terminal():
    stream = types.new_class("OutStream", (io.StringIO,))
    stream.__module__ = "ipykernel.iostream"
    assert progress_module._overwrites(stream())
    assert not progress_module._overwrites(io.StringIO())
    assert not progress_module._overwrites(object())


NOTEBOOK = """
from inturn import ordered_amap, ordered_map

run = ordered_map(abs, range(40), trace=True, name="pages")
run
----
assert len(list(run)) == 40
run
----
run.trace
----
for i in ordered_map(abs, range(3), name="outer", progress=True):
    for j in ordered_map(abs, range(5), name="inner", progress=True):
        pass
----
async def invert(x):
    return 1 / x
async for i in ordered_amap(invert, [1, 2, 0, 3], name="failed", progress=True, concurrency=1):
    pass
"""


EXECUTE = """
import sys
import nbclient, nbformat
book = nbformat.v4.new_notebook()
book.cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in sys.stdin.read().split("----")]
nbclient.NotebookClient(book, timeout=240, kernel_name="python3", allow_errors=True).execute()
print(nbformat.writes(book))
"""


@pytest.mark.parametrize("widgets", [True, False])
def test_a_real_notebook_shows_runs_traces_and_bars(widgets, tmp_path):
    for module in ("nbclient", "ipykernel", *(["ipywidgets"] if widgets else [])):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    if not widgets:  # a kernel that does not find it
        (tmp_path / "ipywidgets.py").write_text("raise ImportError")
    paths = [str(tmp_path), str(Path(inturn.__file__).parents[1])]
    done = subprocess.run(  # the client leaves descriptors open
        [sys.executable, "-c", EXECUTE],
        input=NOTEBOOK,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stderr
    book = json.loads(done.stdout)
    begun, ended, trace, bars, failed = (cell["outputs"] for cell in book["cells"])
    assert "0 of 40" in "".join(begun[0]["data"]["text/html"])
    assert "40 of 40" in "".join(ended[0]["data"]["text/html"])
    assert "".join(trace[0]["data"]["image/svg+xml"]).startswith("<svg")
    assert failed[-1]["ename"] == "ZeroDivisionError"
    if not widgets:
        text = "".join(line for output in (*bars, *failed) for line in output.get("text", ()))
        assert re.search(r"outer: 100%\|.*\| 3/3 ", text)
        assert re.search(r"failed:  50%\|.*\| 2/4 .*failed=1", text)
        return
    state = book["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    models = [each["state"] | {"model": each["model_name"]} for each in state.values()]
    texts = [each["value"].replace("\u2007", " ") for each in models if each["model"] == "HTMLModel"]
    assert any(text.strip().startswith("3/3 ") for text in texts)  # the last count is shown
    assert any(text.strip().startswith("2/4 ") and "failed=1" in text for text in texts)
    shown = {(each["value"], each["bar_style"]) for each in models if each["model"] == "FloatProgressModel"}
    assert {(3.0, "success"), (2.0, "danger")} <= shown
    assert {style for value, style in shown if value == 5.0} == {""}  # inner bars have been taken away


# ---- bars of the user's --------------------------------------------------------------------------


def test_a_bar_that_is_given_keeps_its_description_total_and_postfix():
    from tqdm import tqdm

    out = io.StringIO()
    with tqdm(total=500, desc="mine", file=out, mininterval=0) as bar:
        bar.set_postfix(loss=0.5)
        list(ordered_map(double, range(12), name="fetch", progress=bar))
        assert (bar.n, bar.total, bar.desc.rstrip(": "), bar.postfix) == (12, 500, "mine", "loss=0.5")
    assert "running" not in out.getvalue()


def test_a_bar_that_is_given_keeps_a_postfix_that_is_set_on_the_way():
    from tqdm import tqdm

    with tqdm(file=io.StringIO()) as bar:
        for i in ordered_map(double, range(12), executor="serial", progress=bar):
            bar.set_postfix(result=i)
        assert bar.postfix == "result=22"


def test_a_bar_that_is_given_and_has_no_postfix_shows_the_counts():
    from tqdm import tqdm

    with tqdm(file=io.StringIO()) as bar:
        list(ordered_map(double, range(12), executor="serial", progress=bar))
        assert bar.postfix == "running=0, waiting=0"
