"""Nothing of worker processes is left: after Ctrl-C, at exit, after a kill of the parent, and after a thousand deaths."""

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from functions_for_programs import crash
from inturn import Processes, WorkerDied, ordered_map
from programs import Script
from waiting import HANG_S, wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals"),
]

METHODS = ["fork", "forkserver", "spawn"]
LONG = os.environ.get("INTURN_LONG_TESTS") == "1"  # a thousand deaths under each start method, and a minute of chaos
patient = pytest.mark.timeout(900)

# A program with workers, that a signal meets; its functions are in a module that workers can import.
PROGRAM = """
from inturn import Processes
from functions_for_programs import *

if __name__ == "__main__":
    settings = Processes(start_method={method!r})
    {body}
"""


def program(method, body, tmp_path):
    return Script(
        "import sys; sys.argv = ['']\n" + PROGRAM.format(method=method, body=body.replace("TMP", repr(str(tmp_path))))
    )


def pids(tmp_path):
    return {int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()}


def lives(pid):
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_for_the_end_of(workers):
    wait_until(lambda: not any(map(lives, workers)), "workers live on")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["next", "body"])
def test_g14_ctrl_c_gives_one_traceback_and_leaves_no_worker(tmp_path, method, where):
    """Sent to the whole process group, as a terminal does."""
    body = {
        "next": "for _ in ordered_map(announced, ['TMP'] * 4, executor=settings, concurrency=2): pass",
        "body": "for _ in ordered_map(announced_briefly, ['TMP'] * 4, executor=settings, concurrency=2): say('up'); sleep_on()",
    }[where].replace("'TMP'", "TMP")
    with program(method, body, tmp_path) as script:
        wait_until(lambda: len(pids(tmp_path)) == 2)
        if where == "body":
            script.wait_for("up")
        workers = pids(tmp_path)
        script.interrupt()
        script.end()
        assert script.err.count("Traceback") == 1, script.err
        assert script.err.rstrip().endswith("KeyboardInterrupt")
        assert script.code == -signal.SIGINT
        wait_for_the_end_of(workers)
        assert time.monotonic() - script.begin < script.soon_s


@pytest.mark.parametrize("method", METHODS)
def test_g15_at_exit_workers_are_killed_after_their_grace(tmp_path, method):
    body = """
    run = ordered_map(announced, [TMP] * 4, executor=settings, concurrency=2)
    def consume():
        try: next(run)
        except RuntimeError: pass  # the interpreter is shutting down
    threading.Thread(target=consume, daemon=True).start()
    while len(os.listdir(TMP)) < 2: time.sleep(0.001)
    say("end")
    """.strip()
    with program(method, body, tmp_path) as script:
        script.wait_for("end")
        script.begin = time.monotonic()
        workers = pids(tmp_path)
        script.end()
        assert (script.err, script.code) == ("", 0)
        wait_for_the_end_of(workers)
        assert time.monotonic() - script.begin < script.soon_s


@pytest.mark.parametrize("method", METHODS)
def test_g27_workers_of_a_killed_parent_are_gone_within_seconds(tmp_path, method):
    """Also while another child of the parent's keeps all of its pipes open."""
    body = """
    if settings.start_method == "fork":
        if not os.fork():
            while not os.path.exists(TMP + "/over"): time.sleep(0.01)
            os._exit(0)
    for _ in ordered_map(announced, [TMP] * 4, executor=settings, concurrency=2): pass
    """.strip()
    with program(method, body, tmp_path) as script:
        wait_until(lambda: len(pids(tmp_path)) == 2)
        workers = pids(tmp_path)
        try:
            os.kill(script.process.pid, signal.SIGKILL)
            wait_for_the_end_of(workers)
        finally:
            (tmp_path / "over").touch()  # the child ends


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_g25_a_main_module_without_guard_is_told_so(tmp_path, method):
    path = tmp_path / "unguarded.py"
    path.write_text(
        "from inturn import Processes, ordered_map\n"
        f"print(list(ordered_map(abs, [1, 2], executor=Processes(start_method={method!r}))))\n"
    )
    import subprocess

    import inturn

    result = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env={**os.environ, "PYTHONPATH": str(Path(inturn.__file__).parents[1])},
        check=False,
    )
    assert result.stderr.count("Traceback") == 1, result.stderr
    assert 'put the code that starts it under `if __name__ == "__main__":`' in result.stderr.splitlines()[-1]
    assert result.returncode == 1


def test_g26_a_program_may_end_in_the_midst_of_a_run_that_is_never_closed(tmp_path):
    body = """
    run = ordered_map(abs, range(1000000), executor=settings, concurrency=2)
    for i in run:
        if i == 100: break
    say("end")
    """.strip()
    with program("fork", body, tmp_path) as script:
        script.end()
        assert (script.lines, script.err, script.code) == (["end"], "", 0)


def belongings():
    return (
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        set(multiprocessing.active_children()),
        {name for place in ("/dev/shm", tempfile.gettempdir()) for name in os.listdir(place) if "inturn" in name},
    )


@patient
@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_g24_crash_and_replace_cycles_neither_hang_nor_leak(method):
    """A thousand if asked for; else fewer, the fewer the longer a start takes. What one cycle leaks is seen after a few."""
    cycles = 1000 if LONG else 300 if method == "fork" else 30
    executor = Processes(start_method=method)
    list(ordered_map(abs, range(4), executor=executor, concurrency=2))
    before = belongings()
    died = 0
    with ordered_map(crash, range(3 * cycles), executor=executor, concurrency=2, on_error="return") as run:
        for i, each in enumerate(run):
            if i % 3 == 1:
                assert isinstance(each.error, WorkerDied)
                assert each.error.index == i
                died += 1
            else:
                assert each == i
        during = len(os.listdir("/proc/self/fd"))
    assert died == cycles
    assert during < before[0] + 40
    assert belongings() == before


def tiny(i):
    return i * 2


def spread(i):
    if i % 100 == 0:
        time.sleep(0.002)
    return i * 2


@patient
@pytest.mark.parametrize("chunksize", [None, 1, 7])
def test_g24_chaos(chunksize, record_property):
    """Workers are killed at random while many items run: each is delivered once, in order, or was the one that was hit."""
    seconds, least, rate = (60.0, 100_000, 12.0) if LONG else (1.5, 100, 12.0)
    dice = random.Random(7)
    over = threading.Event()
    killed = 0

    def kill():
        """Not three in a row before their first item, on however slow a machine: that would end the run."""
        nonlocal killed
        while not over.wait(dice.expovariate(rate)):
            done = run.stats.delivered + run.stats.waiting
            for _ in range(3):  # reports of workers that are up
                while run.stats.delivered + run.stats.waiting == done and not over.wait(0.001):
                    pass
                done = run.stats.delivered + run.stats.waiting
            children = multiprocessing.active_children()
            if children:
                try:
                    os.kill(dice.choice(children).pid, signal.SIGKILL)
                    killed += 1
                except (ProcessLookupError, AttributeError, ValueError):
                    pass

    killer = threading.Thread(target=kill, daemon=True)
    begin = time.monotonic()
    hit = count = 0
    executor = Processes(start_method="fork")
    pulled = 0

    def items():
        nonlocal pulled
        while time.monotonic() - begin < seconds or pulled < least:
            yield pulled
            pulled += 1

    with ordered_map(spread, items(), executor=executor, concurrency=3, chunksize=chunksize, on_error="return") as run:
        try:
            for i, each in enumerate(run):
                count += 1
                if count == 100:
                    killer.start()
                if each != i * 2:
                    assert isinstance(each.error, WorkerDied), each
                    assert (each.error.index, each.error.signal) == (i, signal.SIGKILL)
                    hit += 1
        finally:
            over.set()
            killer.join()
    record_property("chaos", f"{count} items, {killed} kills, {hit} hit an item, {time.monotonic() - begin:.1f} s")
    assert pulled == count >= least
    assert hit <= killed


def test_g13_a_thousand_short_runs_leave_nothing():
    executor = Processes(start_method="fork")
    list(ordered_map(abs, range(4), executor=executor, concurrency=2))
    before = belongings()
    for i in range(200 if LONG else 60):
        run = ordered_map(abs, range(10), executor=executor, concurrency=2)
        for each in run:
            if each == i % 10:
                break
        if i % 2:
            run.close()
        del run
    wait_until(lambda: belongings() == before)
