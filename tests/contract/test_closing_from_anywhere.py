"""Guarantee 16: a run may be closed from other threads, calls, the source and policies."""

import itertools
import random
from functools import partial

import pytest

from functions_for_workers import double, fail_at
from inturn import ordered_map
from waiting import Background, Gate, Source, Tally, absence, spend, wait_until, wait_until_told_to_end

# 16: close from anywhere


def test_g16_close_may_be_called_twice(driver):
    run = driver.map(double, range(10))
    next(run)
    run.close()
    run.close()
    with run:
        pass
    assert next(run, "over") == "over"


def test_g16_close_may_be_called_after_the_end(driver):
    run = driver.map(double, range(3))
    assert list(run) == [0, 2, 4]
    run.close()
    run.close()


def test_g16_close_from_another_thread_ends_a_next_that_waits(overlapping):
    head = Gate()
    run = overlapping.map(lambda i: head.wait(), itertools.count(), window=4)
    consumer = Background(next, run, "over")
    wait_until(lambda: run.stats.running == 4)
    closing = Background(run.close)
    assert consumer.result() == "over"
    assert not head.is_open
    assert closing.is_alive()  # it waits for the calls
    head.open()
    closing.result()


def test_g16_close_from_another_thread_ends_a_next_that_waits_for_a_live_source(overlapping):
    more = Gate()

    def source():
        more.wait()
        yield 1

    run = overlapping.map(double, source(), live=True)
    consumer = Background(next, run, "over")
    absence(0.05)
    run.close()
    assert consumer.result() == "over"
    assert not more.is_open


@pytest.mark.drivers("in a loop, who closes has to wait for the pull", in_loop=False)
def test_g16_close_from_another_thread_ends_a_next_inside_a_pull_as_soon_as_the_pull_ends(inside):
    inside_pull, more, started = Gate(), Gate(), Tally()

    def on_pull(k):
        if k == 1:
            inside_pull.open()
            more.wait()

    source = Source(itertools.count(), on_pull)
    run = inside.map(started.add, source, window=1)  # so that the first next makes one pull
    assert next(run) == 0
    consumer = Background(next, run, "over")
    inside_pull.wait()
    closing = Background(run.close)
    wait_until_told_to_end(run)
    more.open()
    assert consumer.result() == "over"
    closing.result()
    assert source.pulls == 2
    assert started.seen == [0]


def test_g16_many_threads_may_close_at_once(overlapping):
    for _ in range(20):
        run = overlapping.map(double, itertools.count(), window=8)
        next(run)
        closing = [Background(run.close) for _ in range(4)]
        for thread in closing:
            thread.result()
        assert next(run, "over") == "over"


def test_g16_close_at_any_moment_ends_a_loop_without_a_wrong_result(overlapping):
    dice = random.Random(4)
    executor = overlapping.executor(3)
    for _ in range(50):
        run = overlapping.map(double, itertools.count(), window=8, concurrency=3, executor=executor)
        consumer = Background(list, run)
        spend(dice.random() / 200)  # any moment will do
        run.close()
        results = consumer.result()
        assert results == list(range(0, 2 * len(results), 2))


def test_g16_close_from_fn_does_not_wait(overlapping):
    run = None
    closed = Tally()

    def call(i):
        if i == 2:
            run.close()
            closed.add(i)
        return i

    run = overlapping.map(call, itertools.count(), window=8)
    results = list(run)
    assert closed.wait(1) == [2]
    assert results == list(range(len(results)))
    assert len(results) <= 8


def test_g16_close_from_fn_in_serial_ends_the_run():
    run = None

    def call(i):
        if i == 2:
            run.close()
        return i

    run = ordered_map(call, itertools.count(), executor="serial")
    assert list(run) in ([0, 1], [0, 1, 2])


def test_g16_close_from_the_source_ends_the_run(inside):
    run = None

    def source():
        yield 0
        yield 1
        run.close()
        yield 2
        yield 3

    run = inside.map(double, source(), window=2)
    results = list(run)
    assert results == [0, 2, 4, 6][: len(results)]
    assert len(results) <= 2


def test_g16_close_from_a_policy_ends_the_run(inside):
    run = None

    def policy(failure):
        run.close()
        return "closed"

    run = inside.map(partial(fail_at, frozenset({2})), itertools.count(), on_error=policy, window=5)
    assert list(run) in ([0, 2], [0, 2, "closed"])


def test_g01_g16_a_next_just_before_close_ends_the_run_skips_nothing(monkeypatch):
    run = ordered_map(str, range(8), chunksize=4, window=8, concurrency=1)
    assert next(run) == "0"  # and the three behind it are held
    wait_until(lambda: run.stats.waiting >= 3)
    stop, between = run._run.job.stop, []

    def stopping():
        between.append(Background(next, run, "over").result())
        monkeypatch.undo()
        stop()

    monkeypatch.setattr(run._run.job, "stop", stopping)
    run.close()
    assert between == ["1"]
    assert next(run, "over") == "over"
