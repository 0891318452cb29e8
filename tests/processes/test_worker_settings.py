"""`executor="process"`: how many workers there are, their initializers, finalizers and signals."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from functions_for_workers import double, meeting, sleeping, slow_pid
from inturn import Processes, ordered_map
from programs import Script
from waiting import HANG_S, SHORT, absence

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals")


METHODS = ["fork", "forkserver", "spawn"]
FORK = Processes(start_method="fork")


def pid_of(i):
    return os.getpid()


# 19, 20: workers are made as items need them


def test_g19_three_items_never_start_eight_processes():
    with ordered_map(slow_pid, iter(range(3)), executor=FORK, concurrency=8) as run:
        next(run)
        assert 1 <= len(multiprocessing.active_children()) <= 3
        list(run)


def test_g19_a_quick_source_of_one_item_starts_one_process():
    assert len(set(ordered_map(pid_of, [1], executor="process", concurrency=4))) == 1


def test_g19_nothing_happens_before_the_first_next():
    before = set(multiprocessing.active_children())
    run = ordered_map(double, [1, 2], executor=FORK)
    absence(0.05)
    assert set(multiprocessing.active_children()) == before
    run.close()


def test_g05_the_default_concurrency_is_the_cpus_of_the_process():
    run = ordered_map(double, itertools.count(), executor="process")
    cpus = os.process_cpu_count() if sys.version_info >= (3, 13) else len(os.sched_getaffinity(0))
    assert run._run.job.concurrency == cpus


def test_g05_calls_overlap_in_as_many_processes_as_concurrency(tmp_path):
    fn = partial(meeting, str(tmp_path), 10)
    assert list(ordered_map(fn, range(10), executor=FORK, concurrency=10)) == list(range(10))


# 24: settings


state = {"initialized": 0}


def initialize(value):
    state["initialized"] = value


def initialized(i):
    return state["initialized"]


def test_g24_the_initializer_runs_in_each_worker(processes):
    settings = Processes(initialize, (7,), start_method=processes.start_method)
    assert set(ordered_map(initialized, range(20), executor=settings, concurrency=2)) == {7}
    assert state["initialized"] == 0


def test_g24_a_worker_makes_room_after_its_tasks(processes):
    settings = Processes(start_method=processes.start_method, max_tasks_per_worker=3)
    items = 20 if processes.start_method == "fork" else 7
    pids = list(ordered_map(pid_of, range(items), executor=settings, concurrency=1))
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [3] * (items // 3) + [items % 3]


# 25: what `multiprocessing` hands on when it starts a process


shared = {}
heap = multiprocessing.Value("i", 0)  # the memory that it is taken from stays to the end of the program


def share(lock, value, queue, event):
    shared.update(lock=lock, value=value, queue=queue, event=event)


def count_up(i):
    with shared["lock"]:
        shared["value"].value += 1
    shared["queue"].put(i)
    return shared["event"].is_set()


def test_g25_locks_values_queues_and_events_are_handed_on_by_initargs(processes):
    context = multiprocessing.get_context(processes.start_method)
    lock, value, queue, event = context.Lock(), context.Value("i", 0, lock=False), context.Queue(), context.Event()
    event.set()
    settings = Processes(share, (lock, value, queue, event), start_method=processes.start_method)
    with ordered_map(count_up, range(20), executor=settings, concurrency=2, chunksize=1) as run:
        assert [next(run) for _ in range(20)] == [True] * 20
        assert value.value == 20
        assert sorted(queue.get(timeout=HANG_S) for _ in range(20)) == [*range(20)]  # before workers may be killed
    queue.close()
    queue.join_thread()


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_g25_an_initializer_that_cannot_be_pickled_ends_the_run(method):
    settings = Processes(share, (threading.Lock(),), start_method=method)
    with pytest.raises(TypeError, match="cannot pickle '_thread.lock' object"):
        list(ordered_map(double, range(3), executor=settings, on_error="skip"))


def test_g25_under_fork_nothing_of_the_initializer_is_pickled():
    settings = Processes(lambda lock: state.update(initialized=lock.locked()), (threading.Lock(),), start_method="fork")
    assert list(ordered_map(initialized, [1], executor=settings)) == [False]


class NotRead:
    def __reduce__(self):
        return int, ("nonsense",)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_g25_initargs_that_cannot_be_unpickled_end_the_run(method):
    settings = Processes(initialize, (NotRead(),), start_method=method)
    with pytest.raises(ValueError, match="nonsense") as caught:
        list(ordered_map(double, range(3), executor=settings, on_error="skip"))
    assert "the initializer could not be unpickled in a worker process" in caught.value.__notes__


# 24: finalizers


def write(path, text):
    with open(path, "a") as file:
        file.write(text)


def remember(path):
    state["path"] = path


def leave():
    write(state["path"], f"{os.getpid()}\n")


def left(path):
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_g24_the_finalizer_is_called_in_each_worker_that_leaves(processes, tmp_path):
    settings = Processes(remember, (str(tmp_path / "left"),), leave, processes.start_method, max_tasks_per_worker=3)
    pids = list(ordered_map(pid_of, range(8), executor=settings, concurrency=1))
    assert left(tmp_path / "left") == list(dict.fromkeys(pids))


def test_g24_the_finalizer_is_called_when_a_run_is_closed(tmp_path):
    settings = Processes(remember, (str(tmp_path / "left"),), leave, "fork")
    with ordered_map(pid_of, itertools.count(), executor=settings, concurrency=1) as run:
        pid = next(run)
    assert left(tmp_path / "left") == [pid]


def tells_and_ends(path, seconds, i):
    write(path, f"{os.getpid()}\n")
    time.sleep(seconds)
    os._exit(3)


@pytest.mark.parametrize("seconds", [0, 60])
def test_g24_the_finalizer_is_not_called_in_a_worker_that_dies_or_is_killed(tmp_path, seconds):
    settings = Processes(remember, (str(tmp_path / "left"),), leave, "fork")
    fn = partial(tells_and_ends, str(tmp_path / "ended"), seconds)
    assert [*ordered_map(fn, [1], executor=settings, timeout=SHORT if seconds else None, on_error="skip")] == []
    (ended,) = left(tmp_path / "ended")
    assert ended not in left(tmp_path / "left")  # one that has taken its place may be


def test_g24_an_error_of_a_finalizer_is_shown_and_costs_nothing():
    body = """
def fail():
    raise LookupError("in the finalizer")

from inturn import Processes
say(*ordered_map(abs, range(5), executor=Processes(finalizer=fail, start_method="fork"), concurrency=1))
"""
    with Script(body) as script:
        script.end()
    assert script.lines == ["0 1 2 3 4"]
    assert "LookupError: in the finalizer" in script.err


# 14: Ctrl-C


def sends_itself_an_interrupt(i):
    os.kill(os.getpid(), signal.SIGINT)
    begin = time.monotonic()
    time.sleep(0.05)
    return time.monotonic() - begin >= 0.05


def test_g14_workers_do_not_see_an_interrupt(processes, capfd):
    assert list(ordered_map(sends_itself_an_interrupt, range(3), executor=processes, concurrency=1)) == [True] * 3
    assert capfd.readouterr().err == ""


RESTING = """
import signal, time
print(signal.getsignal(signal.SIGINT), flush=True)
while True:
    time.sleep(0.01)  # a single wait would miss a signal that comes just before it
"""


def interrupts_a_program(i):
    program = subprocess.Popen(
        [sys.executable, "-c", RESTING],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with program:
        handler = program.stdout.readline()
        program.send_signal(signal.SIGINT)
        return handler.split()[:3], program.wait(30)


def test_g14_a_program_that_a_worker_starts_can_be_interrupted(processes):
    ((handler, code),) = ordered_map(interrupts_a_program, [0], executor=processes)
    assert handler == ["<built-in", "function", "default_int_handler>"]
    assert code == -signal.SIGINT


# 17, 18: any finite number of seconds


LONG = [2.2e6, 1e10, sys.float_info.max]


@pytest.mark.parametrize("seconds", LONG)
def test_g17_any_time_limit_works_with_processes(seconds):
    for option in ("timeout", "deadline"):
        run = ordered_map(partial(sleeping, SHORT), range(2), executor=FORK, concurrency=2, **{option: seconds})
        assert list(run) == [0, 1]


def pid_now_and_then_slow(i):
    if i % 20 == 10:
        time.sleep(0.05)
    return os.getpid()


def test_g24_what_a_worker_hands_back_is_none_of_its_tasks():
    settings = Processes(start_method="fork", max_tasks_per_worker=40)
    pids = list(ordered_map(pid_now_and_then_slow, range(200), executor=settings, concurrency=1, window=200))
    assert [len(list(group)) for _, group in itertools.groupby(pids)] == [40] * 5


@pytest.mark.parametrize("chunksize", [None, 1, 5])
def test_g24_no_item_is_lost_when_workers_make_room(chunksize):
    settings = Processes(start_method="fork", max_tasks_per_worker=7)
    assert list(ordered_map(double, range(100), executor=settings, concurrency=2, chunksize=chunksize)) == [
        2 * i for i in range(100)
    ]


def counting(box, i):
    box.append(i)
    return len(box)


def test_g25_fn_travels_once_per_worker_and_its_state_persists():
    run = ordered_map(partial(counting, []), range(100), executor=FORK, concurrency=1)
    assert list(run) == list(range(1, 101))


def test_settings_are_checked_when_they_are_made():
    with pytest.raises(TypeError, match="initializer must be callable, got int: 3"):
        Processes(3)
    with pytest.raises(TypeError, match="finalizer must be callable, got int: 3"):
        Processes(finalizer=3)
    with pytest.raises(ValueError, match="max_tasks_per_worker must be at least 1, got 0"):
        Processes(max_tasks_per_worker=0)
    with pytest.raises(TypeError, match="start_method must be a str or None"):
        Processes(start_method=3)
    with pytest.raises(ValueError, match=r"start_method must be one of .*'fork'.*, got 'threads'"):
        ordered_map(double, [1], executor=Processes(start_method="threads"))
    assert repr(Processes(double, (1,))).startswith("Processes(initializer=<function double")


def interval(_: int) -> float:
    return sys.getswitchinterval()


def test_g26_a_worker_hands_the_gil_over_within_a_millisecond_so_that_a_batch_can_be_interrupted(processes):
    before = sys.getswitchinterval()
    assert max(ordered_map(interval, range(4), executor=processes, concurrency=2)) <= 0.0011
    assert sys.getswitchinterval() == before


WATCHER = """
import os, sys

class Watcher:
    def find_spec(self, name, path=None, target=None):
        if name == "inturn._processes.worker":
            looked_for.append(os.getpid())

looked_for = []
sys.meta_path.insert(0, Watcher())

def the_server_imported_it(_):
    return looked_for == [os.getppid()]
"""


@pytest.mark.skipif(sys.version_info < (3, 13, 1), reason="its fork server does not use the program's sys.path")
def test_g28_the_fork_server_imports_what_workers_need_beside_what_the_program_asked_for(tmp_path):
    (tmp_path / "watcher.py").write_text(WATCHER)
    body = f"""
import multiprocessing, sys
sys.path.insert(0, {str(tmp_path)!r})
multiprocessing.set_forkserver_preload(["watcher"])
from inturn import Processes
import watcher
watcher.looked_for.clear()
for _ in range(2):
    executor = Processes(start_method="forkserver")
    print(*ordered_map(watcher.the_server_imported_it, range(4), executor=executor, concurrency=2))
"""
    with Script(body) as script:
        script.end()
    assert script.lines == ["True True True True"] * 2, script.err


@pytest.mark.skipif(sys.version_info < (3, 13, 1), reason="its fork server does not use the program's sys.path")
def test_g14_ctrl_c_while_the_fork_server_imports_neither_ends_it_nor_stays_blocked(tmp_path):
    (tmp_path / "interrupting.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    body = f"""
import multiprocessing, signal, sys
sys.path.insert(0, {str(tmp_path)!r})
multiprocessing.set_forkserver_preload(["interrupting"])
from functions_for_workers import double
from inturn import Processes
print(*ordered_map(double, range(4), executor=Processes(start_method="forkserver"), concurrency=2))
with multiprocessing.get_context("forkserver").Pool(1) as pool:
    print(pool.apply(signal.getsignal, [signal.SIGINT]) is signal.default_int_handler)
    print(*pool.apply(signal.pthread_sigmask, [signal.SIG_BLOCK, ()]))
"""
    with Script(body) as script:
        script.end()
    assert (script.lines, script.err) == (["0 2 4 6", "True", ""], "")


def test_g14_ctrl_c_while_a_worker_is_spawned_is_not_seen_by_it(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\nif '--multiprocessing-fork' in sys.orig_argv: os.kill(os.getpid(), signal.SIGINT)\n"
    )
    body = f"""
os.environ["PYTHONPATH"] = os.pathsep.join([{str(tmp_path)!r}, os.environ["PYTHONPATH"]])
from functions_for_workers import double
from inturn import Processes
print(*ordered_map(double, range(4), executor=Processes(start_method="spawn"), concurrency=2))
"""
    with Script(body) as script:
        script.end()
    assert (script.lines, script.err) == (["0 2 4 6"], "")
