"""Guarantees 1 to 7: order, laziness, the window, pulling, back-pressure."""

import contextvars
import itertools
import os
import random
import sqlite3
import threading
from collections import deque

import pytest

from functions_for_workers import Prickly, add, double, pair, same
from inturn import SKIP, ordered_map
from waiting import HANG_S, Background, Gate, Meter, Source, Tally, absence, primed, spend, wait_until

ITEMS = 12


@pytest.fixture(params=[1, 5, ITEMS, 30], ids=["one", "below", "equal", "above"])
def window(request: pytest.FixtureRequest) -> int:
    return request.param


# 1: order


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_g01_the_results_are_those_of_map(driver, window, chunksize):
    window = max(window, chunksize or 1)
    assert list(driver.map(double, range(ITEMS), window=window, chunksize=chunksize)) == list(map(double, range(ITEMS)))


@pytest.mark.parametrize("concurrency", [1, 2, 16])
def test_g01_the_results_are_those_of_map_at_default_settings(driver, concurrency):
    items = range(5000)
    assert list(driver.map(double, items, concurrency=concurrency)) == list(map(double, items))


@pytest.mark.parametrize("window", [5, 8])
@pytest.mark.parametrize("chunksize", [None, 1])
def test_g01_results_come_in_input_order_though_calls_end_in_reverse(overlapping, window, chunksize):
    turn = [Gate() for _ in range(6)]
    turn[5].open()
    ended = Tally()

    def call(i):
        turn[i + 1].wait()
        ended.add(i)
        turn[i].open()
        return i

    assert list(overlapping.map(call, range(5), concurrency=5, window=window, chunksize=chunksize)) == [0, 1, 2, 3, 4]
    assert ended.seen == [4, 3, 2, 1, 0]


def test_g01_results_come_in_input_order_though_calls_take_random_times(inside, window):
    dice = random.Random(window)
    pauses = [dice.choice([0, 0, 0.0005, 0.003]) for _ in range(100)]

    def call(i):
        spend(pauses[i])
        return i

    assert list(inside.map(call, range(100), window=window)) == list(range(100))


def test_g01_several_sources_are_zipped_and_the_shortest_ends_the_run(driver, window):
    assert list(driver.map(add, range(ITEMS), range(100, 200), window=window)) == list(
        map(add, range(ITEMS), range(100, 200))
    )
    assert list(driver.map(pair, "ab", [1, 2, 3], iter((4, 5)), "vwxyz", {6: 7, 8: 9}, window=window)) == [
        ("a", 1, 4, "v", 6),
        ("b", 2, 5, "w", 8),
    ]


def test_g01_an_empty_source_gives_an_empty_run(driver):
    assert list(driver.map(double, [])) == []
    assert list(driver.map(double, iter(()))) == []
    assert list(driver.map(add, range(3), [])) == []


def test_g01_one_item_is_enough(driver, window):
    assert list(driver.map(double, [21], window=window)) == [42]


def test_g01_an_infinite_source_is_fine(driver, window):
    run = driver.map(double, itertools.count(), window=window)
    assert list(itertools.islice(run, 100)) == list(range(0, 200, 2))
    run.close()


def test_g01_any_value_may_be_a_result(inside):
    values = [None, False, 0, "", (), [], SKIP, StopIteration, StopIteration(), ValueError("x"), NotImplemented, ...]
    results = list(inside.map(same, values, window=5))
    assert len(results) == len(values)
    assert all(result is value for result, value in zip(results, values, strict=True))


def test_g01_items_and_results_are_only_handed_on(inside, window):
    """Nothing of the library compares, hashes, measures, shows or tests them."""
    things = [Prickly() for _ in range(ITEMS)]
    results = list(inside.map(same, things, window=window))
    assert [id(r) for r in results] == [id(t) for t in things]


def test_g01_a_source_may_be_any_iterable(driver):
    class ByIndex:
        def __getitem__(self, i):
            if i == 4:
                raise IndexError
            return i

    for source in (
        range(4),
        [0, 1, 2, 3],
        (0, 1, 2, 3),
        deque(range(4)),
        dict.fromkeys(range(4)),
        ByIndex(),
        iter(range(4)),
    ):
        assert list(driver.map(double, source)) == [0, 2, 4, 6]


@pytest.mark.parametrize("hint", [0, 1, 2**40, NotImplemented], ids=str)
def test_g01_a_length_hint_is_a_hint(driver, hint):
    class Hinted:
        def __init__(self):
            self.left = iter(range(50))

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.left)

        def __length_hint__(self):
            return hint

    assert list(driver.map(double, Hinted())) == list(range(0, 100, 2))


def test_g01_the_index_is_delivered_with_the_result_if_asked_for(driver, window):
    run = driver.map(double, range(5, 5 + ITEMS), window=window, indexed=True)
    assert list(run) == [(i, 2 * (i + 5)) for i in range(ITEMS)]


def test_g01_two_runs_may_share_one_source(inside):
    """As two maps over one iterator may: each item goes to one of them."""
    source = iter(range(40))
    one, two = inside.map(same, source, window=3), inside.map(same, source, window=3)
    seen = [[], []]
    for _ in range(5):
        seen[0].append(next(one))
        seen[1].append(next(two))
    one.close()
    two.close()
    assert seen[0] == sorted(set(seen[0]))
    assert seen[1] == sorted(set(seen[1]))
    assert not set(seen[0]) & set(seen[1])


def test_g01_a_run_is_an_iterator_and_a_context_manager(driver):
    run = driver.map(double, range(3))
    assert iter(run) is run
    with run as entered:
        assert entered is run
        assert next(run) == 0
        assert next(run) == 2
        assert next(run) == 4
        with pytest.raises(StopIteration):
            next(run)
        with pytest.raises(StopIteration):
            next(run)
    assert next(run, "over") == "over"


# 2: laziness


def test_g02_nothing_happens_before_the_first_next(inside):
    calls, source = Tally(), Source(range(5))
    executor = inside.executor()
    before = threading.active_count()
    run = inside.map(calls.add, source, executor=executor)
    absence()
    assert (source.pulls, len(calls), threading.active_count()) == (0, 0, before)
    assert run.stats.pulled == 0
    assert list(run) == [0, 1, 2, 3, 4]


def test_g02_a_run_that_was_never_begun_costs_nothing_to_close_or_drop(inside):
    source = Source(range(5))
    with inside.map(double, source) as run:
        pass
    assert next(run, "over") == "over"
    inside.map(double, source)
    run = inside.map(double, source)
    run.close()
    assert list(run) == []
    assert source.pulls == 0


def test_g02_no_executor_is_made_before_the_first_next():
    from concurrent.futures import ThreadPoolExecutor

    made = []

    def make(workers):
        made.append(workers)
        return ThreadPoolExecutor(workers)

    run = ordered_map(double, range(5), executor=make, concurrency=2)
    assert made == []
    assert list(run) == [0, 2, 4, 6, 8]
    assert made == [2]


def test_g02_iter_of_the_source_is_taken_once_and_at_the_call(driver):
    asked = []

    class Iterable:
        def __iter__(self):
            asked.append("iter")
            return iter(range(3))

    run = driver.map(double, Iterable())
    assert asked == ["iter"]
    assert list(run) == [0, 2, 4]
    assert asked == ["iter"]


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
    absence()
    # the feeder of a live run fills the place that became free
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
    source = Source(range(20_000))
    last = deque(source.watch(inside.map(same, source, concurrency=2)), maxlen=1)
    assert last.pop() == 19_999
    assert max(source.held_or_asked if inside.live else source.held) <= 4096


def test_g04_the_window_of_tiny_items_ends_at_4096_behind_a_slow_head(apart):
    head, source = Gate(), Source(itertools.count())
    run = apart.map(lambda i: head.wait() if i == 10_000 else i, source, concurrency=2)
    for _ in itertools.islice(source.watch(run), 10_000):
        pass
    consumer = Background(next, run)
    seen = -1
    while seen != source.pulls:  # until it rests
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
    assert len(ended) == behind  # the window is full, and everything rests
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


def test_g06_live_pulls_within_the_same_window_and_reserves_the_place_before_the_pull(apart, window):
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
    pulled = 16 + overlapping.live  # a feeder fills the place that became free
    called = pulled if chunksize != 4 else 16  # one item is no chunk
    assert sorted(ended.wait(called)) == list(range(called))
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
