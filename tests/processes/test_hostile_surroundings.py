"""Worker processes amid code that knows nothing of them: it forks, closes, stops, signals, prints, and ends things."""

import asyncio
import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import types
from functools import partial
from multiprocessing.connection import Connection

import pytest

from functions_for_workers import double, sleeping
from inturn import Processes, WorkerDied, ordered_flat_map, ordered_map, retry
from inturn._processes.handle import Handle, Memory
from inturn._transport.wire import LENGTH
from programs import Script
from waiting import GRACE_S, HANG_S, SHORT, TENFOLD, Background, Tally, Watch, absence, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals")
own_fork = pytest.mark.filterwarnings("ignore:.*may lead to deadlocks in the child:DeprecationWarning")

METHODS = ["fork", "forkserver", "spawn"]
FORK = Processes(start_method="fork")
LONG = os.environ.get("INTURN_LONG_TESTS") == "1"


def same(x):
    return x


def pid_of(x):
    return os.getpid()


# ---- what fn may do to its process


def returns_twice(directory, i):
    """For one item of three, the child of a fork returns as well; a large result would meet its parent's in memory."""
    with open(f"{directory}/{i}", "a") as file:
        file.write(".")
    if i % 3 == 1:
        if not os.fork():
            return bytes(200_000)
        os.wait()
        return bytes([i]) * 200_000
    return i


@own_fork
@pytest.mark.parametrize("chunksize", [None, 1, 6])
def test_g24_a_child_that_fn_has_forked_runs_no_other_item_and_speaks_to_nobody(tmp_path, chunksize):
    results = list(
        ordered_map(partial(returns_twice, str(tmp_path)), range(12), executor=FORK, concurrency=1, chunksize=chunksize)
    )
    assert results == [bytes([i]) * 200_000 if i % 3 == 1 else i for i in range(12)]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {str(i): "." for i in range(12)}


def streams_twice(i):
    yield 3 * i
    child = os.fork()
    yield 3 * i + 1
    if child:
        os.wait()
    yield 3 * i + 2


@own_fork
def test_g24_nor_one_that_a_generator_has_forked():
    assert list(ordered_flat_map(streams_twice, range(5), executor=FORK, concurrency=1)) == list(range(15))


def closes_all(i):
    if i == 2:
        os.closerange(3, 256)
    return i


def test_g24_an_item_that_closes_all_descriptors_costs_itself(capfd):
    """The death is at the report, so a batch-mate would be taken for the one that was running."""
    results = list(ordered_map(closes_all, range(6), executor=FORK, concurrency=1, chunksize=1, on_error="return"))
    assert isinstance(results[2].error, WorkerDied)
    assert results[:2] + results[3:] == [0, 1, 3, 4, 5]
    assert capfd.readouterr() == ("", "")


def estranged(i):
    os.setsid() if os.getpid() != os.getsid(0) else None
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return i


def test_g13_workers_that_leave_the_session_and_ignore_signals_end_as_others_do():
    run = ordered_map(estranged, itertools.count(), executor=FORK, concurrency=2)
    assert list(itertools.islice(run, 10)) == list(range(10))
    run.close()
    assert not multiprocessing.active_children()


def prints(i):
    sys.stdout.write(f"item {i}\n")
    os.write(1, b"raw\n")
    return i


def test_g25_what_fn_prints_is_printed_and_nothing_else(capfd):
    assert list(ordered_map(prints, range(20), executor=FORK, concurrency=2)) == list(range(20))
    words = capfd.readouterr().out.split("\n")
    assert sorted(words) == sorted(["raw"] * 20 + [f"item {i}" for i in range(20)] + [""])


def leaves_abruptly():
    import atexit
    from multiprocessing import util

    atexit.register(os._exit, 0)
    util.Finalize(None, os._exit, args=(0,), exitpriority=0)


@pytest.mark.parametrize("method", METHODS)
def test_g24_an_exit_hook_that_ends_the_worker_costs_nothing(method):
    settings = Processes(leaves_abruptly, start_method=method, max_tasks_per_worker=3)
    assert list(ordered_map(double, range(7), executor=settings, concurrency=1)) == [2 * i for i in range(7)]


def dies_at_thirds(i):
    if i % 3 == 2:
        os._exit(0)
    return os.getpid()


def test_g24_workers_of_one_task_each_may_die():
    settings = Processes(start_method="fork", max_tasks_per_worker=1)
    results = list(ordered_map(dies_at_thirds, range(30), executor=settings, concurrency=2, on_error="return"))
    assert [i for i, each in enumerate(results) if not isinstance(each, int)] == list(range(2, 30, 3))
    assert len({each for each in results if isinstance(each, int)}) == 20


def signals_itself(i):
    os.kill(os.getpid(), signal.SIGUSR1)
    return i


def test_g28_a_signal_to_a_worker_does_not_wake_the_parents_event_loop():
    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 60.0  # the run below blocks it; debug mode need not say so
        heard = []
        loop.add_signal_handler(signal.SIGUSR1, heard.append, "USR1")
        try:
            assert list(ordered_map(signals_itself, range(3), executor=FORK, concurrency=1)) == [0, 1, 2]
            for _ in range(3):  # what has been written to the loop's own socket is read in one of its next rounds
                await asyncio.sleep(0)
            assert heard == []
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    asyncio.run(main())


# ---- stopped workers


def stops_itself(i):
    if i == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return i


def test_g17_a_stopped_worker_is_killed_and_replaced():
    results = list(
        ordered_map(stops_itself, range(4), executor=FORK, concurrency=1, timeout=SHORT, on_error="return", window=4)
    )
    assert isinstance(results.pop(1).error, TimeoutError)
    assert results == [0, 2, 3]


@pytest.mark.parametrize("flat", [False, True])
def test_g13_close_ends_a_stopped_worker_that_has_half_a_message(monkeypatch, flat):
    """The items that wait in the pipe are more than it holds."""
    from inturn._transport import pickling as _pickling

    monkeypatch.setattr(_pickling, "LARGE", 1 << 30)  # all goes through the pipe
    pids = []

    def source():
        yield None
        os.kill(pids[0], signal.SIGSTOP)
        yield b"x" * 5_000_000

    fn, mapping = (pids_of, ordered_flat_map) if flat else (pid_of, ordered_map)
    run = mapping(fn, source(), executor=FORK, concurrency=1, window=1)
    pids.append(next(run))
    consumer = Background(next, run, "over")
    wait_until(lambda: run.stats.running == 1)
    absence(0.1)  # until the pipe is full
    with Watch() as watch:
        run.close()
    assert GRACE_S * 0.99 <= watch.seconds < TENFOLD * GRACE_S
    assert consumer.result() == "over"
    assert not multiprocessing.active_children()


def pids_of(x):
    yield os.getpid()


# ---- other runs, other processes


def shared_memory_of(pid):
    links = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it is being released just now, or it was that of the listing
            links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    with open(f"/proc/{pid}/maps") as maps:
        return sum("memfd:inturn" in link for link in links), sum("memfd:inturn" in line for line in maps)


@own_fork
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_g13_no_forked_process_keeps_the_shared_memory_of_a_run():
    """Neither the workers of another run, nor the user's children: nothing of it is left after `close`."""
    first = ordered_map(same, [bytes(8_000_000)] * 3, executor=FORK, concurrency=1, window=3)
    next(first)
    wait_until(lambda: first.stats.waiting == 2)  # or else its memory is just being read, and cannot be released
    second = ordered_map(pid_of, itertools.count(), executor=FORK, concurrency=1)
    worker = next(second)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    try:
        wait_until(lambda: shared_memory_of(child) == (0, 0))
        first.close()
        with ordered_map(shared_memory_of, [worker], executor="serial") as alone:
            descriptors = 2 if sys.version_info >= (3, 13) else 4  # older mappings have copies of their own
            assert next(alone) == (descriptors, 2)  # its own two pieces
        assert next(second) == worker
    finally:
        os.close(write)
        os.close(read)
        os.waitpid(child, 0)
        second.close()


def leave_open(queue):
    global left_open
    left_open = ordered_map(same, itertools.count(), executor="process", concurrency=2)
    queue.put(next(left_open))


@own_fork
@pytest.mark.parametrize("method", METHODS)
def test_g15_a_child_of_multiprocessing_ends_with_its_run_unclosed(method):
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    process = context.Process(target=leave_open, args=(queue,))
    process.start()
    assert queue.get() == 0
    process.join(HANG_S)
    try:
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        process.close()
        queue.close()


def nested(i):
    global left_open
    left_open = ordered_map(same, itertools.count(i), executor=FORK, concurrency=1)
    return next(left_open), os.getpid()


def test_g22_a_nested_run_that_is_left_open_does_not_hold_up_its_worker():
    executor = Processes(start_method="fork", max_tasks_per_worker=1)
    results = list(ordered_map(nested, range(3), executor=executor, concurrency=1))
    assert [value for value, _ in results] == [0, 1, 2]


@own_fork
def test_g23_start_methods_may_be_mixed():
    runs = [ordered_map(double, range(100), executor=Processes(start_method=each), concurrency=1) for each in METHODS]
    for i, results in enumerate(zip(*runs, strict=True)):
        assert results == (2 * i,) * 3


def test_g23_a_run_in_a_thread_has_processes_too():
    assert Background(lambda: list(ordered_map(double, range(50), executor="process", concurrency=2))).result() == [
        2 * i for i in range(50)
    ]


def test_g27_a_killed_parent_leaves_no_shared_memory(tmp_path):
    body = f"""
from inturn import Processes
from functions_for_programs import hold
if __name__ == "__main__":
    tempfile.tempdir = {str(tmp_path)!r}
    run = ordered_map(hold, [bytes(8_000_000)] * 4, executor=Processes(start_method="fork"), concurrency=2)
    say("up", next(run)[0])
    time.sleep(60)
"""
    with Script("import tempfile" + body) as script:
        script.wait_for("up")
        script.process.kill()
        script.process.wait()
    assert list(tmp_path.iterdir()) == []
    if os.path.isdir("/dev/shm"):
        assert not [name for name in os.listdir("/dev/shm") if "inturn" in name]


@pytest.mark.skipif(not LONG, reason="takes a gigabyte")
def test_large_things_arrive_while_the_consumer_is_away():
    items = [bytes([i]) * 120_000_000 for i in range(3)]
    parts = [[str(k) * 50 for k in range(1_500_000)]]
    run = ordered_map(same, items + parts, executor=FORK, concurrency=2)
    assert next(run) == items[0]
    wait_until(lambda: run.stats.waiting == 3)
    assert list(run) == items[1:] + parts


# ---- things that go wrong on our side


def test_g28_one_who_gets_no_process_waits_for_those_who_are_just_starting(monkeypatch):
    from inturn._processes import handle as _process_handle
    from inturn._processes import pool as _process_pool

    real, made, failed = _process_handle.new_process, [], threading.Event()
    continue_without, send = _process_pool.ProcessPool.continue_without, _process_handle.Handle.send

    def new_process(*args):
        if made:
            raise OSError(24, "Too many open files")
        made.append(args)
        return real(*args)

    def told(self, *args):
        try:
            return continue_without(self, *args)
        finally:
            failed.set()

    def after_the_failure(self, *args):
        assert failed.wait(HANG_S)
        return send(self, *args)

    monkeypatch.setattr(_process_handle, "new_process", new_process)
    monkeypatch.setattr(_process_pool.ProcessPool, "continue_without", told)
    monkeypatch.setattr(_process_handle.Handle, "send", after_the_failure)
    executor = Processes(start_method="forkserver")
    assert list(ordered_map(double, range(20), executor=executor, concurrency=2)) == [2 * i for i in range(20)]


def test_g28_memory_that_runs_out_on_the_way_leaves_no_process(monkeypatch):
    from inturn._processes import handle

    def pack(*args):
        raise MemoryError("none left")

    monkeypatch.setattr(handle, "pack", pack)
    with pytest.raises(MemoryError, match="none left"):
        list(ordered_map(double, range(3), executor=FORK, concurrency=1, on_error="skip"))
    wait_until(lambda: not multiprocessing.active_children())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_g13_close_does_not_hang_when_somebody_has_closed_our_descriptors(monkeypatch):
    from inturn._processes import handle as _process_handle

    real = _process_handle.Handle.close

    def close(self):
        real(self)
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(_process_handle.Handle, "close", close)
    run = ordered_map(double, range(20), executor=FORK, concurrency=2)
    assert next(run) == 0
    Background(run.close).result()


def test_g16_a_recall_may_be_closed_in_its_midst(monkeypatch):
    read, write = os.pipe()
    handle = types.SimpleNamespace(_control=Connection(write, readable=False))
    recall = partial(Handle.recall, handle)
    real = os.write

    def interrupted(fd, data):
        recall(2)  # as a signal handler, or another thread, does
        handle._control = None  # as the slot's thread may
        return real(fd, data)

    monkeypatch.setattr(os, "write", lambda fd, data: (monkeypatch.undo(), interrupted(fd, data))[1])
    recall(1)
    assert [each for (each,) in LENGTH.iter_unpack(os.read(read, 100))] == [2, 1]
    assert os.read(read, 100) == b""  # closed, since nobody writes any more
    os.close(read)
    recall(3)  # after the end it asks for nothing


class Owner:
    """Closes its run when it goes, which takes a garbage collection."""

    def __init__(self, run):
        self.run, self.me = run, self

    def __del__(self):
        self.run.close()


def dies_once(path):
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield 1


def test_g13_a_run_that_a_garbage_collection_closes_while_a_worker_starts_delays_nobody(monkeypatch, tmp_path):
    """The new worker is started by a slot in the midst of its item."""
    owned = ordered_map(partial(sleeping, SHORT / 4), itertools.count(), executor="process", concurrency=2)
    owners = [Owner(owned)]
    next(owned)
    del owned
    started = Tally()
    create = Memory.create.__func__

    def create_and_collect(kind):
        if started.add(1) and len(started.seen) == 3:  # two for each worker
            owners.clear()
            gc.collect()
        return create(kind)

    monkeypatch.setattr(Memory, "create", classmethod(create_and_collect))
    policy = retry(attempts=2, backoff=0)
    run = ordered_flat_map(dies_once, [tmp_path / "died"], executor="process", concurrency=1, on_error=policy)
    assert list(run) == [1]
    assert not owners
