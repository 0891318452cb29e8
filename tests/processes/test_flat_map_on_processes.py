"""`ordered_flat_map` on worker processes: elements stream over each worker's own link, against credits."""

import contextlib
import gc
import signal
import weakref
from functools import partial
from itertools import chain, islice
from pathlib import Path

import pytest

import generators_for_workers as calls
from generators_for_workers import Oops
from inturn import Failure, Processes, Retry, WorkerDied, ordered_flat_map, retry, sentinel
from inturn._processes import worker
from waiting import SHORT, absence, spend, wait_until

pytestmark = pytest.mark.skipif("not hasattr(__import__('os'), 'fork')", reason="worker processes need POSIX")

flat = partial(ordered_flat_map, executor="process", concurrency=2)


def lines(directory: Path, x: object) -> list[str]:
    path = directory / str(x)
    return path.read_text().splitlines() if path.exists() else []


# ---- order, liveness, bounds ---------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3, 20, None])
@pytest.mark.parametrize("buffer", [1, 2, 64])
@pytest.mark.parametrize("timeout", [None, 100.0])
def test_g01_elements_are_delivered_as_if_by_chain_from_iterable_of_map(window, buffer, timeout):
    run = flat(calls.steps, range(20), window=window, buffer=buffer, timeout=timeout)
    assert list(run) == list(chain.from_iterable(map(calls.steps, range(20))))


class Unpicklable:
    def __reduce__(self):
        raise ValueError


@pytest.mark.parametrize(("make", "fn"), [(Unpicklable, calls.steps), (calls.Token, calls.yields_unreadable)])
def test_g12_no_reference_to_an_item_is_kept_if_it_or_its_element_cannot_travel(make, fn):
    def source():
        for _ in range(3):
            item = make()
            items.append(weakref.ref(item))
            yield item
            del item

    items = []
    gc.collect()
    gc.disable()
    try:
        assert list(flat(fn, source(), on_error="skip")) == []
        wait_until(lambda: not any(item() for item in items))
    finally:
        gc.enable()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_g28_under_every_start_method(method):
    run = flat(calls.steps, range(8), executor=Processes(start_method=method))
    assert list(run) == list(chain.from_iterable(map(calls.steps, range(8))))


def test_several_iterables_are_zipped():
    assert "".join(flat(calls.letters, "xyz", [2, 0, 1])) == "xxz"


def test_fn_may_return_any_iterable_and_a_plain_value_gets_a_clear_type_error():
    items = [[1, 2], (), "ab", range(2), 3, {4: 5}, None]
    got = list(flat(calls.same, items, on_error="return"))
    failures = [each for each in got if isinstance(each, Failure)]
    assert [each for each in got if not isinstance(each, Failure)] == [1, 2, "a", "b", 0, 1, 4]
    assert [each.index for each in failures] == [4, 6]
    for each in failures:
        assert isinstance(each.error, TypeError)
        assert "fn must return an iterable, got" in str(each.error)


@pytest.mark.parametrize("buffer", [1, 3, 64, 1000])
def test_long_and_tiny_streams(buffer):
    run = flat(calls.numbers, [5000, 0, 3000], buffer=buffer)
    assert list(run) == [*range(5000), *range(3000)]


def test_a_slow_element_is_not_held_back_by_the_ones_before_it():
    with flat(partial(calls.paced, 1000.0), [0], concurrency=1) as run:
        assert list(islice(run, 4)) == [(0, 0), (0, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize("buffer", [1, 5, 64])
def test_every_item_produces_at_most_buffer_elements_ahead_and_then_waits(buffer, tmp_path):
    with flat(partial(calls.notes, str(tmp_path)), range(2), buffer=buffer) as run:
        for taken in range(1, 3 * buffer):
            assert next(run) == taken - 1
            assert len(lines(tmp_path, 0)) <= taken + buffer
        wait_until(lambda: len(lines(tmp_path, 1)) >= buffer)
        if buffer < 16:  # a large buffer is topped up by the handful
            wait_until(lambda: len(lines(tmp_path, 0)) >= taken + buffer)
        absence()
        assert len(lines(tmp_path, 1)) == buffer
        assert len(lines(tmp_path, 0)) <= taken + buffer


def test_indexed_delivers_the_index_of_the_item_with_each_element():
    run = flat(calls.steps, range(8), indexed=True)
    assert list(run) == [(x, (x, n)) for x in range(8) for n in range(x % 5)]


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_large_elements_arrive_whole_and_in_order(size):
    got = list(flat(partial(calls.blobs, size), range(3), buffer=4))
    assert len(got) == 60
    assert all(got[20 * x + 2 * n] == bytes([x + n]) * size for x in range(3) for n in range(10))
    assert all(got[20 * x + 2 * n + 1] == [bytearray(size), x + n] for x in range(3) for n in range(10))


def test_g26_each_element_is_pickled_as_if_alone():
    got = list(flat(calls.aliases, [0], buffer=64))
    assert got == [list(range(n + 1)) for n in range(5)]
    assert len({id(each) for each in got}) == 5


# ---- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 3, 100])
@pytest.mark.parametrize("buffer", [1, 64])
def test_g08_a_failure_in_mid_stream_keeps_the_elements_already_produced(n, buffer):
    *got, failure = flat(partial(calls.breaks_after, n), "x", buffer=buffer, on_error="return")
    assert got == [("x", k) for k in range(n)]
    assert isinstance(failure.error, Oops)
    assert failure.delivered == n
    assert "breaks_after" in str(failure.error.__cause__)  # its traceback there


def test_g09_what_the_policy_returns_takes_the_place_of_the_remainder():
    run = flat(partial(calls.breaks_after, 1), "xy", on_error=sentinel(None))
    assert list(run) == [("x", 0), None, ("y", 0), None]
    with pytest.raises(Oops) as caught:
        list(flat(partial(calls.breaks_after, 1), "xy"))
    assert caught.value.__notes__ == ["item 0: 'x'"]


@pytest.mark.parametrize(
    ("fn", "text"), [(calls.unpicklable, "could not be pickled"), (calls.no_way_back, "unpickled")]
)
def test_g25_an_element_that_cannot_travel_costs_the_rest_of_its_item(fn, text, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cloudpickle", None)
    got = list(flat(fn, [7, 8], on_error="return", executor=Processes(start_method="fork")))
    assert [got[0], got[2]] == [7, 8]
    for failure in got[1], got[3]:
        assert failure.delivered == 1
        assert any(text in note for note in failure.error.__notes__)


def test_g25_an_item_that_cannot_be_pickled_costs_itself(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cloudpickle", None)
    first, failure, last = flat(calls.same, [[1], [lambda: 0], [2]], on_error="return")
    assert (first, last) == (1, 2)
    assert failure.index == 1


@pytest.mark.parametrize(
    "policy", [retry(attempts=4, backoff=0), retry(attempts=4, backoff=0.01), lambda failure: Retry()]
)
def test_g09_an_item_that_has_produced_nothing_runs_again_and_keeps_its_slot(policy, tmp_path):
    run = flat(partial(calls.flaky_head, str(tmp_path), 3), range(5), buffer=1, on_error=policy)
    assert list(run) == [0, 0, *(x for x in range(1, 5) for _ in range(20))]
    assert run.stats.retried == 3


def test_g09_retry_is_honoured_only_if_the_item_has_produced_no_element():
    run = flat(partial(calls.breaks_after, 2), "x", on_error=retry(backoff=0))
    assert [next(run), next(run)] == [("x", 0), ("x", 1)]
    with pytest.raises(Oops):
        next(run)


# ---- worker death --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5])
def test_g24_a_worker_that_dies_in_mid_stream_costs_the_rest_of_its_item_and_nothing_else(n):
    run = flat(partial(calls.dies_after, n, 2), range(5), buffer=1, on_error="return")
    got = list(run)
    failures = [each for each in got if isinstance(each, Failure)]
    assert [each for each in got if not isinstance(each, Failure)] == [(x, k) for x in range(5) for k in range(n)]
    (failure,) = failures
    assert isinstance(failure.error, WorkerDied)
    assert (failure.error.index, failure.error.signal, failure.delivered) == (2, signal.SIGKILL, n)
    assert got.index(failure) == 3 * n


def test_g24_a_worker_that_exits_with_code_0_in_mid_stream():
    got = list(flat(calls.exits, "ab", buffer=1, on_error="return"))
    assert [got[0], got[2]] == ["a", "b"]
    assert [each.error.exitcode for each in (got[1], got[3])] == [0, 0]


@pytest.mark.parametrize("policy", [retry(attempts=4, backoff=0), lambda failure: Retry()])
def test_g24_an_item_whose_worker_died_before_its_first_element_runs_again_in_its_slot(policy, tmp_path):
    run = flat(partial(calls.dies_at_first, str(tmp_path)), range(5), buffer=1, on_error=policy)
    assert list(run) == [x for x in range(5) for _ in range(20)]
    assert run.stats.retried == 2


# ---- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("buffer", [1, 64])
def test_g17_an_item_that_produces_longer_fails_after_the_elements_it_has_made(n, buffer):
    run = flat(partial(calls.stuck_after, n, 1), range(3), timeout=SHORT, buffer=buffer, on_error="return")
    got = list(run)
    failure = got.pop(2 * n)
    assert got == [(x, k) for x in range(3) for k in range(n)]
    assert isinstance(failure.error, TimeoutError)
    assert failure.delivered == n
    assert run.stats.abandoned == 0


def test_g17_time_spent_waiting_for_room_does_not_count():
    with flat(calls.numbers, [20, 20, 20], timeout=SHORT, concurrency=3, buffer=1) as run:
        assert next(run) == 0
        absence(1.5 * SHORT)
        assert list(run) == [*range(1, 20), *range(20), *range(20)]


@pytest.mark.parametrize("policy", [retry(attempts=4, backoff=0), lambda failure: Retry()])
def test_g17_an_item_that_was_killed_before_its_first_element_runs_again_in_its_slot(policy, tmp_path):
    run = flat(partial(calls.stuck_at_first, str(tmp_path)), range(5), buffer=1, timeout=SHORT, on_error=policy)
    assert list(run) == [x for x in range(5) for _ in range(20)]
    attempts = [path.name for path in tmp_path.iterdir()]
    assert {"0-0", "0-1", "0-2"} <= set(attempts)
    assert run.stats.retried == len(attempts) - 5  # 2, unless the machine made others take too long


# ---- closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [1, 64])
def test_g13_closing_the_run_closes_the_generators_in_the_worker_processes(buffer, tmp_path):
    with flat(partial(calls.notes, str(tmp_path)), range(4), buffer=buffer) as run:
        list(islice(run, 100))
        wait_until(lambda: len(lines(tmp_path, 1)) >= buffer)
    assert lines(tmp_path, 0)[-1] == lines(tmp_path, 1)[-1] == "closed"
    assert not lines(tmp_path, 2)


@pytest.mark.parametrize("fn", [calls.never_closes, calls.busy, calls.dies_while_it_is_closed])
def test_g13_a_generator_that_does_not_end_is_killed_after_the_grace_period(fn):
    with flat(fn, range(2)) as run:
        assert next(run) == 0
    assert list(run) == []


def test_g13_dropping_the_run_closes_the_generators(tmp_path):
    run = flat(partial(calls.notes, str(tmp_path)), range(2), buffer=2)
    next(run)
    running = run._run.job.pool.running
    wait_until(lambda: running() == 2)
    del run
    wait_until(lambda: lines(tmp_path, 0)[-1] == "closed")


def test_an_error_in_turn_ends_the_later_streams_too(tmp_path):
    def items():
        yield "x"

    with pytest.raises(Oops), flat(partial(calls.breaks_after, 3), items()) as run:
        list(run)
    assert run.stats.failed == 1


def test_g24_max_tasks_per_worker_counts_items():
    run = flat(calls.pid, range(6), concurrency=1, executor=Processes(max_tasks_per_worker=2))
    got = list(run)
    assert got[0] == got[1] != got[2] == got[3] != got[4] == got[5]


def test_bad_input_a_generator_function_that_cannot_be_pickled_ends_the_run(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cloudpickle", None)
    with pytest.raises(Exception, match="pickle"):
        list(flat(lambda x: [x], [1], on_error="skip"))


def test_g23_credits_for_what_follows_a_large_element_do_not_fill_the_link():
    """Each element is a message of its own, and is answered while the shared memory is in use."""
    run = ordered_flat_map(calls.large_then_slow, [600], executor="process", concurrency=1, buffer=1000)
    assert len(next(run)) == 100_000
    assert list(run) == [*range(600)]


def test_g13_a_generator_that_makes_large_elements_is_closed_when_the_run_is(tmp_path):
    executor = Processes(start_method="fork")
    run = ordered_flat_map(calls.large_for_ever, [str(tmp_path / "closed")], executor=executor, concurrency=1)
    with late_recall():
        next(run)
        run.close()
    assert (tmp_path / "closed").exists()


@contextlib.contextmanager
def late_recall():
    """In workers that are forked now, the word that an item is recalled comes after the end of the run."""
    recall = worker._Worker._recall

    def late(self, serial):
        spend(0.1)
        recall(self, serial)

    worker._Worker._recall = late
    try:
        yield
    finally:
        worker._Worker._recall = recall
