"""Guarantees 19 to 23: executors, serial, context variables, nesting, several runs and consumers, forks."""

import contextvars
import gc
import itertools
import os
import random
import sys
import threading
import time
from collections import deque
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial

import pytest

from drivers import DRIVERS, DuckExecutor, Runner
from functions_for_workers import Oops, double, fail_at, same
from inturn import Retry, Threads, ordered_flat_map, ordered_map, retry
from programs import Script
from waiting import (
    HANG_S,
    SHORT,
    Background,
    Gate,
    Meter,
    Source,
    Tally,
    absence,
    farewell,
    primed,
    shown,
    spend,
    wait_until,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")


def until_error(run):
    results = []
    try:
        for result in run:
            results.append(result)
    except BaseException as error:
        return results, error
    return results, None


# 19: executors


def test_g19_three_items_never_start_eight_threads(own):
    seen = set()

    def call(i):
        seen.add(threading.current_thread())
        return i

    for source in ([0, 1, 2], iter([0, 1, 2]), (i for i in range(3))):
        seen.clear()
        threads = set(threading.enumerate())
        started = []
        run = own.map(call, source, concurrency=8)
        for _ in run:
            started.append(set(threading.enumerate()) - threads)
        assert len(seen) <= 3
        assert max(map(len, started)) < 8
        run.close()


def test_g19_workers_are_started_as_items_need_them(own):
    """Items that come one by one, each done before the next, need one worker or two, not sixteen."""
    ended = Tally()

    def source():
        for i in range(30):
            ended.wait(i)
            yield i

    threads = set(threading.enumerate())
    run = own.map(ended.add, source(), concurrency=16)
    most = max(len(set(threading.enumerate()) - threads) for _ in run)
    assert most <= 4 + own.live
    run.close()


class IdleSlots(dict):
    """The idle slots of a pool; the first one to be announced waits until an item that comes just then is known."""

    def __init__(self, on_idle, on_wake):
        super().__init__()
        self._on_idle, self._on_wake = on_idle, on_wake

    def __setitem__(self, slot, idle):
        super().__setitem__(slot, idle)
        if self._on_idle is not None:
            slot.event = Consumed(slot.event, self._on_wake)
            on_idle, self._on_idle = self._on_idle, None
            on_idle()


class Consumed:
    """A slot's event; what comes while its first wake-up is consumed is known before the slot goes on."""

    def __init__(self, event, on_wake):
        self.set, self._wait, self._on_wake = event.set, event.wait, on_wake

    def wait(self, timeout=None):
        woken = self._wait(timeout)
        on_wake, self._on_wake = self._on_wake, lambda: None
        on_wake()
        return woken


def test_g06_a_slot_that_was_woken_for_one_item_and_took_another_leaves_nobody_stranded():
    # A slot says that it is idle and looks once more; meanwhile the first item comes, and the slot is woken for it. It
    # takes that item by itself, and before it consumes the wake-up, the second comes: the slot counts as being on its
    # way to that one. Both items need each other.
    gates = [threading.Event(), threading.Event()]
    both = threading.Barrier(2)

    def source():
        yield 0
        for item, gate in enumerate(gates, 1):
            gate.wait(HANG_S)
            yield item

    def call(i):
        if i > 0:
            both.wait(HANG_S)
        return i

    run = ordered_map(call, source(), concurrency=2, live=True)
    pool = run._run.job.pool
    told = []
    notify = pool.notify

    def telling(chunks):
        notify(chunks)
        told.append(chunks)

    def let(gate):
        before = len(told)
        gate.set()
        wait_until(lambda: len(told) > before)

    pool.notify = telling
    pool._idle = IdleSlots(lambda: let(gates[0]), lambda: let(gates[1]))
    assert list(run) == [0, 1, 2]


def test_g19_a_pool_of_our_own_is_shut_down():
    threads = threading.active_count()
    with ordered_map(double, itertools.count(), concurrency=4) as run:
        next(run)
        assert threading.active_count() > threads
    assert threading.active_count() == threads


def test_g19_threads_may_have_an_initializer():
    local = threading.local()
    started = Tally()

    def start(value):
        started.add(value)
        local.value = value

    for settings in ({}, {"timeout": 30}):
        threads = Threads(initializer=start, initargs=(7,))
        results = list(ordered_map(lambda i: i + local.value, range(50), executor=threads, concurrency=3, **settings))
        assert results == list(range(7, 57))
    assert 2 <= len(started) <= 6


def test_g19_threads_may_serve_several_runs():
    threads = Threads()
    one = ordered_map(double, range(30), executor=threads)
    two = ordered_map(double, range(30), executor=threads)
    assert list(zip(one, two, strict=True)) == [(2 * i, 2 * i) for i in range(30)]


RUNS = [ordered_map, lambda fn, items, **settings: ordered_flat_map(lambda item: [fn(item)], items, **settings)]


@pytest.mark.parametrize("run", RUNS, ids=["map", "flat"])
@pytest.mark.parametrize("timeout", [None, 100])
def test_g21_what_an_initializer_sets_is_seen_by_the_calls_of_its_thread(run, timeout):
    names = itertools.count()
    number = contextvars.ContextVar("number")
    callers = contextvars.ContextVar("callers")

    def initialize():
        assert callers.get() == "mine"
        number.set((threading.get_ident(), next(names)))

    def call(item):
        thread, name = number.get()
        assert thread == threading.get_ident()
        assert callers.get() == "mine"
        number.set((thread, None))  # which no other call sees
        return name

    callers.set("mine")
    settings = {"executor": Threads(initialize), "concurrency": 3, "timeout": timeout}
    assert set(run(call, range(100), **settings)) <= {0, 1, 2}
    assert number.get(None) is None


@pytest.mark.parametrize("run", RUNS, ids=["map", "flat"])
def test_g19_each_thread_calls_its_finalizer_when_it_leaves(run):
    local = threading.local()
    number = contextvars.ContextVar("number")
    opened, closed = Tally(), Tally()

    def connect():
        local.connection = threading.get_ident()
        number.set(local.connection)
        opened.add(local.connection)

    def disconnect():
        assert number.get() == local.connection == threading.get_ident()
        closed.add(local.connection)

    settings = {"executor": Threads(connect, finalizer=disconnect), "concurrency": 3}
    with run(lambda item: item, itertools.count(), **settings) as endless:
        assert [next(endless) for _ in range(50)] == [*range(50)]
    assert sorted(closed.seen) == sorted(opened.seen)
    assert list(run(lambda item: item, range(50), **settings)) == [*range(50)]
    assert sorted(closed.seen) == sorted(opened.seen)


def test_g19_no_finalizer_is_called_after_an_initializer_that_failed():
    closed = Tally()
    settings = Threads(int, ("nonsense",), finalizer=lambda: closed.add(1))
    with pytest.raises(ValueError, match="nonsense"):
        list(ordered_map(same, range(3), executor=settings, concurrency=1))
    assert not closed.seen


def test_g19_an_error_of_a_finalizer_is_shown_and_costs_nothing(monkeypatch):
    shown = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_type))
    settings = Threads(finalizer=lambda: 1 / 0)
    assert list(ordered_map(same, range(5), executor=settings, concurrency=1)) == [0, 1, 2, 3, 4]
    assert shown == [ZeroDivisionError]


def test_settings_of_threads_are_checked_when_they_are_made():
    with pytest.raises(TypeError, match="initializer must be callable, got int: 3"):
        Threads(3)
    with pytest.raises(TypeError, match="finalizer must be callable, got int: 3"):
        Threads(finalizer=3)
    assert "finalizer=None, name='inturn'" in repr(Threads())


def test_g19_an_initializer_that_fails_ends_the_run():
    def start():
        raise Oops("initializer")

    # what concurrent.futures itself says about such an initializer goes to its logger
    for settings in ({}, {"timeout": 30}):
        run = ordered_map(double, range(50), executor=Threads(initializer=start), on_error="skip", **settings)
        with pytest.raises(Exception) as caught:
            list(run)
        chain = [caught.value]
        while chain[-1] is not None:
            chain.append(chain[-1].__cause__ or chain[-1].__context__)
        assert not isinstance(caught.value, AssertionError)
        assert next(run, "over") == "over"
        run.close()


class Recorder(Executor):
    """A thread pool that notes how it is used."""

    def __init__(self, workers):
        self.pool = ThreadPoolExecutor(workers)
        self.submission = Meter()
        self.submitted = 0
        self.shut = []

    def submit(self, fn, /, *args, **kwargs):
        future = self.pool.submit(fn, *args, **kwargs)
        self.submission.__enter__()
        self.submitted += 1
        future.add_done_callback(lambda _: self.submission.__exit__())
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.shut.append((wait, cancel_futures))
        self.pool.shutdown(wait, cancel_futures=cancel_futures)


@pytest.mark.parametrize("how", ["end", "close", "error", "drop"])
def test_g19_an_executor_that_is_not_ours_is_never_shut_down(how):
    executor = Recorder(3)
    run = ordered_map(partial(fail_at, frozenset({20} if how == "error" else ())), range(40), executor=executor)
    next(run)
    if how == "close":
        run.close()
    elif how == "drop":
        del run
    else:
        until_error(run)
    assert executor.shut == []
    assert executor.submit(double, 3).result(10) == 6
    executor.shutdown()


@pytest.mark.parametrize("concurrency", [1, 2, 5])
@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_g19_no_more_calls_than_concurrency_are_in_flight_on_an_executor(concurrency, chunksize):
    executor = Recorder(8)
    run = ordered_map(same, range(200), executor=executor, concurrency=concurrency, chunksize=chunksize, window=20)
    assert list(run) == list(range(200))
    assert executor.submission.peak <= concurrency + 1  # a future is counted out only after its other callbacks
    executor.shutdown()


def test_g19_only_submit_and_the_public_methods_of_futures_are_used():
    """The contract suite runs over such an executor as well; here, futures are not even of the right class."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        executor = DuckExecutor(stack, 2)
        assert not isinstance(executor, Executor)
        assert not isinstance(executor.submit(int), Future)
        run = ordered_map(double, range(100), executor=executor, on_error="return")
        assert list(run) == list(range(0, 200, 2))


def test_g19_a_submit_that_takes_no_keywords_is_enough():
    class Least:
        def submit(self, fn, *args):
            future = Future()
            future.set_running_or_notify_cancel()
            try:
                future.set_result(fn(*args))
            except BaseException as error:
                future.set_exception(error)
            return future

    # it runs each call inside submit, whichever thread that is
    assert list(ordered_map(double, range(100), executor=Least())) == list(range(0, 200, 2))
    results, error = until_error(ordered_map(partial(fail_at, frozenset({9})), range(100), executor=Least()))
    assert results == list(range(0, 18, 2))
    assert type(error) is Oops


def test_g19_an_executor_whose_calls_never_leave_submit_may_run_without_end():
    """Ten thousand calls, each completing inside `submit`: no recursion grows with them."""

    class Inline:
        def submit(self, fn, *args):
            future = Future()
            future.set_result(fn(*args))
            return future

    run = ordered_map(same, range(10_000), executor=Inline(), concurrency=2, chunksize=1)
    assert list(run) == list(range(10_000))


def test_g19_an_executor_that_the_caller_drops_is_kept_alive_while_the_run_lasts():
    run = ordered_map(double, range(300), executor=ThreadPoolExecutor(2), window=10)
    gc.collect()
    results = []
    for result in run:
        results.append(result)
        if result % 100 == 0:
            gc.collect()
    assert results == list(range(0, 600, 2))


def test_g19_an_executor_is_let_go_when_the_run_is_over():
    executor = Recorder(2)
    gone = farewell(executor)
    run = ordered_map(double, range(30), executor=executor)
    pool = executor.pool
    del executor
    list(run)
    gc.collect()
    gone.wait()
    pool.shutdown()


def test_g19_a_callable_is_called_with_a_worker_count_and_what_it_returns_is_shut_down():
    made = []

    def make(workers):
        made.append((workers, Recorder(workers)))
        return made[-1][1]

    for end in (list, lambda run: (next(run), run.close())):
        made.clear()
        run = ordered_map(double, range(100), executor=make, concurrency=3, window=9)
        end(run)
        run.close()
        ((workers, executor),) = made
        assert workers == 3
        assert executor.shut
        with pytest.raises(RuntimeError):
            executor.submit(double, 1)
        wait_until(lambda: not any(t.is_alive() for t in executor.pool._threads))


def test_g19_what_a_callable_returned_is_shut_down_after_an_error_and_when_the_run_is_dropped():
    made = []

    def make(workers):
        made.append(Recorder(workers))
        return made[-1]

    run = ordered_map(partial(fail_at, frozenset({5})), range(100), executor=make)
    until_error(run)
    del run
    run = ordered_map(double, itertools.count(), executor=make, window=5)
    next(run)
    del run
    for executor in made:
        wait_until(lambda: executor.shut)
        wait_until(lambda: not any(t.is_alive() for t in executor.pool._threads))
    assert len(made) == 2


def test_g19_a_callable_may_be_a_class_or_a_partial():
    assert list(ordered_map(double, range(9), executor=ThreadPoolExecutor)) == list(range(0, 18, 2))
    named = partial(ThreadPoolExecutor, thread_name_prefix="mine")
    run = ordered_map(lambda i: threading.current_thread().name, range(9), executor=named)
    assert all(name.startswith("mine") for name in run)


def test_g19_a_callable_that_fails_ends_the_run_with_its_error():
    def make(workers):
        raise Oops("no executor")

    run = ordered_map(double, range(9), executor=make, on_error="skip")
    with pytest.raises(Oops, match="no executor"):
        next(run)
    assert next(run, "over") == "over"


def test_g19_a_callable_that_returns_no_executor_is_a_type_error():
    run = ordered_map(double, range(9), executor=lambda workers: workers)
    with pytest.raises(TypeError, match="submit"):
        next(run)
    assert next(run, "over") == "over"


@pytest.mark.parametrize("source", [range(3), [1, 2, 3]], ids=type)
def test_g19_a_callable_is_given_the_concurrency_whatever_the_sources_length_says(source):
    """A length need not be the number of items; workers start as items need them."""
    made = []

    def make(workers):
        made.append(workers)
        return ThreadPoolExecutor(workers)

    assert len(list(ordered_map(same, source, executor=make, concurrency=7))) == 3
    assert made == [7]


@pytest.mark.parametrize("policy", ["raise", "skip", "return", retry(backoff=0)], ids=shown)
def test_g19_an_executor_already_shut_down_is_a_runtime_error_in_turn(policy):
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    run = ordered_map(double, range(9), executor=executor, on_error=policy)
    with pytest.raises(RuntimeError, match="shutdown"):
        next(run)
    assert next(run, "over") == "over"


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_g19_an_executor_shut_down_on_the_way_is_a_runtime_error_in_turn(policy):
    executor = ThreadPoolExecutor(2)
    run, _ = primed(Given(executor), same, window=8, concurrency=2, on_error=policy)
    wait_until(lambda: run.stats.running == 0)
    executor.shutdown()
    results, error = until_error(run)
    assert results == [1, 2, 3, 4, 5, 6, 7]
    assert type(error) is RuntimeError
    assert "shutdown" in str(error)


class Given:
    """A runner around one given executor."""

    def __init__(self, executor):
        self.executor = executor

    def map(self, fn, *iterables, **settings):
        return ordered_map(fn, *iterables, executor=self.executor, **settings)


def test_g19_a_submit_that_fails_is_raised_in_turn_and_past_every_policy():
    class Broken(Recorder):
        def submit(self, fn, /, *args, **kwargs):
            if self.submitted == 5:
                raise Oops("submit")
            return super().submit(fn, *args, **kwargs)

    executor = Broken(2)
    results, error = until_error(ordered_map(double, range(50), executor=executor, chunksize=1, on_error="skip"))
    assert results == [0, 2, 4, 6, 8]
    assert type(error) is Oops
    executor.shutdown()


class Breaking:
    """Breaks at the call for the sixth item, and holds its lock meanwhile, as `ProcessPoolExecutor` does in 3.12."""

    def __init__(self, workers=None):
        self.lock = threading.Lock()
        self.workers = ThreadPoolExecutor(2)
        self.futures = []

    def submit(self, fn, /, *args):
        with self.lock:
            if self.futures is None:
                raise BrokenExecutor("no worker is left")
            future = Future()
            self.futures.append(future)
            self.workers.submit(self.work if len(self.futures) < 6 else self.dies, future, fn, args)
        return future

    def work(self, future, fn, args):
        if future.set_running_or_notify_cancel():
            future.set_result(fn(*args))

    def dies(self, future, fn, args):
        with self.lock:
            futures, self.futures = self.futures, None
            for each in futures or ():
                if not each.done() and not each.running():
                    each.set_exception(BrokenExecutor("a worker died"))

    def shutdown(self, wait=True):
        with self.lock:
            pass
        self.workers.shutdown(wait)


@pytest.mark.parametrize("owned", [False, True])
@pytest.mark.parametrize("window", [2, 7, 100])
@pytest.mark.parametrize("policy", ["raise", "skip", "return"])
def test_g25_an_executor_that_breaks_with_its_lock_held_ends_the_run_and_never_hangs(owned, window, policy):
    executor = Breaking()
    run = ordered_map(
        double,
        range(50),
        executor=(lambda workers: executor) if owned else executor,
        concurrency=2,
        chunksize=1,
        window=window,
        on_error=policy,
    )
    results, error = until_error(run)
    delivered = [each for each in results if isinstance(each, int)]
    assert delivered == sorted(delivered)
    assert {*delivered} <= {0, 2, 4, 6, 8}  # which of them were in submission when it broke, nobody knows
    assert isinstance(error, BrokenExecutor)
    run.close()
    executor.shutdown()


def test_g19_futures_cancelled_by_somebody_else_are_an_error_and_never_a_hang():
    executor = ThreadPoolExecutor(1)
    busy = Gate()
    blocker = executor.submit(busy.wait)
    consumer = Background(until_error, ordered_map(double, range(9), executor=executor, concurrency=2))
    wait_until(lambda: executor._work_queue.qsize() == 2)
    executor.shutdown(wait=False, cancel_futures=True)
    results, error = consumer.result()
    assert results == []
    assert error is not None
    assert str(error)
    busy.open()
    blocker.result()
    executor.shutdown()


def test_g19_an_executor_smaller_than_the_concurrency_is_fine():
    with ThreadPoolExecutor(1) as executor:
        assert list(ordered_map(double, range(50), executor=executor, concurrency=8)) == list(range(0, 100, 2))


# 28, on threads: when no further thread can be had


@pytest.fixture
def scarce(monkeypatch):
    """Threads of which only so many can be started."""
    start = threading.Thread.start
    left = []

    def limited(thread):
        if not left[0]:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    def limit(count):
        left[:] = [count]
        monkeypatch.setattr(threading.Thread, "start", limited)

    yield limit
    monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize(
    ("name", "count"),
    [("thread", 1), ("thread", 2), ("thread", 3), ("timeout", 2), ("timeout", 3), ("live", 2), ("live", 3)],
)  # a time limit needs one thread to watch the clock, a live source one to pull
@pytest.mark.parametrize("chunksize", [None, 1])
def test_g28_when_no_further_thread_can_be_had_the_run_goes_on_with_those_it_has(scarce, count, name, chunksize):
    runner = Runner(next(d for d in DRIVERS if d.name == name))
    called = Tally()
    scarce(count)
    run = runner.map(called.add, range(40), concurrency=8, chunksize=chunksize)
    assert list(run) == list(range(40))
    assert sorted(called.seen) == list(range(40))  # each once
    runner.end()


@pytest.mark.parametrize("name", ["thread", "timeout", "live", "callable"])
def test_g28_when_no_thread_at_all_can_be_had_the_run_ends_with_that_error(scarce, name):
    runner = Runner(next(d for d in DRIVERS if d.name == name))
    scarce(0)
    run = runner.map(double, range(40), concurrency=8, on_error="skip")
    with pytest.raises(RuntimeError, match="can't start new thread"):
        next(run)
    assert next(run, "over") == "over"
    runner.end()


def test_g28_when_the_place_of_a_call_given_up_cannot_be_taken_the_run_ends_with_that_error(scarce):
    stuck = Gate()
    scarce(1)  # for the call, and none for its successor
    run = ordered_map(
        lambda i: stuck.wait() if i == 1 else i, range(9), concurrency=1, window=9, timeout=SHORT, on_error="skip"
    )
    results, error = until_error(run)
    assert results == [0]
    assert type(error) is RuntimeError
    assert "can't start new thread" in str(error)


# 20: serial


def test_g20_serial_runs_each_call_in_the_thread_of_the_consumer_when_it_is_delivered():
    called = Tally()
    threads = threading.active_count()

    def call(i):
        called.add(threading.get_ident())
        return i

    run = ordered_map(call, itertools.count(), executor="serial", window=10)
    for i in range(5):
        assert next(run) == i
        assert len(called) == i + 1
    assert set(called.seen) == {threading.get_ident()}
    assert threading.active_count() == threads


def test_g20_serial_accepts_what_the_others_accept():
    run = ordered_map(
        double, range(9), executor="serial", concurrency=5, window=7, chunksize=2, live=True, indexed=True, strict=True
    )
    assert list(run) == [(i, 2 * i) for i in range(9)]


def test_g20_serial_has_the_frames_of_the_consumer_below_those_of_fn():
    """So that a debugger's `up` leads there."""

    def call(i):
        names, frame = [], sys._getframe()
        while frame:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        return names

    (names,) = ordered_map(call, [0], executor="serial")
    assert "test_g20_serial_has_the_frames_of_the_consumer_below_those_of_fn" in names


# 21: context variables


word = contextvars.ContextVar("word", default="nothing")


def test_g21_context_variables_of_the_consumer_are_visible_in_fn(inside):
    token = word.set("hello")
    try:
        assert list(inside.map(lambda i: word.get(), range(50))) == ["hello"] * 50
    finally:
        word.reset(token)


def test_g21_the_context_is_that_of_the_first_next(inside):
    token = word.set("call")
    try:
        run = inside.map(lambda i: word.get(), range(60), window=4)
        word.set("first next")
        assert next(run) == "first next"
        word.set("later")
        assert list(run) == ["first next"] * 59
    finally:
        word.reset(token)


@pytest.mark.parametrize("chunksize", [None, 1, 10])
def test_g21_what_one_item_sets_no_other_item_sees(inside, chunksize):
    def call(i):
        before = word.get()
        word.set(i)
        return before, word.get()

    results = list(inside.map(call, range(300), concurrency=2, chunksize=chunksize))
    assert results == [("nothing", i) for i in range(300)]
    assert word.get() == "nothing"


def test_g21_a_failing_item_leaves_nothing_in_the_context_either(inside):
    def call(i):
        before = word.get()
        word.set(i)
        if i % 2:
            raise Oops
        return before

    assert list(inside.map(call, range(100), on_error="skip")) == ["nothing"] * 50


def test_g21_an_attempt_sees_nothing_of_the_one_before(inside):
    seen = []

    def call(i):
        seen.append(word.get())
        word.set("set")
        if len(seen) < 3:
            raise Oops
        return i

    assert list(inside.map(call, [1], on_error=retry(backoff=0))) == [1]
    assert seen == ["nothing"] * 3


def test_g21_policies_and_sources_see_the_context_of_the_consumer(pulling):
    heard = []
    token = word.set("hello")
    try:
        source = Source(range(4), lambda k: heard.append(word.get()))
        run = pulling.map(partial(fail_at, frozenset({2})), source, on_error=lambda failure: word.get())
        assert list(run) == [0, 2, "hello", 6]
    finally:
        word.reset(token)
    assert set(heard) == {"hello"}


# 22: nesting


SMALL = pytest.mark.parametrize("workers", [1, 2])


@SMALL
@pytest.mark.parametrize("depth", [2, 4])
def test_g22_runs_nest_on_one_executor_whose_workers_are_all_busy(workers, depth):
    with ThreadPoolExecutor(workers) as executor:

        def level(depth, x):
            if depth == 1:
                return x
            return sum(ordered_map(partial(level, depth - 1), range(3), executor=executor, concurrency=2)) + x

        expected = list(ordered_map(partial(level, depth), range(4), executor="serial"))
        run = ordered_map(partial(level, depth), range(4), executor=executor, concurrency=2)
        assert len(Background(list, run).result()) == len(expected)


@SMALL
@pytest.mark.parametrize("chunksize", [None, 1, 2])
def test_g22_nested_runs_give_the_right_results_on_a_busy_executor(workers, chunksize):
    with ThreadPoolExecutor(workers) as executor:

        def outer(i):
            inner = ordered_map(lambda j: 10 * i + j, range(20), executor=executor, window=4, chunksize=chunksize)
            return list(inner)

        run = ordered_map(outer, range(6), executor=executor, concurrency=3, window=5)
        assert Background(list, run).result() == [[10 * i + j for j in range(20)] for i in range(6)]


@SMALL
def test_g22_runs_nest_through_other_executors(workers):
    """A on the first, B on the second, C on the first again: B's own executor is idle, and C waits for A's worker."""
    with ThreadPoolExecutor(workers) as first, ThreadPoolExecutor(workers) as second:

        def a(i):
            return sum(ordered_map(b, range(3), executor=second, concurrency=2)) + i

        def b(i):
            return sum(ordered_map(same, range(3), executor=first, concurrency=2)) + i

        assert Background(list, ordered_map(a, range(4), executor=first, concurrency=2)).result() == [12, 13, 14, 15]


def test_g22_runs_nest_through_threads_of_our_own():
    with ThreadPoolExecutor(1) as executor:

        def a(i):
            return sum(ordered_map(b, range(3), concurrency=2)) + i

        def b(i):
            return sum(ordered_map(same, range(3), executor=executor, concurrency=2)) + i

        assert Background(list, ordered_map(a, range(4), executor=executor)).result() == [12, 13, 14, 15]


def test_g22_runs_nest_through_serial():
    with ThreadPoolExecutor(1) as executor:

        def a(i):
            return sum(ordered_map(b, range(3), executor="serial")) + i

        def b(i):
            return sum(ordered_map(same, range(3), executor=executor, concurrency=2)) + i

        assert Background(list, ordered_map(a, range(4), executor=executor)).result() == [12, 13, 14, 15]


def test_g22_runs_nest_on_every_driver(inside):
    executor = inside.executor(1)

    def outer(i):
        return sum(inside.map(same, range(10), executor=executor, concurrency=2, window=3)) + i

    run = inside.map(outer, range(10), executor=executor, concurrency=2, window=3)
    assert Background(list, run).result() == list(range(45, 55))


@SMALL
def test_g22_a_run_over_a_run_may_share_its_executor(workers):
    with ThreadPoolExecutor(workers) as executor:
        for settings in ({}, {"window": 1}, {"window": 3, "chunksize": 1}, {"live": True}):
            inner = ordered_map(double, range(50), executor=executor, concurrency=2, **settings)
            middle = ordered_map(double, inner, executor=executor, concurrency=2, **settings)
            outer = ordered_map(double, middle, executor=executor, concurrency=2, **settings)
            assert Background(list, outer).result() == list(range(0, 400, 8))


def test_g22_a_run_over_a_run_works_on_every_driver(inside):
    executor = inside.executor(1)
    inner = inside.map(double, range(50), executor=executor, concurrency=2)
    outer = inside.map(double, inner, executor=executor, concurrency=2)
    assert Background(list, outer).result() == list(range(0, 200, 4))


def test_g22_a_run_made_outside_may_be_consumed_inside_fn_on_the_same_executor():
    with ThreadPoolExecutor(1) as executor:
        inner = ordered_map(double, range(20), executor=executor, concurrency=2)
        outer = ordered_map(lambda i: next(inner), range(20), executor=executor, concurrency=1)
        assert Background(list, outer).result() == list(range(0, 40, 2))


def test_g22_a_nested_run_sees_errors_retries_and_deadlines_as_ever():
    with ThreadPoolExecutor(1) as executor:

        def outer(i):
            attempts = itertools.count()

            def flaky(j):
                if j == 1 and next(attempts) < 2:
                    raise Oops(j)
                return j

            settings = {"executor": executor, "concurrency": 2}
            assert list(ordered_map(flaky, range(4), on_error=retry(backoff=0.001), **settings)) == [0, 1, 2, 3]
            results, error = until_error(ordered_map(partial(fail_at, frozenset({2})), range(9), **settings))
            assert results == [0, 2]
            assert type(error) is Oops
            return i

        assert Background(list, ordered_map(outer, range(4), executor=executor)).result() == [0, 1, 2, 3]


def test_g22_a_nested_run_that_is_left_early_leaves_the_outer_one_alone():
    with ThreadPoolExecutor(1) as executor:

        def outer(i):
            with ordered_map(double, itertools.count(), executor=executor, concurrency=2, window=4) as run:
                return list(itertools.islice(run, 5))

        assert Background(list, ordered_map(outer, range(6), executor=executor)).result() == [[0, 2, 4, 6, 8]] * 6


def test_g22_a_nested_run_keeps_to_its_window_and_its_concurrency():
    with ThreadPoolExecutor(1) as executor:
        meter = Meter()

        def call(i):
            with meter:
                return i

        def outer(i):
            source = Source(range(30))
            results = list(source.watch(ordered_map(call, source, executor=executor, concurrency=1, window=3)))
            assert max(source.held) <= 3
            return results

        assert Background(list, ordered_map(outer, range(3), executor=executor)).result() == [list(range(30))] * 3


def test_g22_nested_runs_leave_the_executor_to_the_others():
    """The waiting run's item runs in a thread of its own, and is not run again by the executor."""
    called = Tally()
    with ThreadPoolExecutor(1) as executor:
        outer = ordered_map(
            lambda i: list(ordered_map(called.add, range(i, i + 5), executor=executor)),
            range(0, 50, 5),
            executor=executor,
        )
        Background(list, outer).result()
    assert sorted(called.seen) == list(range(50))


def test_g22_a_retried_item_of_a_nested_run_takes_no_worker_of_the_outer_one():
    with ThreadPoolExecutor(1) as executor:

        def outer(i):
            attempts = itertools.count()
            policy = lambda failure: Retry(after=0.01)
            call = lambda j: next(attempts) >= 2 or raise_oops()
            return list(ordered_map(call, range(3), executor=executor, on_error=policy))

        assert Background(list, ordered_map(outer, range(3), executor=executor)).result() == [[True] * 3] * 3


def raise_oops():
    raise Oops


# 23: several runs, several consumers, forks


def test_g23_several_runs_at_once_from_several_threads_are_independent(inside):
    executor = inside.executor(3)

    def consume(k):
        run = inside.map(lambda i: (k, i), range(300), concurrency=3, window=20, executor=executor)
        return list(run) == [(k, i) for i in range(300)]

    assert all(thread.result() for thread in [Background(consume, k) for k in range(8)])


def test_g23_several_runs_may_be_consumed_in_turns(inside):
    executor = inside.executor(2)
    runs = [inside.map(same, range(k, k + 50), concurrency=2, executor=executor) for k in range(5)]
    assert list(zip(*runs, strict=True)) == [(i, i + 1, i + 2, i + 3, i + 4) for i in range(50)]


@pytest.mark.drivers("no other task has its turn while a call blocks the loop", blocks=False)
def test_g23_a_second_consumer_gets_a_clear_error(inside):
    head, reached = Gate(), Gate()

    def call(i):
        reached.open()
        head.wait()
        return i

    run = inside.map(call, range(5))
    consumer = Background(list, run)
    reached.wait()
    absence(0.02)
    with pytest.raises((RuntimeError, ValueError)) as caught:
        next(run)
    assert len(str(caught.value)) > 15
    assert not isinstance(caught.value.__context__, StopIteration)
    head.open()
    assert consumer.result() == [0, 1, 2, 3, 4]


def test_g23_a_run_may_move_from_one_thread_to_another(kinds):
    run = kinds.map(double, range(30), window=5)
    results = []
    for _ in range(30):
        results.append(Background(next, run).result())
    assert results == list(range(0, 60, 2))


def test_g23_many_consumers_at_once_get_errors_and_never_a_wrong_order(overlapping):
    run = overlapping.map(same, range(500), window=10)

    def consume():
        results, errors = [], 0
        while True:
            try:
                results.append(next(run))
            except StopIteration:
                return results, errors
            except (RuntimeError, ValueError):
                errors += 1
                spend(0.0002)  # a thread that never waits would hold up all the others

    shares = [thread.result()[0] for thread in [Background(consume) for _ in range(4)]]
    assert all(share == sorted(share) for share in shares)
    assert sorted(itertools.chain(*shares)) == list(range(500))


def test_g23_next_from_inside_the_source_is_an_error(pulling):
    def source():
        yield 0
        yield next(run)

    run = pulling.map(double, source(), window=1)
    results, error = until_error(run)
    assert results == [0]
    assert isinstance(error, RuntimeError | ValueError)


def test_g23_next_from_inside_a_policy_is_an_error(inside):
    run = inside.map(partial(fail_at, frozenset({1})), range(5), on_error=lambda failure: next(run))
    results, error = until_error(run)
    assert results == [0]
    assert isinstance(error, RuntimeError | ValueError)


def test_g23_next_from_inside_fn_in_serial_is_an_error():
    run = ordered_map(lambda i: next(run), range(5), executor="serial")
    results, error = until_error(run)
    assert results == []
    assert isinstance(error, RuntimeError | ValueError)


FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # that this process has threads is the point
signal.alarm(20)

def call(i):
    if i == 0 and not "{executor}".endswith("'serial'"):
        full.wait(HANG_S)
    return 2 * i

full = threading.Event()
def source():
    for i in range(50):
        if i == 9:
            full.set()
        yield i
run = ordered_map(call, source(), window=10, concurrency=2, {executor})
results = [next(run)]
child = os.fork()
if not child:
    signal.alarm(5)
    try:
        {body}
    except BaseException as error:
        say("child", type(error).__name__, error)
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
say("status", status)
results += run
say("right", results == list(range(0, 100, 2)))
"""
FORKED = {
    "thread": "executor='thread'",
    "timeout": "executor='thread', timeout=60",
    "live": "executor='thread', live=True",
    "borrowed": "executor=ThreadPoolExecutor(2)",
    "callable": "executor=ThreadPoolExecutor",
    "serial": "executor='serial'",
}
WHAT_A_CHILD_MAY_DO = {
    "next": """
        for _ in range(2):
            try:
                next(run)
            except RuntimeError as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError("next worked")
""",
    "drop": "del run; gc.collect()",
    "next-and-drop": """
        try:
            next(run)
        except RuntimeError:
            pass
        del run
        gc.collect()
""",
    "close": "run.close()",
    "nothing": "pass",
    "own-run": "assert list(ordered_map(int, range(9))) == list(range(9))",
}


@posix
@pytest.mark.parametrize("executor", FORKED.values(), ids=FORKED)
@pytest.mark.parametrize("body", WHAT_A_CHILD_MAY_DO.values(), ids=WHAT_A_CHILD_MAY_DO)
def test_g23_in_a_forked_child_next_raises_and_nothing_disturbs_the_parent(executor, body):
    with Script(FORK.format(executor=executor, body=body.strip())) as process:
        process.end()
        assert process.err == ""
        assert process.lines == ["status 0", "right True"]


@posix
@pytest.mark.parametrize("executor", FORKED.values(), ids=FORKED)
def test_g23_a_forked_child_may_end_in_the_ordinary_way(executor):
    """With its exit hooks, and the run still there."""
    with Script(
        f"""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # that this process has threads is the point
signal.alarm(20)
run = ordered_map(lambda i: 2 * i, range(50), window=10, concurrency=2, {executor})
results = [next(run)]
child = os.fork()
if not child:
    signal.alarm(5)
    sys.exit(5)
_, status = os.waitpid(child, 0)
say("status", os.waitstatus_to_exitcode(status))
results += run
say("right", results == list(range(0, 100, 2)))
"""
    ) as process:
        process.end()
        assert process.err == ""
        assert process.lines == ["status 5", "right True"]
