"""Guarantees 1 and 2: order and laziness."""

import itertools
import random
import threading
from collections import deque

import pytest

from functions_for_workers import Prickly, add, double, pair, same
from inturn import SKIP, ordered_map
from waiting import Gate, Source, Tally, absence, spend

ITEMS = 12


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
