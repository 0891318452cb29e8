"""`executor="process"`: its settings, pickling, time, closing; deaths are in `test_worker_deaths`."""

import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from functools import partial

import pytest

from functions_for_workers import double
from inturn import Processes, WorkerDied, ordered_map, retry
from programs import Script
from things_hard_to_pickle import NoPickle, NoUnpickle, give, make, raising, throw
from waiting import (
    GRACE_S,
    HANG_S,
    HOUR,
    SHORT,
    TENFOLD,
    Background,
    Watch,
    absence,
    assert_waiting_costs_nothing,
    wait_until,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals")
own_fork = pytest.mark.filterwarnings("ignore:.*may lead to deadlocks in the child:DeprecationWarning")

METHODS = ["fork", "forkserver", "spawn"]
FORK = Processes(start_method="fork")


@pytest.fixture(params=METHODS)
def processes(request):
    return Processes(start_method=request.param)


def sleeping(seconds, i=None):
    time.sleep(seconds)
    return i


def meeting(directory, count, i):
    """Returns when so many calls have begun."""
    with open(f"{directory}/{i}", "w"):
        pass
    while len(os.listdir(directory)) < count:
        time.sleep(0.001)
    return i


def waiting(path, i):
    """Returns as soon as the path exists."""
    while not os.path.exists(path):
        time.sleep(0.001)
    return i


def pid_of(i):
    return os.getpid()


def failure_of(failure):
    return failure.error


# 19, 20: workers are made as items need them


def slow_pid(i):
    time.sleep(0.05)
    return os.getpid()


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


# large payloads


def same(x):
    return x


SIZES = [0, 1, 1 << 12, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, (1 << 20) + 3, 5_000_000]


@pytest.mark.parametrize("chunksize", [None, 1, 4])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_large_buffers_arrive_as_they_were_sent(kind, chunksize):
    items = [kind(os.urandom(size)) for size in SIZES * 2]
    results = list(ordered_map(same, items, executor=FORK, concurrency=2, chunksize=chunksize))
    assert results == items
    assert {type(each) for each in results} == {kind}


@pytest.mark.parametrize("chunksize", [None, 1, 4])
def test_large_texts_and_containers_arrive_as_they_were_sent(chunksize):
    items = [["ä" * size, {"key": bytes(size), "more": [bytearray(size)]}] for size in SIZES]
    assert list(ordered_map(same, items, executor=FORK, concurrency=2, chunksize=chunksize)) == items


def test_large_arrays_arrive_as_they_were_sent():
    np = pytest.importorskip("numpy")
    items = [np.arange(size, dtype=kind) for size in SIZES for kind in ("u1", "f8")]
    items += [np.arange(2_000_000).reshape(1000, 2000).T, np.arange(400_000)[::2], np.zeros((0, 3))]
    frozen = np.arange(300_000)
    frozen.flags.writeable = False
    items.append(frozen)
    results = list(ordered_map(same, items, executor=FORK, concurrency=2))
    for item, result in zip(items, results, strict=True):
        assert (item.dtype, item.shape) == (result.dtype, result.shape)
        assert np.array_equal(item, result)
        assert result.flags.writeable == item.flags.writeable


def test_a_delivered_array_is_its_own():
    """Writing into one result, or into an item in the worker, changes nothing else."""
    np = pytest.importorskip("numpy")
    items = [np.full(500_000, i) for i in range(12)]
    results = []
    for i, result in enumerate(ordered_map(spoiled, items, executor=FORK, concurrency=2)):
        result += 100
        results.append(result)
        assert (items[i] == i).all()
    for i, result in enumerate(results):
        assert (result == i + 101).all()


_before: list = []


def spoiled(array):
    for i, each in _before:
        assert (each == i).all(), "what a worker keeps must not change"
    copy = array + 1
    _before.append((array[0], array))
    return copy


def test_a_payload_may_be_larger_than_what_a_hold_takes(monkeypatch):
    from inturn._transport import shared_memory as _segments

    monkeypatch.setattr(_segments, "MOST", 1 << 20)
    items = [bytes([i]) * 400_000 for i in range(20)]
    assert list(ordered_map(same, items, executor=FORK, concurrency=1, chunksize=10)) == items


def test_g28_a_full_shared_memory_is_got_round(monkeypatch):
    from inturn._transport import shared_memory as _segments

    real = _segments._allocate

    def full(fd, begin, end):
        if end > 1 << 16:
            raise OSError(28, "No space left on device")
        real(fd, begin, end)

    monkeypatch.setattr(_segments, "_allocate", full)
    items = [bytes([i]) * 400_000 for i in range(20)]
    assert list(ordered_map(same, items, executor=FORK, concurrency=2)) == items


def test_g28_memory_is_had_where_there_is_no_memfd(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    items = [bytes([i]) * 400_000 for i in range(10)]
    assert list(ordered_map(same, items, executor=FORK, concurrency=2)) == items


def test_the_end_of_a_process_is_noticed_where_there_is_no_pidfd(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    results = list(ordered_map(partial(dies, {3}), range(8), executor=FORK, concurrency=2, on_error=failure_of))
    assert isinstance(results.pop(3), WorkerDied)
    assert results == [0, 1, 2, 4, 5, 6, 7]


def dies(bad, i):
    if i in bad:
        os._exit(2)
    return i


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


def test_the_classes_are_there_without_multiprocessing():
    with Script("import inturn; inturn.Processes(); say('multiprocessing' in sys.modules)") as script:
        assert script.end().lines == ["False"]


def test_stats_count_processes_as_places(tmp_path):
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
