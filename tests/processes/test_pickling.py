"""`executor="process"`: what cannot be pickled costs its item, and errors that travel keep what they say."""

import sys
import traceback
from functools import partial

import pytest

from inturn import Processes, ordered_map
from things_hard_to_pickle import NoPickle, NoUnpickle, give, make, raising, throw

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals")


METHODS = ["fork", "forkserver", "spawn"]
FORK = Processes(start_method="fork")


# 25: pickling


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_g25_an_item_that_cannot_be_pickled_costs_itself(chunksize):
    items = [0, 1, NoPickle(), 3, NoUnpickle(), 5, 6, 7]
    results = list(
        ordered_map(partial(give, None), items, executor=FORK, concurrency=2, chunksize=chunksize, on_error="return")
    )
    assert [results[i] for i in (0, 1, 3, 5, 6, 7)] == [0, 1, 3, 5, 6, 7]
    assert repr(results[2].error) == "TypeError('not this one')"
    assert "the item could not be pickled for a worker process" in results[2].error.__notes__
    assert results[2].item is items[2]
    assert repr(results[4].error) == "LookupError('boom')"
    assert "the item could not be unpickled in the worker process" in results[4].error.__notes__


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_g25_a_result_that_cannot_be_pickled_costs_itself(chunksize):
    results = list(ordered_map(make, range(8), executor=FORK, concurrency=2, chunksize=chunksize, on_error="return"))
    assert [results[i] for i in (0, 1, 2, 4, 6, 7)] == [0] * 6
    assert repr(results[3].error) == "TypeError('not this one')"
    assert "the result, a NoPickle, could not be pickled in the worker process" in results[3].error.__notes__
    assert repr(results[5].error) == "LookupError('boom')"
    assert "the result could not be unpickled" in results[5].error.__notes__


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_g25_an_error_that_cannot_travel_names_its_type_and_text(chunksize):
    results = list(ordered_map(raising, range(8), executor=FORK, concurrency=2, chunksize=chunksize, on_error="return"))
    assert [type(each) for each in results].count(int) == 5
    assert repr(results[2].error) == "RuntimeError('Stubborn: this and that')"
    assert repr(results[4].error) == "RuntimeError('Unpicklable: lost')"
    assert type(results[6].error) is ValueError
    assert type(results[6].error.__cause__) is KeyError


def test_g08_the_traceback_of_the_worker_is_shown():
    with pytest.raises(ValueError, match="plain") as caught:
        list(ordered_map(raising, [0, 6], executor=FORK))
    words = "".join(traceback.format_exception(caught.value))
    assert 'raise ValueError("plain") from KeyError("cause")' in words
    assert "in raising" in words
    assert "_process_main" not in words
    assert "item 1: 6" in words


def test_g11_a_keyboard_interrupt_or_a_system_exit_of_fn_reaches_the_consumer():
    for error in (SystemExit(5), KeyboardInterrupt("from fn")):
        with pytest.raises(type(error)) as caught:
            list(ordered_map(partial(throw, error), range(3), executor=FORK, on_error="skip"))
        assert caught.value.args == error.args


def test_g26_batches_cannot_be_seen():
    """Neither items nor results of a batch share what they would not share alone."""
    item = []
    assert list(ordered_map(partial(grow, item), [item] * 9, executor=FORK, concurrency=1, chunksize=3)) == [1] * 9
    shared = list(ordered_map(shared_list, range(9), executor=FORK, concurrency=1, chunksize=3))
    assert shared == [list(range(i + 1)) for i in range(9)]
    assert len(set(map(id, shared))) == 9


def grow(own, box):
    box.append(1)
    return len(box)


_kept: list = []


def shared_list(i):
    _kept.append(i)
    return _kept


LAMBDA = "lambda x: x + 1"


def test_g25_fn_that_cannot_be_pickled_ends_the_run_with_a_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)  # as if it were not installed
    for fn in (eval(LAMBDA), lambda x: x):
        with pytest.raises(TypeError, match=r"cannot be pickled .* pip install 'inturn\[pickle\]'"):
            list(ordered_map(fn, range(3), executor=FORK, on_error="skip"))


def test_g25_lambdas_and_closures_work_with_cloudpickle(processes):
    pytest.importorskip("cloudpickle")
    offset = 3
    assert list(ordered_map(lambda x: x + offset, range(5), executor=processes, concurrency=1)) == [3, 4, 5, 6, 7]
    results = list(ordered_map(lambda x: lambda: x + offset, range(5), executor=processes, concurrency=1))
    assert [each() for each in results] == [3, 4, 5, 6, 7]
