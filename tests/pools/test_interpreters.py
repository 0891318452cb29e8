"""``executor="interpreter"``: subinterpreters, from Python 3.14 on."""

import os
import sys
import threading

import pytest

import functions_for_workers
from functions_for_workers import double, fail_at
from inturn import ordered_flat_map, ordered_map
from things_hard_to_pickle import NoPickle

late_enough = pytest.mark.skipif(sys.version_info < (3, 14), reason="there are interpreters from Python 3.14 on")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python has interpreters")
def test_g19_before_python_3_14_interpreters_are_refused_at_the_call():
    with pytest.raises(ValueError, match=r"needs Python 3\.14 or later, not 3\.1[123]; use \"process\""):
        ordered_map(double, [1], executor="interpreter")


def test_g19_a_flat_map_on_interpreters_is_refused():
    with pytest.raises(ValueError, match='must be "thread", "process"'):
        ordered_flat_map(double, [1], executor="interpreter")


@late_enough
def test_g19_results_come_in_order_from_interpreters():
    assert list(ordered_map(double, range(2000), executor="interpreter", concurrency=2)) == [2 * i for i in range(2000)]


def where(i):
    return os.getpid(), threading.get_ident(), count(i)


counted: list[int] = []


def count(i):
    counted.append(i)
    return len(counted)


@late_enough
def test_g19_interpreters_share_the_process_but_no_objects():
    results = list(ordered_map(where, range(40), executor="interpreter", concurrency=2, chunksize=1))
    assert {pid for pid, _, _ in results} == {os.getpid()}
    assert threading.get_ident() not in {thread for _, thread, _ in results}
    assert not counted


@late_enough
def test_g19_there_are_as_many_interpreters_as_cpus():
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert ordered_map(double, [], executor="interpreter")._run.job.concurrency == cpus


@late_enough
@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_g25_what_cannot_be_pickled_costs_its_item(chunksize):
    run = ordered_map(double, [1, NoPickle(), 3], executor="interpreter", chunksize=chunksize, on_error="return")
    first, failure, third = run
    assert (first, third) == (2, 6)
    assert isinstance(failure.error, TypeError)


@late_enough
def test_g25_closures_travel_with_cloudpickle():
    pytest.importorskip("cloudpickle")
    offset = 5
    assert list(ordered_map(lambda x: x + offset, range(4), executor="interpreter")) == [5, 6, 7, 8]


@late_enough
def test_g08_an_error_of_an_interpreter_is_of_our_own_class():
    from functools import partial

    run = ordered_map(partial(fail_at, frozenset({1})), range(3), executor="interpreter")
    assert next(run) == 0
    with pytest.raises(functions_for_workers.Oops, match="no 1") as caught:
        next(run)
    assert "item 1: 1" in caught.value.__notes__


def runs_in_an_interpreter(x):
    """Every way to have threads; each run ends in good order but the last, which is left open."""
    import asyncio

    from inturn import Retry, Threads, ordered_gather

    tries = []

    def fails_once(y):
        tries.append(y)
        return y if len(tries) > 1 else 1 / 0

    got = [
        list(ordered_map(double, [x, x], timeout=100)),
        list(ordered_map(double, [x, x], live=True)),
        list(ordered_map(double, [x, x], executor=Threads(max_workers=1))),
        list(ordered_flat_map(lambda y: [y, y], [x])),
        list(ordered_map(fails_once, [x, x], executor="serial", on_error=lambda failure: Retry(after=0.001))),
        asyncio.run(ordered_gather(double, ordered_map(double, [x]), executor="thread")),
    ]
    left_open.append(ordered_map(double, range(1000), concurrency=2))
    got.append([next(left_open[-1])])
    return got


left_open = []


@late_enough
def test_g22_runs_inside_an_interpreter_have_threads_and_end_with_it():
    both = [2 * 3, 2 * 3]
    for _ in range(3):
        expected = [both, both, both, [3, 3], [3, 3], [12], [0]]
        assert list(ordered_map(runs_in_an_interpreter, [3, 3], executor="interpreter")) == [expected] * 2
