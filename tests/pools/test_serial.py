"""Guarantee 20: `executor="serial"`."""

import contextvars
import itertools
import sys
import threading

import pytest

from functions_for_workers import double
from inturn import ordered_flat_map, ordered_map
from waiting import Background, Gate, Tally

# 20: serial


def test_g20_serial_runs_each_call_in_the_thread_of_the_consumer_when_it_is_delivered():
    called = Tally()
    threads = threading.active_count()

    def call(i):
        called.add(threading.get_ident())
        return i

    run = ordered_map(call, itertools.count(), executor="serial", window=10)
    for i in range(5):
        assert next(run) == i
        assert len(called) == i + 1
    assert set(called.seen) == {threading.get_ident()}
    assert threading.active_count() == threads


def test_g20_serial_accepts_what_the_others_accept():
    run = ordered_map(
        double, range(9), executor="serial", concurrency=5, window=7, chunksize=2, live=True, indexed=True, strict=True
    )
    assert list(run) == [(i, 2 * i) for i in range(9)]


def test_g20_serial_has_the_frames_of_the_consumer_below_those_of_fn():
    """So that a debugger's `up` leads there."""

    def call(i):
        names, frame = [], sys._getframe()
        while frame:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        return names

    (names,) = ordered_map(call, [0], executor="serial")
    assert "test_g20_serial_has_the_frames_of_the_consumer_below_those_of_fn" in names


def test_g16_a_run_that_was_interrupted_at_the_end_of_a_call_says_that_nothing_runs():
    run = ordered_map(abs, [1, 2], executor="serial")

    def interrupted(slot, chunk):
        raise KeyboardInterrupt

    run._run.job.ended = interrupted
    with pytest.raises(KeyboardInterrupt):
        next(run)
    assert run.stats.running == 0


def test_g21_a_generator_is_closed_in_its_context_though_the_consumer_takes_another_step():
    class Holding(dict):
        """What is taken out of it by another thread arrives only when that is let go."""

        def pop(self, *args):
            taken = super().pop(*args)
            if threading.current_thread() is not consumer:
                took.open()
                goes_on.wait()
            return taken

    def elements(x):
        variable.set(x)
        try:
            yield x
            yield x
        finally:
            seen.append(variable.get())

    variable, seen = contextvars.ContextVar("variable", default="nothing"), []
    consumer, took, goes_on = threading.current_thread(), Gate(), Gate()
    run = ordered_flat_map(elements, ["mine", "other"], executor="serial")
    assert next(run) == "mine"
    pool = run._run.job.pool
    pool._steps = Holding(pool._steps)
    closing = Background(pool.stop)  # as `Job.stop` calls it
    took.wait()
    pool.work(block=True)  # by a consumer that has found just before that the run goes on
    goes_on.open()
    closing.result()
    assert seen == ["mine"]
    run.close()
