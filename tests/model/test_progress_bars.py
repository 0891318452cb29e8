"""What `progress=True` shows in a terminal, in a log file and in a notebook, and what becomes of bars of the user's."""

import asyncio
import io
import re
import subprocess
import sys
import types
from functools import partial

import pytest

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
for i in ordered_map(call, range(40), on_error="skip", name="fetch", progress=True):
    pass
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
consumer.perf_counter = progress.clock
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


# ---- a notebook ----------------------------------------------------------------------------------


def test_a_notebook_draws_over_though_it_is_no_terminal():
    stream = types.new_class("OutStream", (io.StringIO,))
    stream.__module__ = "ipykernel.iostream"
    assert progress_module._overwrites(stream())
    assert not progress_module._overwrites(io.StringIO())
    assert not progress_module._overwrites(object())


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
