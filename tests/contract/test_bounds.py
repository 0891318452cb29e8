"""Guarantees 3 to 5: the window, its size by default, and a slow head."""

import itertools
import os
import threading
from collections import deque

import pytest

from functions_for_workers import add, same
from inturn import ordered_map
from waiting import HANG_S, Background, Gate, Meter, Source, Tally, absence, primed, spend

ITEMS = 12


# 3: the window


@pytest.mark.parametrize("chunksize", [None, 1, 3])
@pytest.mark.parametrize("pause", [0, 0.001], ids=["quick", "slow"])
def test_g03_never_more_than_window_items_are_pulled_and_not_delivered(inside, window, chunksize, pause):
    window = max(window, chunksize or 1)
    source = Source(range(40))

    def call(i):
        spend(pause * (i % 3))
        return i

    assert list(source.watch(inside.map(call, source, window=window, chunksize=chunksize))) == list(range(40))
    # a feeder may pull between the delivery and the moment at which the consumer counts it
    assert max(source.held_or_asked if inside.live else source.held) <= window


def test_g03_the_bound_is_reached_and_holds_while_next_waits(overlapping, window):
    head, source = Gate(), Source(itertools.count())
    run = overlapping.map(lambda i: head.wait() if i == 0 else i, source, window=window)
    consumer = Background(next, run)
    source.begun.wait(window)
    absence()
    assert source.pulls == window
    assert run.stats.pulled == window
    head.open()
    assert consumer.result() is None
    run.close()


def test_g03_the_bound_holds_while_the_consumer_is_busy(overlapping, window):
    run, source = primed(overlapping, same, window=window)
    source.begun.wait(window + overlapping.live)  # the feeder of a live run fills the room that became free
    absence()
    assert source.pulls == window + overlapping.live
    for i in range(1, 20):
        assert next(run) == i
        source.delivered += 1
        assert source.pulls <= window + source.delivered
    run.close()


def test_g03_the_bound_holds_though_items_are_left_out(inside, window):
    """A skipped item counts until its turn has come."""
    source = Source(range(60))

    def call(i):
        if i % 4:
            raise ValueError(i)
        return i

    run = inside.map(call, source, window=window, on_error="skip")
    for result in run:
        # everything before the one just delivered is out of the window
        assert source.pulls <= result + 1 + window


def test_g03_the_bound_holds_for_several_sources(inside, window):
    left, right = Source(range(40)), Source(range(40))
    left.asked = right.asked = 1
    run = inside.map(add, left, right, window=window)
    for delivered, result in enumerate(run, 1):
        left.delivered = right.delivered = delivered
        left.asked = right.asked = delivered + 1
        assert result == 2 * (delivered - 1)
    for source in (left, right):
        assert max(source.held_or_asked if inside.live else source.held) <= window


# 4: the window by itself


def test_g04_the_window_is_at_least_twice_the_concurrency(overlapping):
    head, source = Gate(), Source(itertools.count())
    run = overlapping.map(lambda i: head.wait() if i == 0 else i, source, concurrency=7)
    consumer = Background(next, run)
    source.begun.wait(14)
    head.open()
    consumer.result()
    run.close()


def test_g04_the_window_is_at_least_twice_the_concurrency_times_an_explicit_chunksize(overlapping):
    head, source = Gate(), Source(itertools.count())
    run = overlapping.map(lambda i: head.wait() if i == 0 else i, source, concurrency=3, chunksize=5)
    consumer = Background(next, run)
    source.begun.wait(30)
    head.open()
    consumer.result()
    run.close()


def test_g04_the_window_never_grows_past_4096(inside):
    source = Source(range(2 * 4096))  # where items are handed over one by one, each takes 10 ms on a busy machine
    last = deque(source.watch(inside.map(same, source, concurrency=2)), maxlen=1)
    assert last.pop() == 2 * 4096 - 1
    assert max(source.held_or_asked if inside.live else source.held) <= 4096


def test_g04_the_window_of_tiny_items_ends_at_4096_behind_a_slow_head(apart):
    head, source = Gate(), Source(itertools.count())
    run = apart.map(lambda i: head.wait() if i == 10_000 else i, source, concurrency=2)
    for _ in itertools.islice(source.watch(run), 10_000):
        pass
    consumer = Background(next, run)
    seen = -1
    while seen != source.pulls:  # until nothing is pulled any more
        seen = source.pulls
        absence()
    assert 4 <= seen - 10_000 <= 4096
    head.open()
    consumer.result()
    run.close()


def test_g04_the_window_does_not_grow_while_items_are_slow(inside):
    source = Source(range(200))

    def call(i):
        spend(0.001)
        return i

    for _ in source.watch(inside.map(call, source, concurrency=4)):
        pass
    assert max(source.held_or_asked if inside.live else source.held) <= 32


def test_g04_the_window_does_not_grow_while_results_are_large(inside):
    source = Source(range(2000))
    for _ in source.watch(inside.map(lambda i: bytes(50_000), source, concurrency=4)):
        pass
    assert max(source.held_or_asked if inside.live else source.held) <= 64


def test_g04_the_window_does_not_grow_while_items_are_large(inside):
    source = Source(bytes(50_000) for _ in range(2000))
    for _ in source.watch(inside.map(len, source, concurrency=4)):
        pass
    assert max(source.held_or_asked if inside.live else source.held) <= 64


# 5: a slow head


@pytest.mark.parametrize("concurrency", [2, 4])
def test_g05_a_slow_head_holds_up_delivery_and_not_work(overlapping, window, concurrency):
    head, ended = Gate(), Tally()

    def call(i):
        if i == 0:
            head.wait()
        return ended.add(i)

    source = Source(range(ITEMS))
    run = overlapping.map(call, source, window=window, concurrency=concurrency)
    consumer = Background(next, run)
    behind = min(window, ITEMS) - 1
    assert sorted(ended.wait(behind)) == list(range(1, behind + 1))
    absence()
    assert len(ended) == behind  # the window is full, and no call runs
    assert consumer.is_alive()
    head.open()
    assert consumer.result() == 0
    assert list(run) == list(range(1, ITEMS))


def test_g05_a_slow_item_deep_in_a_run_of_tiny_ones_holds_up_no_work(overlapping):
    head, ended = Gate(), Tally()

    def call(i):
        if i == 3000:
            head.wait()
        return ended.add(i)

    run = overlapping.map(call, itertools.count(), concurrency=2, window=50)
    assert list(itertools.islice(run, 3000)) == list(range(3000))
    consumer = Background(next, run)
    ended.wait(3000 + 49)
    head.open()
    assert consumer.result() == 3000
    run.close()


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_g05_no_more_calls_run_at_once_than_concurrency(inside, window, chunksize):
    window, meter = max(window, chunksize or 1), Meter()

    def call(i):
        with meter:
            spend(0.002 if i % 5 == 0 else 0)
        return i

    list(inside.map(call, range(60), concurrency=3, window=window, chunksize=chunksize))
    assert 1 <= meter.peak <= 3


@pytest.mark.parametrize("tiny", [0, 500])
@pytest.mark.parametrize("settings", [{}, {"window": 8}, {"chunksize": 1}], ids=str)
def test_g05_as_many_calls_run_at_once_as_concurrency_says(overlapping, tiny, settings):
    """Also when the library has come to believe that items are tiny and has put many into one chunk."""
    meeting = threading.Barrier(4)

    def call(i):
        if i >= tiny:
            meeting.wait(HANG_S)
        return i

    assert list(overlapping.map(call, range(tiny + 8), **settings)) == list(range(tiny + 8))


def test_g05_the_default_concurrency_is_cpus_plus_four_on_threads():
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    expected = min(32, cpus + 4)
    meeting, meter = threading.Barrier(expected), Meter()

    def call(i):
        with meter:
            meeting.wait(HANG_S)

    with ordered_map(call, range(3 * expected)) as run:
        for _ in run:
            pass
    assert meter.peak == expected


def test_g05_the_default_concurrency_of_serial_is_one():
    meter = Meter()

    def call(i):
        with meter:
            return i

    assert list(ordered_map(call, range(5), executor="serial")) == [0, 1, 2, 3, 4]
    assert meter.peak == 1
