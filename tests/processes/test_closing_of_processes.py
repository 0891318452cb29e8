"""`executor="process"`: time limits, time slices and closing."""

import gc
import itertools
import multiprocessing
import os
import sys
import time
from functools import partial

import pytest

from functions_for_workers import double, sleeping, slow_pid
from inturn import Processes, ordered_map, retry
from waiting import GRACE_S, HOUR, SHORT, TENFOLD, Background, Watch, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals")


METHODS = ["fork", "forkserver", "spawn"]
FORK = Processes(start_method="fork")


# 17, 18: time


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_g17_a_call_that_takes_too_long_is_killed_and_replaced(chunksize):
    results = list(
        ordered_map(
            sleepy, range(9), executor=FORK, concurrency=2, chunksize=chunksize, timeout=SHORT, on_error="return"
        )
    )
    assert [i for i, each in enumerate(results) if each != i] == [1, 4]
    for failure in results[1], results[4]:
        assert isinstance(failure.error, TimeoutError)
        assert f"timeout={SHORT}" in str(failure.error)
        assert SHORT * 0.99 <= failure.elapsed < SHORT + TENFOLD * GRACE_S  # "at most 0.5 s after the timeout"


def sleepy(i):
    if i in {1, 4}:
        time.sleep(HOUR)
    return i


def test_g17_a_call_is_killed_while_the_consumer_is_away(tmp_path):
    run = ordered_map(
        partial(stuck_once, str(tmp_path)),
        range(4),
        executor=FORK,
        concurrency=1,
        timeout=SHORT,
        on_error="skip",
        window=4,
    )
    assert next(run) == 0
    wait_until((tmp_path / "3").exists)  # run by a new worker, while nobody asks
    assert list(run) == [2, 3]
    assert run.stats.abandoned == 0
    run.close()


def stuck_once(directory, i):
    if i == 1:
        time.sleep(HOUR)
    with open(f"{directory}/{i}", "w"):
        pass
    return i


def late(seconds):
    time.sleep(seconds)


def test_g17_the_start_of_a_worker_does_not_count(processes):
    settings = Processes(late, (1.5 * SHORT,), start_method=processes.start_method)
    assert list(ordered_map(double, range(4), executor=settings, concurrency=2, timeout=SHORT)) == [0, 2, 4, 6]


def test_g17_a_timeout_may_be_retried(tmp_path):
    policy = retry(attempts=2, backoff=0)
    fn = partial(stuck_at_first, str(tmp_path / "seen"))
    assert list(ordered_map(fn, range(4), executor=FORK, concurrency=2, timeout=SHORT, on_error=policy)) == [0, 1, 2, 3]


def stuck_at_first(path, i):
    if i == 2 and not os.path.exists(path):
        with open(path, "w"):
            pass
        time.sleep(HOUR)
    return i


def test_g18_a_deadline_ends_the_processes():
    with (
        pytest.raises(TimeoutError, match="deadline"),
        ordered_map(partial(sleeping, HOUR), range(4), executor=FORK, concurrency=2, deadline=0.2) as run,
    ):
        list(run)
    assert not multiprocessing.active_children()


# 26: time slices


def test_g26_a_finished_head_is_not_held_back_by_a_slow_batch_mate(tmp_path):
    """After a thousand tiny items chunks are large; then one item is slow."""
    slow = 3000
    with ordered_map(partial(marked, str(tmp_path), slow), range(4000), executor=FORK, concurrency=2) as run:
        assert list(itertools.islice(run, slow)) == list(range(slow))
        assert not (tmp_path / "slow is over").exists()
        (tmp_path / "go on").touch()
        assert next(run) == slow


def test_g26_unstarted_items_go_to_another_worker(tmp_path):
    """All but the slow item end long before it does."""
    slow = 3000
    run = ordered_map(partial(marked, str(tmp_path), slow), range(3010), executor=FORK, concurrency=2)
    consumer = Background(lambda: list(run))
    wait_until((tmp_path / "3009").exists)
    assert not (tmp_path / "slow is over").exists()
    (tmp_path / "go on").touch()
    assert consumer.result() == list(range(3010))
    run.close()


def marked(directory, slow, i):
    if i == slow:
        while not os.path.exists(f"{directory}/go on"):
            time.sleep(0.001)
        with open(f"{directory}/slow is over", "w"):
            pass
    if i == 3009:
        with open(f"{directory}/3009", "w"):
            pass
    return i


def test_g26_an_explicit_chunksize_sends_exactly_so_many_together():
    pids = list(ordered_map(slow_pid, range(6), executor=FORK, concurrency=2, chunksize=3))
    assert len(set(pids[:3])) == len(set(pids[3:])) == 1


# 13 to 16: closing


def test_g13_close_ends_running_processes_after_their_grace():
    run = ordered_map(partial(sleeping, HOUR), range(4), executor=FORK, concurrency=2)
    consumer = Background(next, run, None)
    wait_until(lambda: run.stats.running == 2)
    with Watch() as watch:
        run.close()
    assert GRACE_S * 0.99 <= watch.seconds < TENFOLD * GRACE_S
    assert not multiprocessing.active_children()
    consumer.result()


def test_g13_what_ends_within_the_grace_is_not_killed(tmp_path):
    run = ordered_map(partial(stamped, str(tmp_path)), range(4), executor=FORK, concurrency=2)
    consumer = Background(next, run, None)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    closing = Background(run.close)
    consumer.result()  # the grace has begun
    (tmp_path / "go on").touch()
    closing.result()
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["", "done", "done"]


def stamped(directory, i):
    path = f"{directory}/{i}"
    with open(path, "w"):
        pass
    while not os.path.exists(f"{directory}/go on"):
        time.sleep(0.001)
    with open(path, "w") as file:
        file.write("done")


def test_g13_dropping_a_run_ends_its_processes():
    """It does not wait for them: they are still there, within their grace, unless the machine stood still as long."""

    def left_by_a_drop():
        run = ordered_map(first_returns, itertools.count(), executor=FORK, concurrency=2)
        assert next(run) == 0
        del run
        gc.collect()
        left = multiprocessing.active_children()
        wait_until(lambda: not multiprocessing.active_children())
        return left

    assert any(left_by_a_drop() for _ in range(5))


def first_returns(i):
    if i:
        time.sleep(HOUR)
    return i


def test_g13_close_in_the_midst_of_starting(processes):
    settings = Processes(late, (0.3,), start_method=processes.start_method)
    run = ordered_map(double, range(4), executor=settings, concurrency=2)
    consumer = Background(next, run, "over")
    wait_until(multiprocessing.active_children)
    run.close()
    assert consumer.result() == "over"
    assert not multiprocessing.active_children()


def test_g13_a_failure_stops_what_is_behind_it_in_other_workers(tmp_path):
    """A long chunk of an explicit size in one worker is not run to its end when an item before it has failed."""
    fn = partial(fails_first, str(tmp_path))
    with (
        pytest.raises(ValueError, match="first"),
        ordered_map(fn, range(40), executor=FORK, concurrency=2, chunksize=20) as run,
    ):
        list(run)
    assert not {"19", "39"} & {
        path.name for path in tmp_path.iterdir()
    }  # a tenth of each chunk is run within the grace


def fails_first(directory, i):
    """The failure comes when another worker has begun; that one takes its time with each item."""
    if i == 0:
        while not os.path.exists(f"{directory}/20"):
            time.sleep(0.001)
        raise ValueError("first")
    with open(f"{directory}/{i}", "w"):
        pass
    time.sleep(GRACE_S / 2)
