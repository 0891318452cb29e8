"""Guarantee 22: runs inside the calls of other runs."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from functions_for_workers import Oops, double, fail_at, same
from inturn import Retry, ordered_map, retry
from results import until_error
from waiting import Background, Meter, Source, Tally

# 22: nesting


SMALL = pytest.mark.parametrize("workers", [1, 2])


@SMALL
@pytest.mark.parametrize("depth", [2, 4])
def test_g22_runs_nest_on_one_executor_whose_workers_are_all_busy(workers, depth):
    with ThreadPoolExecutor(workers) as executor:

        def level(depth, x):
            if depth == 1:
                return x
            return sum(ordered_map(partial(level, depth - 1), range(3), executor=executor, concurrency=2)) + x

        expected = list(ordered_map(partial(level, depth), range(4), executor="serial"))
        run = ordered_map(partial(level, depth), range(4), executor=executor, concurrency=2)
        assert len(Background(list, run).result()) == len(expected)


@SMALL
@pytest.mark.parametrize("chunksize", [None, 1, 2])
def test_g22_nested_runs_give_the_right_results_on_a_busy_executor(workers, chunksize):
    with ThreadPoolExecutor(workers) as executor:

        def outer(i):
            inner = ordered_map(lambda j: 10 * i + j, range(20), executor=executor, window=4, chunksize=chunksize)
            return list(inner)

        run = ordered_map(outer, range(6), executor=executor, concurrency=3, window=5)
        assert Background(list, run).result() == [[10 * i + j for j in range(20)] for i in range(6)]


@SMALL
def test_g22_runs_nest_through_other_executors(workers):
    """A on the first, B on the second, C on the first again: B's own executor is idle, and C waits for A's worker."""
    with ThreadPoolExecutor(workers) as first, ThreadPoolExecutor(workers) as second:

        def a(i):
            return sum(ordered_map(b, range(3), executor=second, concurrency=2)) + i

        def b(i):
            return sum(ordered_map(same, range(3), executor=first, concurrency=2)) + i

        assert Background(list, ordered_map(a, range(4), executor=first, concurrency=2)).result() == [12, 13, 14, 15]


def test_g22_runs_nest_through_threads_of_our_own():
    with ThreadPoolExecutor(1) as executor:

        def a(i):
            return sum(ordered_map(b, range(3), concurrency=2)) + i

        def b(i):
            return sum(ordered_map(same, range(3), executor=executor, concurrency=2)) + i

        assert Background(list, ordered_map(a, range(4), executor=executor)).result() == [12, 13, 14, 15]


def test_g22_runs_nest_through_serial():
    with ThreadPoolExecutor(1) as executor:

        def a(i):
            return sum(ordered_map(b, range(3), executor="serial")) + i

        def b(i):
            return sum(ordered_map(same, range(3), executor=executor, concurrency=2)) + i

        assert Background(list, ordered_map(a, range(4), executor=executor)).result() == [12, 13, 14, 15]


def test_g22_runs_nest_on_every_driver(inside):
    executor = inside.executor(1)

    def outer(i):
        return sum(inside.map(same, range(10), executor=executor, concurrency=2, window=3)) + i

    run = inside.map(outer, range(10), executor=executor, concurrency=2, window=3)
    assert Background(list, run).result() == list(range(45, 55))


@SMALL
def test_g22_a_run_over_a_run_may_share_its_executor(workers):
    with ThreadPoolExecutor(workers) as executor:
        for settings in ({}, {"window": 1}, {"window": 3, "chunksize": 1}, {"live": True}):
            inner = ordered_map(double, range(50), executor=executor, concurrency=2, **settings)
            middle = ordered_map(double, inner, executor=executor, concurrency=2, **settings)
            outer = ordered_map(double, middle, executor=executor, concurrency=2, **settings)
            assert Background(list, outer).result() == list(range(0, 400, 8))


def test_g22_a_run_over_a_run_works_on_every_driver(inside):
    executor = inside.executor(1)
    inner = inside.map(double, range(50), executor=executor, concurrency=2)
    outer = inside.map(double, inner, executor=executor, concurrency=2)
    assert Background(list, outer).result() == list(range(0, 200, 4))


def test_g22_a_run_made_outside_may_be_consumed_inside_fn_on_the_same_executor():
    with ThreadPoolExecutor(1) as executor:
        inner = ordered_map(double, range(20), executor=executor, concurrency=2)
        outer = ordered_map(lambda i: next(inner), range(20), executor=executor, concurrency=1)
        assert Background(list, outer).result() == list(range(0, 40, 2))


def test_g22_a_nested_run_sees_errors_retries_and_deadlines_as_ever():
    with ThreadPoolExecutor(1) as executor:

        def outer(i):
            attempts = itertools.count()

            def flaky(j):
                if j == 1 and next(attempts) < 2:
                    raise Oops(j)
                return j

            settings = {"executor": executor, "concurrency": 2}
            assert list(ordered_map(flaky, range(4), on_error=retry(backoff=0.001), **settings)) == [0, 1, 2, 3]
            results, error = until_error(ordered_map(partial(fail_at, frozenset({2})), range(9), **settings))
            assert results == [0, 2]
            assert type(error) is Oops
            return i

        assert Background(list, ordered_map(outer, range(4), executor=executor)).result() == [0, 1, 2, 3]


def test_g22_a_nested_run_that_is_left_early_leaves_the_outer_one_alone():
    with ThreadPoolExecutor(1) as executor:

        def outer(i):
            with ordered_map(double, itertools.count(), executor=executor, concurrency=2, window=4) as run:
                return list(itertools.islice(run, 5))

        assert Background(list, ordered_map(outer, range(6), executor=executor)).result() == [[0, 2, 4, 6, 8]] * 6


def test_g22_a_nested_run_keeps_to_its_window_and_its_concurrency():
    with ThreadPoolExecutor(1) as executor:
        meter = Meter()

        def call(i):
            with meter:
                return i

        def outer(i):
            source = Source(range(30))
            results = list(source.watch(ordered_map(call, source, executor=executor, concurrency=1, window=3)))
            assert max(source.held) <= 3
            return results

        assert Background(list, ordered_map(outer, range(3), executor=executor)).result() == [list(range(30))] * 3


def test_g22_nested_runs_leave_the_executor_to_the_others():
    """The waiting run's item runs in a thread of its own, and is not run again by the executor."""
    called = Tally()
    with ThreadPoolExecutor(1) as executor:
        outer = ordered_map(
            lambda i: list(ordered_map(called.add, range(i, i + 5), executor=executor)),
            range(0, 50, 5),
            executor=executor,
        )
        Background(list, outer).result()
    assert sorted(called.seen) == list(range(50))


def test_g22_a_retried_item_of_a_nested_run_takes_no_worker_of_the_outer_one():
    with ThreadPoolExecutor(1) as executor:

        def outer(i):
            attempts = itertools.count()
            policy = lambda failure: Retry(after=0.01)
            call = lambda j: next(attempts) >= 2 or raise_oops()
            return list(ordered_map(call, range(3), executor=executor, on_error=policy))

        assert Background(list, ordered_map(outer, range(3), executor=executor)).result() == [[True] * 3] * 3


def raise_oops():
    raise Oops
