"""Guarantees 6 and 7: who pulls the source and when, and back-pressure."""

import contextvars
import itertools
import sqlite3
import threading

import pytest

from functions_for_workers import double, same
from waiting import HANG_S, Background, Gate, Source, Tally, absence, primed, spend, wait_until

ITEMS = 12


# 6: pulling


def test_g06_the_source_is_pulled_in_the_thread_of_the_consumer_inside_next(pulling, window):
    source = Source(range(ITEMS))
    run = pulling.map(double, source, window=window)
    consumer = Background(lambda: (threading.get_ident(), list(run)))
    ident, results = consumer.result()
    assert source.threads == {ident}
    assert results == list(range(0, 2 * ITEMS, 2))


def test_g06_nothing_is_pulled_outside_next(pulling):
    source = Source(range(100))
    run = pulling.map(double, source, window=8)
    for _ in range(10):
        next(run)
        before = source.pulls
        absence(0.01)
        assert source.pulls == before
    run.close()


def test_g06_a_thread_bound_cursor_works_as_a_source(pulling):
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table t (x)")
        connection.executemany("insert into t values (?)", [(i,) for i in range(100)])
        rows = connection.execute("select x from t order by x")
        assert list(pulling.map(lambda row: row[0], rows)) == list(range(100))
    connection.close()


@pytest.mark.drivers("in turn, no head is ready before it is run", concurrent=True)
def test_g06_a_ready_head_waits_for_one_pull_at_most(pulling):
    ended = Tally()
    run, source = primed(pulling, ended.add, window=8)
    source._on_pull = lambda k: spend(0.002)  # every further pull is slow
    for i in range(1, 30):
        ended.wait(source.pulls)
        wait_until(lambda: run.stats.running == 0)
        before = source.pulls
        assert next(run) == i
        assert source.pulls - before <= 1
    run.close()


def test_g06_a_ready_head_is_delivered_though_quick_pulls_would_go_on_for_ever(overlapping):
    """With a large window, filling it must not come before the head."""
    source = Source(itertools.count())
    run = overlapping.map(same, source, window=1_000_000)
    assert list(itertools.islice(run, 100)) == list(range(100))
    assert source.pulls < 900_000
    run.close()


@pytest.mark.drivers("in turn, no head becomes ready during a pull", concurrent=True)
def test_g06_a_head_that_became_ready_during_a_pull_is_delivered_before_the_next_pull(pulling):
    ended, early = Tally(), []

    def on_pull(k):
        if k == 1:
            ended.wait(1)
            wait_until(lambda: run.stats.running == 0)
            spend(0.002)  # over the millisecond within which more pulls may follow
        elif k > 1 and not source.delivered:
            early.append(k)

    source = Source(itertools.count(), on_pull)
    run = pulling.map(ended.add, source, window=10)
    assert next(run) == 0
    source.delivered = 1
    run.close()
    assert early == []


@pytest.mark.drivers("a pull that blocks blocks the calls", blocks=False)
@pytest.mark.parametrize(("quick", "every"), [(0, 1), (3000, 1), (0, 50), (3000, 50)])
def test_g06_a_source_may_wait_for_earlier_items_to_have_been_processed(inside, quick, every):
    """Its next item depends on them, as in a crawl. It never deadlocks, however many quick pulls came before."""
    ended = Tally()

    def source():
        for k in range(quick + 3 * every + 20):
            if k >= quick and k % every == 0:
                ended.wait(k)
            yield k

    assert list(inside.map(ended.add, source(), concurrency=3)) == list(range(quick + 3 * every + 20))


def test_g06_a_source_may_wait_for_earlier_items_while_calls_wait_for_each_other(overlapping):
    """Each pull waits for the call of the item before it, and that call for a second worker that is busy."""
    ended = Tally()
    last = Gate()

    def call(i):
        if i == 0:
            last.wait()
        return ended.add(i)

    def source():
        for k in range(6):
            if k >= 2:
                ended.wait(k - 1)  # all but item 0
            if k == 5:
                last.open()
            yield k

    assert list(overlapping.map(call, source(), concurrency=2, window=10)) == list(range(6))


def test_g06_live_delivers_a_ready_head_while_the_source_blocks(overlapping):
    more = Gate()

    def source():
        yield 1
        yield 2
        more.wait()
        yield 3

    run = overlapping.map(double, source(), live=True)
    assert next(run) == 2
    assert next(run) == 4
    assert not more.is_open
    more.open()
    assert list(run) == [6]


def test_g06_live_lets_the_source_wait_for_the_delivery_of_the_item_before(inside):
    delivered = Tally()

    def source():
        for k in range(50):
            if inside.driver.concurrent:
                delivered.wait(k)
            yield k

    for result in inside.map(double, source(), live=True):
        delivered.add(result)
    assert delivered.seen == list(range(0, 100, 2))


def test_g06_live_pulls_within_the_same_window_and_reserves_room_before_the_pull(apart, window):
    head, source = Gate(), Source(itertools.count())
    run = apart.map(lambda i: head.wait() if i == 0 else i, source, window=window, live=True)
    consumer = Background(next, run)
    source.begun.wait(window)
    absence()
    assert source.pulls == window
    head.open()
    consumer.result()
    for i in range(1, 30):
        assert next(run) == i
        assert source.pulls <= window + i + 1
    source.begun.wait(window + 30)
    absence()
    assert source.pulls == window + 30
    run.close()


def test_g06_live_pulls_in_one_other_thread_in_a_copy_of_the_context_of_the_caller(overlapping):
    word = contextvars.ContextVar("word")
    heard, seen = [], Source(range(3), lambda k: (heard.append(word.get()), word.set("changed")))
    word.set("hello")
    assert list(overlapping.map(double, seen, live=True)) == [0, 2, 4]
    assert heard[0] == "hello"
    assert word.get() == "hello"
    assert len(seen.threads) == 1
    assert threading.get_ident() not in seen.threads


def test_g06_live_starts_no_feeder_before_the_first_next(apart):
    source = Source(range(3))
    run = apart.map(double, source, live=True)
    absence(0.05)
    assert source.pulls == 0
    assert list(run) == [0, 2, 4]


def test_g06_live_works_with_every_window(inside, window):
    assert list(inside.map(double, (i for i in range(40)), window=window, live=True)) == list(range(0, 80, 2))


# 7: back-pressure


@pytest.mark.parametrize("chunksize", [None, 1, 4])
def test_g07_work_goes_on_while_the_consumer_is_away_and_then_rests(overlapping, chunksize):
    back, ended = Gate(), Tally()

    def call(i):
        if i >= (chunksize or 1):
            back.wait()  # nothing but the first chunk has run when the consumer goes away
        return ended.add(i)

    run, source = primed(overlapping, call, window=16, concurrency=2, chunksize=chunksize)
    back.open()
    pulled = 16 + overlapping.live  # a feeder fills the room that became free
    called = pulled if chunksize != 4 else 16  # one item is no chunk
    assert sorted(ended.wait(called)) == list(range(called))
    source.begun.wait(pulled)
    absence()
    wait_until(lambda: run.stats.running == 0)
    assert source.pulls == pulled
    assert len(ended) == called
    run.close()


def test_g07_all_workers_go_on_while_the_consumer_is_away(overlapping):
    meeting, ended = threading.Barrier(4), Tally()

    def call(i):
        if 1 <= i <= 12:  # four by four; a feeder pulls one more
            meeting.wait(HANG_S)
        return ended.add(i)

    run, _ = primed(overlapping, call, window=13, concurrency=4)
    ended.wait(13)
    run.close()


def test_g07_a_run_that_has_rested_goes_on(overlapping):
    run, source = primed(overlapping, same, window=5)
    wait_until(lambda: run.stats.running == 0)
    absence()
    assert [next(run) for _ in range(100)] == list(range(1, 101))
    run.close()
