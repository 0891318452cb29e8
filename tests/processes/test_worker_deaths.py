"""Guarantees 24 and 25: whatever happens to a worker process, and whenever, costs one item.

Every cell of the matrix of stages, ways of dying and chunk sizes is a test of its own, with real signals and real deaths.
"""

import itertools
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import deaths_of_workers as faults
from deaths_of_workers import WAYS, DiesUnpickled, dies_between, runs, victim
from inturn import Processes, WorkerDied, ordered_map

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals"),
    pytest.mark.filterwarnings("ignore:.*may lead to deadlocks in the child:DeprecationWarning"),  # by `subprocess`
]

ITEMS, BAD = 12, 5
CHUNKSIZES = [None, 1, 3]
METHODS = ["fork", "forkserver", "spawn"]
STAGES = ["unpickling", "running", "result"]


def assert_one_died(results, directory, way, *, bad=BAD, chunksize=None, items=ITEMS, ran=True):
    """All results but that of the bad item are there, in their places; its own names the death."""
    assert [each for each in results if not isinstance(each, WorkerDied)] == [i * 10 for i in range(items) if i != bad]
    error = results[bad]
    assert isinstance(error, WorkerDied)
    assert (error.index, error.exitcode) == (bad, WAYS[way][1])
    assert error.signal == (-error.exitcode if error.exitcode < 0 else None)
    counts = runs(directory)
    assert set(counts) == set(range(items)) - (set() if ran else {bad})
    again = {i: count for i, count in counts.items() if count > 1}
    assert bad not in again
    if chunksize == 1:
        assert not again
    elif chunksize is not None:
        batch = range(bad - bad % chunksize, bad)
        assert set(again) <= set(batch)
    assert max(counts.values()) <= 2


def died(failure):
    return failure.error


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", STAGES)
def test_g24_a_death_costs_the_item_it_hit(tmp_path, stage, way, chunksize):
    """While the item is unpickled, while it runs, while its result is pickled."""
    check_death(tmp_path, stage, way, chunksize, "fork")


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("way", ["SIGSEGV", "exit0"])
@pytest.mark.parametrize("stage", STAGES)
def test_g24_a_death_costs_the_item_it_hit_under_every_start_method(tmp_path, stage, way, method):
    check_death(tmp_path, stage, way, None, method)


def check_death(tmp_path, stage, way, chunksize, method):
    items = list(range(ITEMS))
    if stage == "unpickling":
        items[BAD] = DiesUnpickled(way, os.getpid())
    fn = partial(victim, str(tmp_path), BAD, stage, way)
    with ordered_map(
        fn, items, executor=Processes(start_method=method), concurrency=2, chunksize=chunksize, on_error=died
    ) as run:
        results = list(run)
    assert_one_died(results, tmp_path, way, chunksize=chunksize, ran=stage != "unpickling")


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
@pytest.mark.parametrize("way", WAYS)
def test_g24_a_death_between_two_items_costs_none(tmp_path, way, chunksize):
    """The worker dies while it is idle; its next item runs on a new one."""

    def source():  # pulled by a thread of its own: the consumer has item 5 meanwhile
        yield from range(6)
        while not seen or any(map(alive, seen)):  # until the process of item 5 is gone
            yield_to_others()
        yield from range(6, ITEMS)

    seen = set()
    fn = partial(tell_pid, str(tmp_path), 5, way)
    results = []
    with ordered_map(
        fn,
        source(),
        executor=Processes(start_method="fork"),
        concurrency=1,
        window=6,
        chunksize=chunksize,
        live=True,
        on_error="return",
    ) as run:
        for result in run:
            results.append(result[0])
            if result[0] == 50:
                seen.add(result[1])
                faults.delivered(tmp_path)
    assert results == [i * 10 for i in range(ITEMS)]
    assert set(runs(tmp_path).values()) == {1}


def tell_pid(directory, bad, way, i):
    return dies_between(directory, bad, way, i), os.getpid()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def yield_to_others():
    os.sched_yield()


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
@pytest.mark.parametrize("way", WAYS)
def test_g25_an_initializer_that_ends_its_process_ends_the_run(way, chunksize):
    settings = Processes(initializer=faults.die, initargs=(way,), start_method="fork")
    with (
        pytest.raises(RuntimeError, match="three worker processes in a row ended before their first item") as caught,
        ordered_map(abs, range(ITEMS), executor=settings, concurrency=2, chunksize=chunksize, on_error="skip") as run,
    ):
        list(run)
    code = WAYS[way][1]
    assert (signal.Signals(-code).name if code < 0 else f"exit code {code}") in str(caught.value)


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g25_an_initializer_that_raises_ends_the_run_with_its_error(chunksize):
    settings = Processes(initializer=int, initargs=("nonsense",), start_method="fork")
    with pytest.raises(ValueError, match="nonsense") as caught:
        list(ordered_map(abs, range(ITEMS), executor=settings, concurrency=2, chunksize=chunksize, on_error="skip"))
    assert any("initializer failed" in note for note in caught.value.__notes__)


def fails_until(path, times):
    """Fails in as many processes as that, and not in later ones."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, b".")
    finally:
        os.close(fd)
    if os.stat(path).st_size <= times:
        os._exit(1)


def test_g25_two_deaths_in_a_row_before_the_first_item_are_got_over(tmp_path):
    settings = Processes(initializer=fails_until, initargs=(str(tmp_path / "count"), 2), start_method="fork")
    assert list(ordered_map(abs, range(ITEMS), executor=settings, concurrency=1)) == list(range(ITEMS))


def test_g24_work_that_was_finished_before_in_a_batch_is_not_lost(tmp_path):
    """Tiny items travel by the hundred; the death of one of them loses and reorders nothing."""
    items, bad = 5000, 4321
    fn = partial(victim, str(tmp_path), bad, "running", "exit1")
    with ordered_map(fn, range(items), executor=Processes(start_method="fork"), concurrency=2, on_error=died) as run:
        results = list(run)
    assert_one_died(results, tmp_path, "exit1", bad=bad, items=items)


def slow_then_die(directory, i):
    faults.note_run(directory, i)
    if i % 3 == 2:
        os._exit(1)
    time.sleep(0.03)  # longer than the time slice
    return i * 10


def test_g24_an_item_longer_than_the_time_slice_never_runs_again(tmp_path):
    """In a batch of an explicit size the outcomes of long items are reported as they come."""
    with ordered_map(
        partial(slow_then_die, str(tmp_path)),
        range(ITEMS),
        executor=Processes(start_method="fork"),
        concurrency=2,
        chunksize=3,
        on_error="return",
    ) as run:
        results = list(run)
    assert [i for i, each in enumerate(results) if each != i * 10] == [2, 5, 8, 11]
    assert set(runs(tmp_path).values()) == {1}


def dies_at(bad, i):
    if i in bad:
        os._exit(9)
    return i


def tiny_then_deaf_then_dead(directory, i):
    faults.note_run(directory, i)
    if i == 3001:
        faults.hold_the_gil(0.1)  # the helper of the worker can report nothing meanwhile
    if i == 3002:
        os._exit(1)
    return i * 10


def test_g24_nor_does_one_that_lets_no_other_thread_run(tmp_path):
    fn = partial(tiny_then_deaf_then_dead, str(tmp_path))
    with ordered_map(fn, range(3100), executor=Processes(start_method="fork"), concurrency=1, on_error="skip") as run:
        assert list(run) == [i * 10 for i in range(3100) if i != 3002]
    counts = runs(tmp_path)
    assert counts[3001] == counts[3002] == 1


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g24_every_item_may_die(chunksize):
    with ordered_map(
        partial(dies_at, range(20)),
        range(20),
        executor=Processes(start_method="fork"),
        concurrency=2,
        chunksize=chunksize,
        on_error="return",
    ) as run:
        for i, failure in enumerate(run):
            assert (failure.error.index, failure.error.exitcode, failure.error.signal) == (i, 9, None)


def test_g24_a_death_under_raise_is_raised_in_its_turn():
    delivered = []
    run = ordered_map(partial(dies_at, {7}), range(20), executor=Processes(start_method="fork"), concurrency=2)
    with pytest.raises(WorkerDied, match="exited with code 9 while it ran item 7") as caught:
        delivered.extend(run)
    assert list(itertools.islice(iter(caught.value.__notes__), 1)) == ["item 7: 7"]
    assert list(run) == []
    run.close()


def test_g24_a_worker_died_pickles():
    import pickle

    error = WorkerDied(3, -9, signal.SIGKILL)
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.index, twin.exitcode, twin.signal, str(twin)) == (3, -9, signal.SIGKILL, str(error))
    assert "SIGKILL" in str(error)


class DiesOnce:
    def __init__(self, path):
        self.path = path

    def __call__(self, i):
        if i == 3 and not os.path.exists(self.path):
            with open(self.path, "w"):
                os._exit(1)
        return i


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g24_an_item_whose_worker_died_may_be_retried(tmp_path, chunksize):
    from inturn import retry

    policy = retry(attempts=2, backoff=0)
    fn = DiesOnce(str(tmp_path / "died"))
    settings = {
        "executor": Processes(start_method="fork"),
        "concurrency": 2,
        "chunksize": chunksize,
        "on_error": policy,
    }
    assert list(ordered_map(fn, range(8), **settings)) == list(range(8))


def dies_if_even(directory):
    started = len(os.listdir(directory))
    (Path(directory) / str(started)).touch()
    if started % 2 == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def dies(i):
    os.kill(os.getpid(), signal.SIGKILL)


def test_g25_deaths_before_the_first_item_that_are_not_in_a_row_do_not_end_the_run(tmp_path):
    executor = Processes(dies_if_even, (str(tmp_path),), start_method="fork")
    run = ordered_map(dies, range(6), executor=executor, concurrency=1, on_error="return")
    assert [type(failure.error) for failure in run] == [WorkerDied] * 6
