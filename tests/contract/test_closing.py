"""Guarantee 13: `close`, `with`, and losing the last reference to a run."""

import contextlib
import gc
import itertools
import sys
import threading
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from functions_for_workers import Oops, double, fail_at, same
from inturn import Retry, ordered_map, retry
from inturn._base.events import ThreadEvent
from waiting import (
    HOUR,
    SHORT,
    Background,
    Gate,
    Source,
    Tally,
    absence,
    farewell,
    primed,
    wait_until,
    wait_until_told_to_end,
)


class Stuck:
    """Calls that have begun and wait: the first, or the first few, return, all later ones stand at a gate."""

    def __init__(self, free=1):
        self.gate, self.started, self.ended, self.free = Gate(), Tally(), Tally(), free

    def __call__(self, i):
        self.started.add(i)
        if i >= self.free:
            self.gate.wait()
        return self.ended.add(i)


# 13: close, with, and losing the last reference


@pytest.mark.parametrize("chunksize", [None, 1, 5])
def test_g13_close_waits_for_running_calls_and_starts_no_other(overlapping, chunksize):
    call = Stuck(free=chunksize or 1)
    executor = overlapping.executor(2)
    threads = set(threading.enumerate())
    run, source = primed(overlapping, call, executor=executor, window=20, concurrency=2, chunksize=chunksize)
    begun = call.free + 2  # two calls are running, each perhaps the first of a chunk
    call.started.wait(begun)
    closing = Background(run.close)
    wait_until_told_to_end(run)
    absence()
    assert closing.is_alive()
    pulls = source.pulls
    call.gate.open()
    closing.result()
    if overlapping.driver.owned:
        assert set(threading.enumerate()) <= threads | {closing}
    assert len(call.started) == len(call.ended) == begun
    assert next(run, "over") == "over"
    absence()
    assert len(call.started) == begun
    assert source.pulls == pulls


@pytest.mark.parametrize("how", ["end", "break", "return", "error"])
def test_g13_leaving_the_with_block_in_any_way_closes(overlapping, how):
    call = Stuck()
    runs = []

    def leave():
        run, _ = primed(overlapping, call, concurrency=2)
        runs.append(run)
        for _ in range(1):
            with run:
                call.started.wait(3)
                if how == "break":
                    break
                if how == "return":
                    return
                if how == "error":
                    raise Oops

    leaving = Background(leave)
    wait_until(lambda: runs)
    wait_until_told_to_end(runs[0])
    absence()
    assert leaving.is_alive()
    call.gate.open()
    if how == "error":
        with pytest.raises(Oops):
            leaving.result()
    else:
        leaving.result()
    assert len(call.started) == len(call.ended) == 3
    assert next(runs[0], "over") == "over"


def test_g13_after_close_nothing_of_the_run_is_left(inside):
    threads = set(threading.enumerate())
    executor = inside.executor()
    own = set(threading.enumerate()) - threads
    run = inside.map(double, itertools.count(), window=20, executor=executor)
    assert [next(run) for _ in range(30)] == list(range(0, 60, 2))
    run.close()
    if inside.driver.live:
        wait_until(lambda: set(threading.enumerate()) == threads | own)  # it may have been inside a pull
    if inside.driver.owned:
        assert set(threading.enumerate()) == threads | own
    assert next(run, "over") == "over"


def test_g13_after_the_last_result_nothing_of_the_run_is_left(own):
    threads = set(threading.enumerate())
    run = own.map(double, range(30))
    assert list(run) == list(range(0, 60, 2))
    run.close()
    assert set(threading.enumerate()) == threads


@pytest.mark.parametrize("chunksize", [None, 1, 5])
def test_g13_losing_the_last_reference_waits_for_nothing_and_starts_nothing(overlapping, chunksize):
    call = Stuck(free=chunksize or 1)
    run, source = primed(overlapping, call, window=20, concurrency=2, chunksize=chunksize)
    begun = call.free + 2  # two calls are running, each perhaps the first of a chunk
    call.started.wait(begun)
    if overlapping.live:
        wait_until(lambda: source.pulls == 21)  # in exchange for what was delivered
    gone = farewell(run)
    pulls = source.pulls
    del run  # this returns though the gate is shut
    assert gone.is_open
    absence()
    call.gate.open()
    call.ended.wait(begun)
    absence()
    assert len(call.started) == begun
    assert source.pulls == pulls


def test_g13_a_run_without_a_name_is_dropped_by_break(overlapping):
    call, full = Stuck(), Gate()
    source = Source(itertools.count(), lambda k: full.open() if k == 9 else None)

    def first_waits(i):
        if i == 0:
            full.wait()
        return call(i)

    for _ in overlapping.map(first_waits, source, window=10, concurrency=2):
        call.started.wait(3)
        break
    absence()
    call.gate.open()
    call.ended.wait(3)
    absence()
    assert len(call.started) == 3


def test_g13_a_run_with_a_name_is_paused_by_break(driver):
    run = driver.map(double, range(20), window=5)
    for result in run:
        if result == 10:
            break
    assert next(run) == 12
    for result in run:
        if result == 20:
            break
    assert list(run) == [22, 24, 26, 28, 30, 32, 34, 36, 38]


def test_g13_the_last_reference_may_be_lost_in_another_thread(overlapping):
    call = Stuck()
    run, _ = primed(overlapping, call, concurrency=2)
    call.started.wait(3)
    gone, box = farewell(run), [run]
    del run
    Background(box.clear).result()
    assert gone.is_open
    call.gate.open()
    call.ended.wait(3)
    absence()
    assert len(call.started) == 3


def test_g13_the_last_reference_may_be_lost_in_a_call_of_its_own(overlapping):
    """The worker that drops the run is one of those that it ends."""
    box, ended = [], Tally()
    dropped = Gate()

    def call(i):
        if i == 1:
            dropped.wait()
            box.clear()
        return ended.add(i)

    run, _ = primed(overlapping, call, concurrency=2)
    box.append(run)
    gone = farewell(run)
    del run
    dropped.open()
    gone.wait()


def test_g13_the_last_reference_may_be_lost_to_the_garbage_collector(overlapping):
    call = Stuck()
    run, _ = primed(overlapping, call, concurrency=2)
    call.started.wait(3)
    gone = farewell(run)
    cycle = [run]
    cycle.append(cycle)
    del run, cycle
    assert not gone.is_open
    gc.collect()
    assert gone.is_open
    call.gate.open()
    call.ended.wait(3)
    absence()
    assert len(call.started) == 3


def _locks_of(thing):
    """Every lock that can be reached from `thing`, and those of the library's modules; nobody holds an event."""
    lock_types = (type(threading.Lock()), type(threading.RLock()))
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "inturn"]
    todo, seen, locks = [thing, *(vars(module) for module in modules)], set(), []
    barred = (
        types.ModuleType,
        type,
        types.BuiltinFunctionType,
        threading.Thread,
        types.FrameType,
        types.TracebackType,
        ThreadEvent,
    )
    while todo:
        it = todo.pop()
        if id(it) in seen or isinstance(it, barred):
            continue
        seen.add(id(it))
        if isinstance(it, lock_types):
            locks.append(it)
        elif isinstance(it, types.FunctionType):
            todo.extend(it.__closure__ or ())
            todo.extend(it.__defaults__ or ())
        else:
            todo.extend(gc.get_referents(it))
    return locks


def test_g13_losing_the_last_reference_takes_no_lock(overlapping):
    """Because the collector may run while this very thread holds it: here, every lock that can be had is held."""
    call = Stuck()
    run, _ = primed(overlapping, call, concurrency=2)
    call.started.wait(3)
    locks = _locks_of(run)
    gone, box = farewell(run), [run]
    del run
    with contextlib.ExitStack() as held:
        for lock in locks:
            if lock.acquire(blocking=False):
                held.callback(lock.release)
        dropping = Background(box.clear)
        dropping.join(5)
        stuck = dropping.is_alive()
    assert not stuck
    assert gone.is_open
    call.gate.open()
    call.ended.wait(3)


def test_g13_runs_may_be_lost_to_the_collector_while_others_work(overlapping):
    """The collector runs at almost every step, in every thread, and finds a run to end."""
    executor = overlapping.executor(3)

    def litter():
        run = overlapping.map(double, itertools.count(), concurrency=3, window=6, executor=executor)
        next(run)
        cycle = [run]
        cycle.append(cycle)

    before = gc.get_threshold()
    gc.set_threshold(5, 2, 2)
    try:
        for _ in range(40):
            litter()
            run = overlapping.map(double, range(40), concurrency=3, window=6, executor=executor)
            assert list(run) == list(range(0, 80, 2))
    finally:
        gc.set_threshold(*before)
    gc.collect()


class FailsAfter:
    """Not a generator, whose frames forget their callers on some Pythons."""

    def __init__(self, items):
        self.left = items

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise Oops("the source")
        self.left -= 1
        return self.left


def test_g13_a_run_whose_source_has_failed_can_be_lost_before_that_surfaces(overlapping):
    """The frames of the error refer to their callers, and so to the run."""

    def leave_after_one():
        run = overlapping.map(double, FailsAfter(7), window=20, concurrency=2)
        assert next(run) == 12
        return farewell(run)

    gone = leave_after_one()
    gc.collect()
    wait_until(lambda: gone.is_open, "the run is collected")


def failed_while_another_call_runs(overlapping):
    """A run whose first item has failed, and the calls of the others, which are stuck."""
    call = Stuck()

    def fail_after_the_others_have_started(i):
        if i == 0:
            call.started.wait(1)
            raise Oops
        return call(i)

    run = overlapping.map(fail_after_the_others_have_started, range(10), concurrency=2, window=5)
    with pytest.raises(Oops):
        next(run)
    return run, call


def test_g13_an_error_is_raised_without_waiting_for_running_calls(overlapping):
    run, call = failed_while_another_call_runs(overlapping)
    assert len(call.ended) == 0
    call.gate.open()
    run.close()
    assert len(call.ended) == len(call.started)


def test_g13_close_after_an_error_waits_for_the_running_calls(overlapping):
    run, call = failed_while_another_call_runs(overlapping)
    closing = Background(run.close)
    wait_until_told_to_end(run)
    absence()
    assert closing.is_alive()
    call.gate.open()
    closing.result()
    assert len(call.ended) == len(call.started)


@pytest.mark.parametrize("how", ["close", "drop", "error"])
def test_g13_the_source_is_left_open_after_the_last_pull(inside, how):
    def numbers():
        yield from itertools.count()

    source = numbers()
    run = inside.map(partial(fail_at, frozenset({8} if how == "error" else ())), source, window=4)
    for _ in range(6):
        next(run)
    if how == "error":
        with pytest.raises(Oops):
            list(run)
    absence(0.02)  # a feeder fills the window, and then sleeps
    if how != "drop":
        run.close()
    pulled = run.stats.pulled
    del run
    assert next(source) == pulled


def test_g13_an_executor_passed_in_is_as_before_after_close():
    with ThreadPoolExecutor(2) as executor:
        busy = Gate()
        blockers = [executor.submit(busy.wait) for _ in range(2)]
        started = Tally()
        run = ordered_map(started.add, range(10), executor=executor, concurrency=2, window=6)
        consumer = Background(next, run, "over")
        wait_until(lambda: executor._work_queue.qsize() == 2)
        run.close()  # nothing runs, all that was queued can be cancelled: no reason to wait
        assert consumer.result() == "over"
        assert not busy.is_open
        busy.open()
        assert executor.submit(double, 4).result() == 8
        assert started.seen == []
        for blocker in blockers:
            blocker.result()


def test_g13_a_dropped_run_cancels_what_it_has_queued_elsewhere():
    with ThreadPoolExecutor(1) as executor:
        started = Tally()
        run, _ = primed(_Plain(executor), started.add, window=6, concurrency=1)
        started.wait(6)
        busy = Gate()
        blocker = executor.submit(busy.wait)
        assert next(run) == 1  # pulls one, and queues it behind the blocker
        wait_until(lambda: executor._work_queue.qsize() == 1)
        del run
        busy.open()
        blocker.result()
        executor.submit(int).result()
        assert sorted(started.seen) == [0, 1, 2, 3, 4, 5]


class _Plain:
    """A runner around one given executor."""

    def __init__(self, executor):
        self.executor = executor

    def map(self, fn, *iterables, **settings):
        return ordered_map(fn, *iterables, executor=self.executor, **settings)


def test_g13_close_does_not_wait_for_calls_given_up_by_timeout(own):
    stuck = Gate()
    run = own.map(lambda i: stuck.wait() if i == 1 else i, itertools.count(), timeout=SHORT, on_error="return")
    assert next(run) == 0
    assert type(next(run).error) is TimeoutError
    run.close()
    assert not stuck.is_open
    assert run.stats.abandoned == 1


def test_g13_close_does_not_wait_for_a_live_source_inside_its_pull(overlapping):
    more, inside_pull = Gate(), Gate()

    def source():
        yield 1
        inside_pull.open()
        more.wait()
        yield 2

    it = source()
    run = overlapping.map(double, it, live=True)
    assert next(run) == 2
    inside_pull.wait()
    run.close()
    assert not more.is_open
    assert next(run, "over") == "over"
    more.open()
    wait_until(lambda: not it.gi_running)
    assert list(it) == []  # the item of that pull is lost


@pytest.mark.parametrize("how", ["close", "drop", "with"])
def test_g13_a_pausing_item_keeps_nothing_alive(inside, how):
    """Not even a timer: the pause would last for an hour."""
    run = inside.map(
        partial(fail_at, frozenset({1})),
        range(3),
        window=3,
        on_error=retry(backoff=HOUR, max_backoff=HOUR, jitter=False),
    )
    assert next(run) == 0
    if inside.driver.concurrent:
        wait_until(lambda: run.stats.running == 0)
    if how == "close":
        run.close()
    elif how == "drop":
        del run
    else:
        with run:
            pass


def test_g13_close_interrupts_a_pause(inside):
    run = inside.map(partial(fail_at, frozenset({0})), [0], on_error=lambda failure: Retry(after=HOUR))
    consumer = Background(next, run, "over")
    wait_until(lambda: run.stats.retried == 1)
    run.close()
    assert consumer.result() == "over"


def test_g13_a_paused_run_that_ends_with_the_function_ends_with_it(overlapping):
    ended = Tally()

    def loop():
        run = overlapping.map(ended.add, itertools.count(), window=6)
        for _ in run:
            return

    loop()
    absence(0.05)
    seen = len(ended)
    absence(0.05)
    assert len(ended) == seen <= 6 + overlapping.live


def test_g13_weak_references_to_a_run_are_allowed(driver):
    run = driver.map(double, range(3))
    assert weakref.ref(run)() is run
    assert list(run) == list(map(double, map(same, range(3))))
