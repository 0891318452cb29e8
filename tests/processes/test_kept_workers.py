"""`with Processes(...) as workers:`: worker processes that outlive a run and are shared by all runs of the block."""

import asyncio
import contextvars
import copy
import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial

import pytest

from functions_for_workers import double, fail_at, meeting, same
from inturn import (
    Processes,
    Threads,
    WorkerDied,
    ordered_aflat_map,
    ordered_amap,
    ordered_flat_map,
    ordered_map,
    retry,
)
from programs import Script
from waiting import HANG_S, HOUR, SHORT, Tally, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no POSIX processes")

word = contextvars.ContextVar("word", default="nothing")


def note_pid(directory):
    with open(f"{directory}/{os.getpid()}", "a") as file:
        file.write("x")


def pid_of(_):
    return os.getpid()


def exit_at(bad, x):
    if x == bad:
        os._exit(7)
    return x


def kill_at(bad, x):
    if x == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def sleep_at(bad, x):
    if x == bad:
        time.sleep(HOUR)
    return x


def millisecond(x):
    time.sleep(0.001)
    return x


def elements(count, x):
    for i in range(count):
        yield x, i


class Marker:
    """Nothing of this kind may be in a worker when the run that has sent it is over."""


class CountingCalls:
    """Has a state of its own, which lasts as long as its run."""

    def __init__(self):
        self.marker = Marker()
        self.calls = 0

    def __call__(self, item):
        word.set("from an earlier run")
        self.calls += 1
        return self.calls


def what_is_left(_):
    gc.collect()
    return word.get(), [type(each).__name__ for each in gc.get_objects() if isinstance(each, (Marker, CountingCalls))]


def with_workers_of(workers, x):
    """A run inside a worker process, which has no part in the block of its parent."""
    return list(ordered_map(double, [x, x + 1], executor=workers, concurrency=1))


class Unreadable:
    def __call__(self, x):
        return x

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ValueError("not in this process")


def started(workers):
    """Start a worker before there is anything that it must not have: a forked one has copies of all that there is."""
    assert list(ordered_map(double, [0], executor=workers)) == [0]


async def list_of(run):
    return [value async for value in run]


# ---- one after the other -------------------------------------------------------------------------


def test_g35_workers_are_started_and_initialized_once_for_all_runs(processes, tmp_path):
    settings = Processes(note_pid, (str(tmp_path),), start_method=processes.start_method, max_workers=2)
    with settings as workers:
        assert workers is settings
        pids = [set(ordered_map(pid_of, range(50), executor=workers, chunksize=1)) for _ in range(5)]
    started = {int(path.name): path.read_text() for path in tmp_path.iterdir()}
    assert 1 <= len(started) <= 2
    assert set(started.values()) == {"x"}
    assert set().union(*pids) <= set(started)
    assert not multiprocessing.active_children()


def test_g35_every_kind_of_run_has_the_same_workers(processes):
    expected = [(x, i) for x in range(5) for i in range(3)]
    with Processes(start_method=processes.start_method, max_workers=1) as workers:
        pids = set(ordered_map(pid_of, range(3), executor=workers))
        assert list(ordered_map(double, range(5), executor=workers)) == [0, 2, 4, 6, 8]
        assert list(ordered_flat_map(partial(elements, 3), range(5), executor=workers)) == expected
        assert asyncio.run(list_of(ordered_amap(double, range(5), executor=workers))) == [0, 2, 4, 6, 8]
        if hasattr(ordered_aflat_map, "__kwdefaults__") and "executor" in (ordered_aflat_map.__kwdefaults__ or {}):
            assert asyncio.run(list_of(ordered_aflat_map(partial(elements, 3), range(5), executor=workers))) == expected
        pids |= set(ordered_map(pid_of, range(3), executor=workers))
        assert len(pids) == 1


def test_g35_a_run_leaves_nothing_in_the_workers(processes):
    with Processes(start_method=processes.start_method, max_workers=1) as workers:
        started(workers)
        calls = list(ordered_map(CountingCalls(), [Marker() for _ in range(20)], executor=workers))
        assert calls == list(range(1, 21))  # `fn` travels once: its state lasts for the run
        assert list(ordered_map(what_is_left, [0], executor=workers)) == [("nothing", [])]
        with ordered_map(CountingCalls(), (Marker() for _ in itertools.count()), executor=workers) as run:
            next(run)
        assert list(ordered_map(what_is_left, [0], executor=workers)) == [("nothing", [])]


def test_g35_a_run_that_waits_for_its_turn_keeps_its_fn_in_the_workers(processes):
    with Processes(start_method=processes.start_method, max_workers=1) as workers:
        started(workers)
        counting = ordered_map(CountingCalls(), range(20), executor=workers, chunksize=1, window=1)
        calls = [(next(counting), *ordered_map(double, [1, 2], executor=workers)) for _ in range(10)]
        assert calls == [(k, 2, 4) for k in range(1, 11)]
        counting.close()
        assert list(ordered_map(what_is_left, [0], executor=workers)) == [("nothing", [])]


def test_g35_the_memory_of_large_payloads_is_given_back_with_the_run(processes):
    with Processes(start_method=processes.start_method, max_workers=1) as workers:
        large = bytes(1 << 22)
        assert list(ordered_map(same, [large] * 3, executor=workers)) == [large] * 3
        (store,) = workers._block.stores.values()
        (worker,) = store._idle
        assert list(ordered_map(same, [1], executor=workers)) == [1]  # the message that ends the first run has arrived
        assert os.fstat(worker.down.fd).st_size < 1 << 16
        assert os.fstat(worker.up.fd).st_size < 1 << 16
        assert list(ordered_map(same, [large], executor=workers)) == [large]


def test_g35_the_most_items_of_a_worker_are_counted_over_all_runs(tmp_path):
    settings = Processes(note_pid, (str(tmp_path),), start_method="fork", max_tasks_per_worker=4, max_workers=1)
    with settings as workers:
        runs = [list(ordered_map(pid_of, range(3), executor=workers)) for _ in range(4)]
    pids = list(itertools.chain(*runs))
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [4, 4, 4]
    assert len(list(tmp_path.iterdir())) in (3, 4)  # one may be started for items that do not come


# ---- deaths, limits, errors ----------------------------------------------------------------------


@pytest.mark.parametrize("dies", [exit_at, kill_at])
def test_g35_a_worker_that_dies_costs_its_item_and_is_replaced(processes, dies):
    with Processes(start_method=processes.start_method, max_workers=2) as workers:
        for _ in range(3):
            results = list(ordered_map(partial(dies, 5), range(12), executor=workers, on_error="return"))
            assert isinstance(results[5].error, WorkerDied)
            assert results[:5] + results[6:] == [x for x in range(12) if x != 5]
        assert list(ordered_map(double, range(5), executor=workers)) == [0, 2, 4, 6, 8]
        assert len(multiprocessing.active_children()) <= 2


def test_g35_a_worker_that_dies_between_two_runs_costs_no_item(processes):
    with Processes(start_method=processes.start_method, max_workers=1) as workers:
        for _ in range(3):
            (pid,) = ordered_map(pid_of, [0], executor=workers)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: pid not in [child.pid for child in multiprocessing.active_children()])
            assert list(ordered_map(double, range(5), executor=workers)) == [0, 2, 4, 6, 8]


def test_g35_a_time_limit_costs_one_item_and_its_worker(processes):
    with Processes(start_method=processes.start_method, max_workers=2) as workers:
        (before,) = set(ordered_map(pid_of, [0], executor=workers, concurrency=1))
        limited = ordered_map(
            partial(sleep_at, 1), range(4), executor=workers, concurrency=1, timeout=SHORT, on_error="return"
        )
        first, failure, *others = limited
        assert isinstance(failure.error, TimeoutError)
        assert [first, *others] == [0, 2, 3]
        assert list(ordered_map(double, range(5), executor=workers)) == [0, 2, 4, 6, 8]
        assert before not in [child.pid for child in multiprocessing.active_children()]


def test_g35_an_fn_that_cannot_be_read_ends_its_run_and_no_worker(processes):
    with Processes(start_method=processes.start_method, max_workers=1) as workers:
        pids = set(ordered_map(pid_of, range(3), executor=workers))
        for limits in ({}, {"timeout": HANG_S}):
            with pytest.raises(ValueError, match="not in this process"):
                list(ordered_map(Unreadable(), range(3), executor=workers, on_error="skip", **limits))
            with pytest.raises(ValueError, match="not in this process"):
                list(ordered_flat_map(Unreadable(), range(3), executor=workers, on_error="skip", **limits))
        with pytest.raises(TypeError, match="pickle"):
            list(ordered_map(threading.Lock().acquire, [1], executor=workers))
        assert set(ordered_map(pid_of, range(3), executor=workers)) == pids


def fail_once(path):
    """Fails in the first worker."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    raise ValueError("not yet")


def test_g35_an_initializer_that_fails_once_is_tried_in_another_worker(processes, tmp_path):
    settings = Processes(fail_once, (str(tmp_path / "once"),), start_method=processes.start_method, max_workers=1)
    with settings as workers:
        for _ in range(2):
            assert list(ordered_map(double, range(3), executor=workers)) == [0, 2, 4]


# ---- at once, nested -----------------------------------------------------------------------------


def test_g35_runs_at_once_in_several_threads_and_loops_share_the_workers(processes):
    results = {}
    count = 4

    def consume(k):
        results[k] = list(ordered_map(millisecond, range(100 * k, 100 * k + 60), executor=workers))

    async def stream(k):
        return await list_of(ordered_amap(millisecond, range(100 * k, 100 * k + 60), executor=workers))

    async def both():
        return await asyncio.gather(stream(8), stream(9))

    with Processes(start_method=processes.start_method, max_workers=2) as workers:
        threads = [threading.Thread(target=consume, args=(k,)) for k in range(count)]
        for thread in threads:
            thread.start()
        results[8], results[9] = asyncio.run(both())
        for thread in threads:
            thread.join()
        assert len(multiprocessing.active_children()) <= 2
    assert results == {k: list(range(100 * k, 100 * k + 60)) for k in (*range(count), 8, 9)}


def test_g35_a_run_without_end_starves_no_other_run():
    with Processes(start_method="fork", max_workers=1) as workers:
        endless = ordered_map(millisecond, itertools.count(), executor=workers)
        stop = threading.Event()
        consumer = threading.Thread(
            target=lambda: [None for _ in iter(lambda: next(endless) < 0 or stop.is_set(), True)]
        )
        consumer.start()
        try:
            for _ in range(3):
                assert list(ordered_map(millisecond, range(30), executor=workers)) == list(range(30))
        finally:
            stop.set()
            consumer.join()
            endless.close()


def test_g35_nested_loops_on_the_same_workers(processes):
    with Processes(start_method=processes.start_method, max_workers=1) as workers:
        pairs = [
            (a, b)
            for a in ordered_map(same, range(4), executor=workers)
            for b in ordered_map(same, range(3), executor=workers)
        ]
        assert pairs == [(a, b) for a in range(4) for b in range(3)]
        chain = range(50)
        for _ in range(4):
            chain = ordered_map(same, chain, executor=workers)
        assert list(chain) == list(range(50))


def test_g35_a_policy_may_use_the_workers_of_its_run(processes):
    with Processes(start_method=processes.start_method, max_workers=1) as workers:

        def instead(failure):
            return sum(ordered_map(double, range(3), executor=workers))

        results = ordered_map(partial(exit_at, 1), range(4), executor=workers, on_error=instead)
        assert list(results) == [0, 6, 2, 3]


def test_g35_streams_that_wait_for_their_consumer_hold_up_no_other_run(processes):
    with Processes(start_method=processes.start_method, max_workers=2) as workers:
        flat = ordered_flat_map(partial(elements, 50), range(3), executor=workers, buffer=2)
        for x in range(3):
            for i in range(50):
                assert next(flat) == (x, i)
                if i in {0, 25}:  # the workers are taken: another two are started
                    assert list(ordered_map(double, range(5), executor=workers)) == [0, 2, 4, 6, 8]
        assert list(flat) == []
        assert len(multiprocessing.active_children()) <= 4
    assert not multiprocessing.active_children()


def test_g35_a_run_inside_a_worker_has_workers_of_its_own(processes):
    with Processes(start_method=processes.start_method, max_workers=1) as workers:
        assert list(ordered_map(partial(with_workers_of, workers), range(3), executor=workers)) == [
            [0, 2],
            [2, 4],
            [4, 6],
        ]


# ---- the bound -----------------------------------------------------------------------------------


def test_g35_without_max_workers_a_high_concurrency_gets_its_workers(tmp_path):
    with Processes(start_method="fork") as workers:
        run = ordered_map(partial(meeting, str(tmp_path), 6), range(6), executor=workers, concurrency=6)
        assert list(run) == list(range(6))
        assert len(multiprocessing.active_children()) == 6


def test_g35_max_workers_bounds_all_runs_together_also_without_a_block(tmp_path):
    alone = Processes(start_method="fork", max_workers=3)
    assert list(ordered_map(partial(meeting, str(tmp_path), 3), range(3), executor=alone, concurrency=8)) == [0, 1, 2]
    with ordered_map(millisecond, itertools.count(), executor=alone, concurrency=8) as run:
        for _ in range(30):
            next(run)
            assert len(multiprocessing.active_children()) <= 3
    with Processes(start_method="fork", max_workers=3) as workers:
        runs = [ordered_map(millisecond, itertools.count(), executor=workers, concurrency=8) for _ in range(3)]
        for _ in range(30):
            for run in runs:
                next(run)
        assert len(multiprocessing.active_children()) <= 3
        for run in runs:
            run.close()


def test_g35_the_default_concurrency_is_max_workers():
    with Processes(max_workers=3) as workers:
        assert ordered_map(double, [1], executor=workers)._run.job.concurrency == 3
    with pytest.raises(ValueError, match="max_workers"):
        Processes(max_workers=0)


# ---- the end of a run ----------------------------------------------------------------------------


def test_g35_closing_a_run_in_the_middle_keeps_workers_whose_calls_end_in_time(processes):
    with Processes(start_method=processes.start_method, max_workers=2) as workers:
        pids = set()
        for _ in range(5):
            with ordered_map(pid_of, itertools.count(), executor=workers) as run:
                pids.add(next(run))
        assert len(pids) <= 2
        for pid in ordered_map(pid_of, itertools.count(), executor=workers):
            assert pid in {child.pid for child in multiprocessing.active_children()}
            break
        assert list(ordered_map(double, range(3), executor=workers)) == [0, 2, 4]


def test_g35_closing_a_run_kills_calls_that_do_not_end_and_their_workers_are_replaced(processes):
    with Processes(start_method=processes.start_method, max_workers=1) as workers:
        run = ordered_map(partial(sleep_at, 1), range(5), executor=workers)
        assert next(run) == 0
        run.close()
        assert list(ordered_map(double, range(3), executor=workers)) == [0, 2, 4]


# ---- the end of the block ------------------------------------------------------------------------


def test_g35_leaving_the_block_ends_workers_and_open_runs(processes, tmp_path):
    finalizer = partial(note_pid, str(tmp_path))
    with Processes(finalizer=finalizer, start_method=processes.start_method, max_workers=2) as workers:
        run = ordered_map(millisecond, itertools.count(), executor=workers)
        assert [next(run) for _ in range(20)] == list(range(20))
        late = ordered_map(double, [1], executor=workers)
    assert not multiprocessing.active_children()
    assert 1 <= len(list(tmp_path.iterdir())) <= 2
    with pytest.raises(RuntimeError, match="`with` block"):
        list(run)
    assert list(run) == []
    for each in (late, ordered_map(double, [1], executor=workers)):
        with pytest.raises(RuntimeError, match="`with` block"):
            next(each)
    with workers:
        assert list(ordered_map(double, [1], executor=workers)) == [2]
        with pytest.raises(RuntimeError, match="in use"), workers:
            pass
        assert list(ordered_map(double, [1], executor=workers)) == [2]


def test_g35_leaving_a_block_that_nobody_has_used_starts_nothing():
    with Processes() as workers:
        assert not multiprocessing.active_children()
    with pytest.raises(ZeroDivisionError), workers:
        _ = 1 / 0


def test_g35_an_error_in_the_block_ends_the_workers(processes):
    with pytest.raises(ZeroDivisionError), processes as workers:
        run = ordered_map(millisecond, itertools.count(), executor=workers)
        _ = next(run) / 0
    assert not multiprocessing.active_children()


def test_g35_the_last_reference_ends_the_workers(processes):
    workers = Processes(start_method=processes.start_method).__enter__()
    run = ordered_map(millisecond, itertools.count(), executor=workers)
    next(run)
    del workers
    assert [next(run) for _ in range(50)] == list(range(1, 51))  # an open run keeps them
    run.close()
    wait_until(lambda: gc.collect() is not None and not multiprocessing.active_children())


def test_g35_copies_and_pickles_are_settings_without_a_block():
    with Processes(start_method="fork", max_workers=1) as workers:
        for other in (copy.copy(workers), copy.deepcopy(workers), pickle.loads(pickle.dumps(workers))):
            assert repr(other) == repr(workers)
            assert other._current() is None
            assert list(ordered_map(double, [1], executor=other)) == [2]
        assert not multiprocessing.active_children()  # theirs have lived for one run


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # the thread of a kept worker waits
def test_g35_a_forked_child_has_no_part_in_the_block_of_its_parent():
    with Processes(start_method="fork", max_workers=1) as workers:
        (pid,) = ordered_map(pid_of, [0], executor=workers)
        child = os.fork()
        if not child:
            code = 1
            try:
                (other,) = ordered_map(pid_of, [0], executor=workers)
                workers.__exit__(None, None, None)
                code = int(other == pid)
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert list(ordered_map(pid_of, [0], executor=workers)) == [pid]


IMPORTS = """
from inturn import Processes
from functions_for_workers import double, sleeping
import multiprocessing
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_g15_the_exit_of_the_program_ends_forgotten_workers(method):
    body = f"""
workers = Processes(start_method={method!r}).__enter__()
assert list(ordered_map(double, range(5), executor=workers)) == [0, 2, 4, 6, 8]
open_run = ordered_map(double, itertools.count(), executor=workers)
next(open_run)
say("pids", *[child.pid for child in multiprocessing.active_children()])
"""
    with Script(IMPORTS + body) as script:
        script.end()
    assert (script.code, script.err) == (0, "")
    for pid in map(int, script.lines[0].split()[1:]):
        wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))


@pytest.mark.parametrize("where", ["next(run)", "time.sleep(HOUR)"])
def test_g14_ctrl_c_in_the_block_ends_the_program_at_once(where):
    body = f"""
import functools
with Processes(start_method="fork", max_workers=2) as workers:
    list(ordered_map(double, range(5), executor=workers))
    run = ordered_map(functools.partial(sleeping, HOUR), itertools.count(), executor=workers)
    threading.Thread(target=lambda: (time.sleep(0.2), say("ready")), daemon=True).start()
    {where}
"""
    with Script(IMPORTS + body) as script:
        script.wait_for("ready")
        script.interrupt()
        script.end()
    assert script.err.count("Traceback") == 1
    assert script.err.rstrip().endswith("KeyboardInterrupt")
    assert script.seconds < script.soon_s


def test_g27_idle_workers_notice_that_their_parent_was_killed():
    body = """
workers = Processes(start_method="fork", max_workers=1).__enter__()
list(ordered_map(double, range(5), executor=workers))
say("pid", *[child.pid for child in multiprocessing.active_children()])
time.sleep(HOUR)
"""
    with Script(IMPORTS + body) as script:
        assert script.process.stdout is not None
        pid = int(script.process.stdout.readline().split()[1])
        script.process.kill()
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


# ---- workers that are starting -------------------------------------------------------------------


def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.001)


def init_one_by_one(directory):
    """The first worker is up at once, every other one when the file is there."""
    try:
        os.close(os.open(f"{directory}/first", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        wait_for_file(f"{directory}/go")


def test_g35_a_run_that_ends_does_not_wait_for_a_worker_that_is_starting_and_does_not_lose_it(processes, tmp_path):
    settings = Processes(init_one_by_one, (str(tmp_path),), start_method=processes.start_method, max_workers=2)
    with settings as workers:
        for _ in range(5):
            assert list(ordered_map(double, range(20), executor=workers)) == [2 * x for x in range(20)]
        (store,) = workers._block.stores.values()
        wait_until(lambda: len(store._all) == 2)
        pids = {worker._process.pid for worker in store._all}
        big = [bytes(1 << 18)] * 4
        assert list(ordered_map(partial(beside, bytes(1 << 20)), big, executor=workers)) == [(1 << 20, 1 << 18)] * 4
        (tmp_path / "go").touch()
        run = ordered_map(partial(meeting_of_pids, str(tmp_path)), range(2), executor=workers, chunksize=1)
        assert set(run) == pids


def beside(fn_part, item):
    return len(fn_part), len(item)


def meeting_of_pids(directory, _):
    """Returns when another worker has begun its call, too."""
    with open(f"{directory}/here-{os.getpid()}", "w"):
        pass
    while len([name for name in os.listdir(directory) if name.startswith("here-")]) < 2:
        time.sleep(0.001)
    return os.getpid()


@pytest.mark.parametrize("kind", [Threads, Processes])
def test_g35_a_policy_may_leave_the_block_of_its_workers(kind):
    with ExitStack() as stack:
        workers = stack.enter_context(kind())
        policy = retry(attempts=2, backoff=0, on_retry=lambda failure: stack.close())
        run = ordered_map(partial(fail_at, frozenset({2})), range(5), executor=workers, concurrency=1, on_error=policy)
        with pytest.raises(RuntimeError, match="block"):
            list(run)


def test_g35_a_finalizer_may_leave_the_block_of_its_workers():
    left = Tally()
    with Threads(finalizer=lambda: left.add(workers.__exit__(None, None, None))) as workers:
        assert list(ordered_map(abs, range(3), executor=workers, concurrency=1)) == [0, 1, 2]
    assert left.seen == [None]
