"""Guarantee 15: the end of the interpreter."""

import pytest

from programs import EXECUTORS, Script
from waiting import HOUR, SHORT

every_executor = pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)


# 15: the end of the interpreter


# A call that lasts longer than the main thread: it goes on until the interpreter ends, and then for as long as it may take
# the library to notice. What is registered last is called first.
OUTLIVES = """
exiting = threading.Event()
threading._register_atexit(exiting.set)
def outlive():
    assert exiting.wait(HANG_S)
    time.sleep(0.5)
"""


@every_executor
@pytest.mark.parametrize("dropped", [False, True], ids=["held", "dropped"])
def test_g15_running_calls_are_waited_for_at_exit_and_the_queue_is_not_run(executor, dropped):
    with Script(
        OUTLIVES
        + f"""
running = threading.Semaphore(0)
def call(i):
    if i:
        say("start")
        running.release()
        outlive()
        say("end")
    elif "serial" not in "{executor}":
        pulled.wait(HANG_S)
run = ordered_map(call, counting(), window=20, concurrency=2, {executor})
next(run)
if "serial" not in "{executor}":
    assert running.acquire(timeout=HANG_S) and running.acquire(timeout=HANG_S)
{"del run" if dropped else ""}
"""
    ) as script:
        script.end()
        assert script.err == ""
        assert script.code == 0
        assert script.lines.count("start") == script.lines.count("end")
        assert script.lines.count("start") in ([0] if "serial" in executor else [2, 3])


def test_g15_what_the_program_registers_for_its_exit_after_the_import_comes_before_the_wait_for_calls():
    with Script(
        """
import atexit
over = threading.Event()
atexit.register(over.set)  # before the first run, which may then wait for it
running = threading.Event()
def call(i):
    if i:
        running.set()
        say("over" if over.wait(HANG_S) else "left alone")
run = ordered_map(call, range(2), concurrency=2)
next(run)
assert running.wait(HANG_S)
"""
    ) as script:
        script.end()
        assert (script.err, script.code) == ("", 0)
        assert script.lines == ["over"]


@every_executor
def test_g15_running_calls_are_waited_for_when_the_body_raises(executor):
    with Script(
        OUTLIVES
        + f"""
begun = threading.Event()
def call(i):
    if i:
        say("start")
        begun.set()
        outlive()
        say("end")
    elif "serial" not in "{executor}":
        pulled.wait(HANG_S)
def main():
    for _ in ordered_map(call, counting(), window=20, concurrency=2, {executor}):
        assert "serial" in "{executor}" or begun.wait(HANG_S)
        raise SystemExit(7)
main()
"""
    ) as script:
        script.end()
        assert script.err == ""
        assert script.code == 7
        assert script.lines.count("start") == script.lines.count("end") <= 4


@pytest.mark.parametrize("held", [True, False], ids=["held", "dropped"])
def test_g15_a_call_given_up_by_timeout_does_not_block_exit(held):
    with Script(
        f"""
run = ordered_map(lambda i: threading.Event().wait() if i == 1 else i, range(5), timeout={SHORT}, on_error="return")
say([type(r).__name__ for r in run])
{"" if held else "del run"}
"""
    ) as script:
        script.end()
        assert script.err == ""
        assert script.lines == ["['int', 'Failure', 'int', 'int', 'int']"]
        assert script.code == 0


LATER = (
    OUTLIVES
    + """
running = threading.Event()
def call(i):
    if i:
        running.set()
        {later}
        say("end")
    else:
        pulled.wait(HANG_S)
run = ordered_map(call, counting(), timeout={timeout}, concurrency=1, window=3)
next(run)
assert running.wait(HANG_S)
"""
)


def test_g15_a_call_that_may_be_given_up_but_was_not_is_waited_for_at_exit():
    with Script(LATER.format(later="outlive()", timeout=HOUR)) as script:
        script.end()
        assert script.err == ""
        assert script.lines == ["end"]


def test_g15_a_call_that_outlives_its_timeout_while_exit_waits_for_it_does_not_block_exit():
    with Script(LATER.format(later="threading.Event().wait()", timeout=SHORT)) as script:
        script.end()
        assert script.lines == []
        assert script.code == 0


@pytest.mark.parametrize("held", [True, False], ids=["held", "dropped"])
def test_g15_a_blocked_live_source_does_not_block_exit(held):
    with Script(
        f"""
def source():
    yield 1
    threading.Event().wait()
run = ordered_map(int, source(), live=True)
say(next(run))
{"" if held else "del run"}
"""
    ) as script:
        script.end()
        assert script.err == ""
        assert script.lines == ["1"]
        assert script.code == 0


@every_executor
def test_g15_a_run_that_is_still_held_at_exit_says_nothing(executor):
    with Script(
        f"""
runs = [ordered_map(int, itertools.count(), {executor}) for _ in range(3)]
for run in runs[1:]:
    next(run)
sys.modules["keeper"] = runs  # outlives the globals of this script
"""
    ) as script:
        script.end()
        assert (script.out, script.err, script.code) == ("", "", 0)


@every_executor
def test_g15_a_consumer_in_a_daemon_thread_does_not_block_exit(executor):
    with Script(
        f"""
begun = threading.Event()
def consume():
    for _ in ordered_map(int, itertools.count(), {executor}):
        begun.set()
threading.Thread(target=consume, daemon=True).start()
begun.wait(HANG_S)
"""
    ) as script:
        script.end()
        assert script.code == 0
