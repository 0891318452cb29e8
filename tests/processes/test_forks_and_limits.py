"""`executor="process"`: nested runs, forks, daemons, and the limits of the system."""

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from functools import partial

import pytest

from functions_for_workers import double, sleeping
from inturn import Processes, ordered_map, retry
from inturn._processes import start
from programs import COVERED, Script
from waiting import HOUR, Background, assert_waiting_costs_nothing, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals")
own_fork = pytest.mark.filterwarnings("ignore:.*may lead to deadlocks in the child:DeprecationWarning")


METHODS = ["fork", "forkserver", "spawn"]
FORK = Processes(start_method="fork")


def waiting(path, i):
    """Returns as soon as the path exists."""
    while not os.path.exists(path):
        time.sleep(0.001)
    return i


# 22, 23, 28: nesting, forks and daemons


def inner(i):
    return list(ordered_map(double, range(i), executor=Processes(start_method="fork"), concurrency=2))


def test_g22_runs_nest_in_worker_processes():
    assert list(ordered_map(inner, range(4), executor=FORK, concurrency=2)) == [
        [2 * k for k in range(i)] for i in range(4)
    ]


@own_fork
def test_g23_a_run_dropped_in_a_forked_child_is_left_alone():
    run = ordered_map(partial(sleeping, 0.01), range(200), executor=FORK, concurrency=2)
    next(run)
    pid = os.fork()
    if not pid:
        try:
            run.close()
            del run
            gc.collect()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(list(run)) == 199


def test_g23_runs_in_several_threads_are_independent():
    def consume():
        return list(ordered_map(double, range(300), executor=FORK, concurrency=2))

    for each in [Background(consume) for _ in range(4)]:
        assert each.result() == [2 * i for i in range(300)]


def daemonic(queue):
    try:
        ordered_map(double, [1], executor="process")
    except RuntimeError as error:
        queue.put(str(error))


@own_fork
def test_g28_a_daemonic_process_is_told_the_cure():
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=daemonic, args=(queue,), daemon=True)
    process.start()
    assert 'use executor="thread" here' in queue.get()
    process.join()
    process.close()
    queue.close()


def test_g28_the_start_method_is_that_of_multiprocessing_unless_there_are_threads():
    from inturn._processes.start import choose_method

    with Script(
        """
import multiprocessing
from inturn._processes.start import choose_method
multiprocessing.set_start_method("fork")
say(choose_method(None))
gate = threading.Event()
other = threading.Thread(target=gate.wait)
other.start()
say(choose_method(None), choose_method("fork"))
gate.set()
other.join()
say(choose_method(None))
"""
    ) as script:
        assert script.end().lines == ["fork", "forkserver fork", "fork"]
    assert choose_method("spawn") == "spawn"


def test_g28_when_no_descriptor_can_be_had_the_run_goes_on_with_the_processes_it_has(monkeypatch):
    from inturn._processes import handle as _process_handle

    real, made = _process_handle.new_process, []

    def new_process(*args):
        if len(made) == 2:
            raise OSError(24, "Too many open files")
        made.append(args)
        return real(*args)

    monkeypatch.setattr(_process_handle, "new_process", new_process)
    assert list(ordered_map(partial(sleeping, 0.01), range(40), executor=FORK, concurrency=6)) == list(range(40))
    assert len(made) == 2


def test_g28_when_no_process_can_be_had_the_run_ends_with_that_error(monkeypatch):
    from inturn._processes import handle as _process_handle

    def new_process(*args):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(_process_handle, "new_process", new_process)
    with pytest.raises(BlockingIOError, match="Resource temporarily unavailable"):
        list(ordered_map(double, range(40), executor=FORK, concurrency=6, on_error="skip"))


@pytest.mark.parametrize("method", METHODS)
def test_g28_descriptors_that_run_out_are_no_leak(method):
    """At whatever step of a start it happens."""
    import resource

    executor = Processes(start_method=method)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    there = len(os.listdir("/proc/self/fd"))
    for more in range(32) if method == "fork" else range(0, 20, 2):
        resource.setrlimit(resource.RLIMIT_NOFILE, (there + more, hard))
        try:
            assert list(ordered_map(double, range(10), executor=executor, concurrency=3)) == [2 * i for i in range(10)]
        except OSError as error:
            assert error.errno == 24
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_g27_waiting_costs_no_cpu():
    with ordered_map(partial(sleeping, HOUR), range(2), executor=FORK, concurrency=2) as run:
        consumer = Background(next, run, "over")
        wait_until(lambda: run.stats.running == 2)
        assert_waiting_costs_nothing()
    assert consumer.result() == "over"


@pytest.mark.skipif(COVERED, reason="coverage imports multiprocessing")
def test_the_classes_are_there_without_multiprocessing():
    with Script("import inturn; inturn.Processes(); say('multiprocessing' in sys.modules)") as script:
        assert script.end().lines == ["False"]


def test_stats_count_each_process_as_a_slot(tmp_path):
    run = ordered_map(partial(waiting, str(tmp_path / "go on")), range(4), executor=FORK, concurrency=2)
    consumer = Background(next, run)
    wait_until(lambda: run.stats.running == 2)
    (tmp_path / "go on").touch()
    consumer.result()
    assert len(list(run)) == 3
    assert run.stats.running == 0


def test_settings_pickle():
    assert repr(pickle.loads(pickle.dumps(Processes(double, (1,))))) == repr(Processes(double, (1,)))


def test_no_signal_mask_is_left_changed():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    list(ordered_map(double, range(3), executor=FORK))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert threading.active_count() >= 1


class Fails:
    """Tells when it is pickled."""

    def __init__(self, tell=None):
        self._tell = tell

    def __call__(self, i):
        raise ValueError(i)

    def __reduce__(self):
        self._tell()
        return Fails, ()


def test_g28_nothing_is_forked_while_a_slot_runs_code_of_the_user():
    """It may hold a lock, such as that of a module that it imports, and a child would wait for that without end."""
    told = []

    def tell(*_):
        told.append([lock.locked() for lock in start._user_code_locks])

    policy = retry(attempts=2, backoff=0, on_retry=tell, then="skip")
    assert list(ordered_map(Fails(tell), range(2), executor=FORK, concurrency=1, chunksize=1, on_error=policy)) == []
    assert told == [[True]] * 3
