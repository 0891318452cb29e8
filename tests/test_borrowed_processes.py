"""A borrowed `ProcessPoolExecutor`: what it can promise (issue 3.6), and never a hang."""

import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import pytest

from calls import double
from helpers import SHORT
from inturn import ordered_map
from test_processes import NoPickle, NoUnpickle, give, make, raising, same, throw

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals"),
    pytest.mark.filterwarnings("ignore:.*may lead to deadlocks in the child:DeprecationWarning"),  # by the executor
]


@pytest.fixture(params=["fork", "spawn"])
def executor(request):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(request.param)) as executor:
        yield executor


@pytest.fixture
def forked():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
        yield executor


CHUNKSIZES = [None, 1, 3]


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g19_results_come_in_order_from_a_borrowed_process_pool(executor, chunksize):
    assert list(ordered_map(double, range(500), executor=executor, chunksize=chunksize)) == [2 * i for i in range(500)]


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g25_an_item_that_cannot_be_pickled_costs_itself(forked, chunksize):
    items = [0, 1, NoPickle(), 3, NoUnpickle(), 5, 6, 7]
    results = list(
        ordered_map(partial(give, None), items, executor=forked, chunksize=chunksize, concurrency=2, on_error="return")
    )
    assert [results[i] for i in (0, 1, 3, 5, 6, 7)] == [0, 1, 3, 5, 6, 7]
    assert repr(results[2].error) == "TypeError('not this one')"
    assert repr(results[4].error) == "LookupError('boom')"


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g25_a_result_that_cannot_be_pickled_costs_itself(forked, chunksize):
    results = list(ordered_map(make, range(8), executor=forked, chunksize=chunksize, concurrency=2, on_error="return"))
    assert [results[i] for i in (0, 1, 2, 4, 6, 7)] == [0] * 6
    assert repr(results[3].error) == "TypeError('not this one')"
    assert repr(results[5].error) == "LookupError('boom')"


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g25_an_error_that_cannot_travel_names_its_type_and_text(forked, chunksize):
    results = list(
        ordered_map(raising, range(8), executor=forked, chunksize=chunksize, concurrency=2, on_error="return")
    )
    assert repr(results[2].error) == "RuntimeError('Stubborn: this and that')"
    assert repr(results[4].error) == "RuntimeError('Unpicklable: lost')"
    assert type(results[6].error.__cause__) is KeyError


def test_g11_a_system_exit_of_fn_reaches_the_consumer(forked):
    with pytest.raises(SystemExit):
        list(ordered_map(partial(throw, SystemExit(4)), range(3), executor=forked, on_error="skip"))
    assert list(ordered_map(double, range(3), executor=forked)) == [0, 2, 4]


def test_g25_closures_travel_with_cloudpickle(executor):
    pytest.importorskip("cloudpickle")
    offset = 5
    assert list(ordered_map(lambda x: x + offset, range(4), executor=executor)) == [5, 6, 7, 8]


def test_g25_fn_that_cannot_be_pickled_is_told_the_cure(forked, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(TypeError, match=r"pip install 'inturn\[pickle\]'"):
        list(ordered_map(lambda x: x, range(3), executor=forked))
    assert list(ordered_map(double, range(3), executor=forked)) == [0, 2, 4]


def die_at(bad, i):
    if i == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return i


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g25_a_pool_that_breaks_gives_clear_failures_and_never_a_hang(forked, chunksize):
    delivered = []
    with pytest.raises(BrokenProcessPool):
        delivered.extend(
            ordered_map(partial(die_at, 7), range(100), executor=forked, chunksize=chunksize, concurrency=2)
        )
    assert delivered == list(range(len(delivered)))
    assert len(delivered) <= 7


def test_g25_what_no_item_can_survive_ends_the_run_past_every_policy(forked):
    with pytest.raises(BrokenProcessPool):
        list(ordered_map(partial(die_at, 7), range(100), executor=forked, on_error="skip"))
    with pytest.raises(BrokenProcessPool):
        list(ordered_map(double, range(10), executor=forked, on_error="skip"))


def test_large_payloads_travel(forked):
    items = [os.urandom(300_000) for _ in range(8)]
    assert list(ordered_map(same, items, executor=forked)) == items


def test_g17_an_item_that_takes_too_long_is_given_up(forked):
    results = list(ordered_map(partial(nap_at, 2), range(5), executor=forked, timeout=SHORT, on_error="return"))
    assert [type(each) for each in results].count(int) == 4
    assert isinstance(results[2].error, TimeoutError)


def nap_at(slow, i):
    time.sleep(2 * SHORT if i == slow else 0)
    return i
