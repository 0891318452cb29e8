"""`python -m inturn prove`: what the README promises is kept, is printed so that it can be read, and a miss is told."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

import inturn
from inturn.testing import _prove as prove
from waiting import HANG_S, HOUR, SHORT

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
FULL_S = HANG_S * 4  # the machine of the tests is busy; on an idle one it takes half of its half minute


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "inturn", "prove", "--seconds", str(FULL_S), *arguments],
        capture_output=True,
        text=True,
        timeout=FULL_S + HANG_S,
        env={**os.environ, "PYTHONPATH": str(Path(inturn.__file__).parents[1])},
    )


def rows(out):
    """The names of the lines of the table."""
    table = out.partition("standard library\n")[2].partition("\n\n")[0]
    return [line[:15].strip() for line in table.splitlines()]


@pytest.mark.long
@pytest.mark.timeout(FULL_S + 2 * HANG_S)
def test_every_promise_is_kept_and_shown_in_a_line_of_80_columns():
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(done.stdout) == list(prove.SCENARIOS)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not done.stderr
    assert f"{len(prove.SCENARIOS)} of {len(prove.SCENARIOS)} promises kept" in done.stdout


@pytest.mark.long
@pytest.mark.timeout(FULL_S + 2 * HANG_S)
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_killed_worker_and_ctrl_c_under_every_start_method(method):
    done = run("killed worker", "Ctrl-C", "--start-method", method)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(done.stdout) == ["killed worker", "Ctrl-C"]


def test_the_readme_shows_each_line():
    shown = README.partition("standard library\n")[2].partition("```")[0]
    assert rows(f"standard library\n{shown}") == list(prove.SCENARIOS)


def test_a_miss_is_told_and_makes_the_exit_status_1(monkeypatch, capsys):
    measured = {"inturn": prove.Measured(False, "4 of 8"), "standard": prove.Measured(True, "8 of 8")}
    monkeypatch.setattr(prove, "_measure", lambda name, side, method, limit_s: (measured[side], "Traceback\nOops\n"))
    assert prove.main(["retry", "break"]) == 1
    out = capsys.readouterr().out
    assert "MISSED: retry\n    Traceback\n    Oops\n" in out
    assert "0 of 2 promises kept" in out


def test_what_the_standard_library_does_is_never_a_miss(monkeypatch, capsys):
    measured = {"inturn": prove.Measured(True, "8 of 8"), "standard": prove.Measured(False, "4 of 8")}
    monkeypatch.setattr(prove, "_measure", lambda name, side, method, limit_s: (measured[side], "Traceback\n"))
    assert prove.main(["retry"]) == 0
    assert "Traceback" not in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs process groups")
def test_what_hangs_is_killed_with_its_children(monkeypatch):
    """`communicate` returns only when the last process that holds the pipes has gone."""
    sleeper = [sys.executable, "-c", f"import time; time.sleep({HOUR})"]
    monkeypatch.setattr(prove, "_CODE", f"import subprocess; subprocess.run({sleeper})")
    measured, _ = prove._measure("retry", "inturn", "", SHORT)
    assert measured == (False, f"killed: no end in {SHORT:.1f} s")


def test_a_name_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        prove.main(["breakfast"])
    assert caught.value.code == 2
    assert "'break'" in capsys.readouterr().err
