"""Advice that is about this machine, on real runs: it is followed, and gains what it said.

Two pieces cannot be seen in virtual time, as calls that compute take real time. Here runs are timed by what this
process computes, so other programs on the machine hardly count, or are set beside a plain loop of the same moment.
"""

import re
import time

import pytest

from inturn import ordered_map
from inturn._base.atomic import GIL
from inturn._base.checks import cpus
from inturn._model.advice import pieces

LOOPS = 20_000  # a millisecond, about
TRIES = 5


def compute(loops):
    total = 0
    for i in range(loops):
        total += i & 7
    return total


def compute_and_say(loops):
    begun = time.process_time()
    compute(loops)
    return time.process_time() - begun


def by_processor_time(run):
    """The stats of a run that lasts as long as this process computes meanwhile."""
    run._run.job.clock = time.process_time
    with run:
        for _ in run:
            pass
    return run.stats


def tries():
    """A machine that stands still for a moment has another try."""
    for attempt in range(TRIES):
        yield attempt == TRIES - 1


needs_two = pytest.mark.skipif(
    not GIL or cpus() < 2, reason="threads take turns only under a GIL; and two CPUs are needed"
)


@needs_two
@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_threads_that_compute_gain_what_was_said_from_processes(concurrency):
    items = [LOOPS] * 400
    for last in tries():
        before = by_processor_time(ordered_map(compute, items, concurrency=concurrency))
        [piece] = pieces(before)
        assert piece.about == "workers"
        assert f'use executor="process", concurrency={cpus()}' in piece.text
        run = ordered_map(compute_and_say, items, executor="process", concurrency=cpus())
        with run:  # as advised
            next(run)
            here = time.process_time()
            there = sum(run)
            here = time.process_time() - here
        after = there / cpus() + here + 0.05  # seconds, if the processors are free; and the start of the workers
        if 0.8 * piece.gain <= before.elapsed / after <= 1.2 * piece.gain:
            return
        assert not last, (piece, before, after)


@needs_two
def test_threads_that_compute_are_told_of_no_wider_window_and_no_further_threads():
    before = by_processor_time(ordered_map(compute, [LOOPS] * 100, concurrency=4, window=4, chunksize=1))
    for piece in pieces(before):
        assert "process" in piece.text or "a plain map" in piece.text


def seconds_of(call):
    begun = time.process_time()
    call()
    return time.process_time() - begun


@pytest.mark.parametrize("times", [0.5, 1, 1.5])  # from 2 on, two processes gain as much
def test_calls_that_take_about_as_long_as_handing_them_over_gain_what_was_said_from_a_plain_loop_or_more(times):
    """More, as the time of a call is measured with a few microseconds of what surrounds it.

    How many loops take so many times as long as handing over depends on the machine, and on the version of Python.
    """
    for last in tries():
        handing_over = by_processor_time(ordered_map(abs, range(2_000), concurrency=1, chunksize=1)).elapsed / 2_000
        per_loop = seconds_of(lambda: compute(200_000)) / 200_000
        items = [max(1, round(times * handing_over / per_loop))] * 2_000
        stats = by_processor_time(ordered_map(compute, items, concurrency=1, chunksize=1))
        gain = stats.elapsed / seconds_of(lambda items=items: list(map(compute, items)))
        piece = next(iter(pieces(stats)), None)
        if piece is not None and piece.about == "batching" and gain >= 0.8 * piece.gain:
            assert re.search(r"Expect [\d.]+ times the speed or more", stats.advice)
            return
        assert not last, (piece, gain, stats)


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_the_gain_of_a_plain_loop_is_never_less_than_was_said(executor):
    items = range(20_000)
    for last in tries():
        with ordered_map(abs, items, executor=executor, concurrency=2, chunksize=1) as run:
            for _ in run:
                pass
        begun = time.perf_counter()
        for _ in map(abs, items):
            pass
        gain = run.stats.elapsed / (time.perf_counter() - begun)
        piece = next(iter(pieces(run.stats)), None)
        if piece is not None and piece.about == "batching" and gain >= 0.8 * piece.gain:
            return
        assert not last, (piece, gain)
