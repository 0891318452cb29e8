"""Guarantee 14: Ctrl-C."""

import signal
import sys

import pytest

from programs import EXECUTORS, Script
from waiting import Gate, absence, handling

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


# 14: Ctrl-C


every_executor = pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS)


INTERRUPTED = """
stop = threading.Event()
try:
    {body}
except KeyboardInterrupt:
    say("caught")
    stop.set()
    raise
"""


def _interrupt(body):
    with Script(INTERRUPTED.format(body=body.strip().replace("\n", "\n    "))) as script:
        script.wait_for("ready")
        script.interrupt()
        script.wait_for("caught")
        script.end()
        assert script.code == -signal.SIGINT
        assert script.err.count("Traceback") == 1, script.err
        assert "\nKeyboardInterrupt" in script.err
        return script


@posix
@every_executor
def test_g14_ctrl_c_in_next_is_raised_at_once_with_one_traceback(executor):
    # Not in a `submit` of the standard library: a thread that is started there would then be waited for for ever.
    _interrupt(
        f"""
def call(i):
    if i == 0:
        while threading.current_thread() is not threading.main_thread() and not run._run.job.sleeping:
            time.sleep(0.001)
        say("ready")
    stop.wait()
run = ordered_map(call, range(8), concurrency=2, {executor})
for _ in run:
    pass
"""
    )


@posix
@pytest.mark.drivers("an event loop waits in its own way", in_loop=False)
def test_g14_a_signal_that_does_not_end_the_wait_of_next_is_handled_all_the_same(overlapping):
    """As one does that another thread gets, or that comes when `next` has given up the GIL and does not wait yet."""
    gate = Gate()

    def call(i):
        absence()
        signal.raise_signal(signal.SIGUSR1)  # to this thread
        gate.wait()

    def interrupt(number, frame):
        raise KeyboardInterrupt

    with handling(interrupt), pytest.raises(KeyboardInterrupt):
        next(overlapping.map(call, range(8), concurrency=1))


@posix
@every_executor
def test_g14_ctrl_c_inside_a_pull_is_raised_at_once_with_one_traceback(executor):
    if "live" in executor:
        pytest.skip("the feeder pulls, not the main thread")
    _interrupt(
        f"""
def source():
    yield 0
    say("ready")
    sleep_on()  # the pull takes long
for _ in ordered_map(int, source(), concurrency=2, {executor}):
    pass
"""
    )


@posix
@every_executor
def test_g14_ctrl_c_in_the_body_of_the_loop_ends_the_program_at_once(executor):
    _interrupt(
        f"""
run = ordered_map(lambda i: i and stop.wait(), itertools.count(), concurrency=2, {executor})
for _ in run:
    say("ready")
    sleep_on()  # the body takes long
"""
    )


@posix
def test_g14_ctrl_c_while_a_live_source_blocks_is_raised_at_once():
    _interrupt(
        """
def source():
    yield 0
    say("ready")
    threading.Event().wait()
for _ in ordered_map(int, source(), live=True):
    pass
"""
    )


@posix
def test_g14_ctrl_c_in_a_pause_is_raised_at_once():
    for executor in ("thread", "serial"):
        _interrupt(
            f"""
def policy(failure):
    say("ready")
    return Retry(after=HOUR)
for _ in ordered_map(int, ["x"], executor="{executor}", on_error=policy):
    pass
"""
        )


@posix
@every_executor
def test_g14_after_ctrl_c_in_next_the_run_is_over(executor):
    with Script(
        f"""
stop = threading.Event()
def call(i):
    if i == 0:
        say("ready")
    stop.wait()
run = ordered_map(call, range(8), concurrency=2, {executor})
try:
    next(run)
except KeyboardInterrupt:
    stop.set()
    say("next", next(run, "over"))
    run.close()
    time.sleep(0.1)  # time in which nothing may be left but the caller's own executor
    say("threads", sum(not t.name.startswith("ThreadPool") for t in threading.enumerate()))
"""
    ) as script:
        script.wait_for("ready")
        script.interrupt()
        script.end()
        assert script.err == ""
        assert script.lines == ["next over", "threads 1"]
