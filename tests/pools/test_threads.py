"""Guarantees 19 and 28: threads of our own, started as items need them, their initializers and finalizers."""

import ast
import contextvars
import inspect
import itertools
import threading

import pytest

from drivers import DRIVERS, Runner
from functions_for_workers import Oops, double, same
from inturn import Threads, ordered_flat_map, ordered_map
from inturn._core.threads import CallThread
from inturn._pools.worker_threads import WorkerThread
from results import until_error
from waiting import HANG_S, SHORT, Gate, Tally, wait_until

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


def test_g28_when_the_slot_of_a_call_given_up_cannot_be_taken_the_run_ends_with_that_error(scarce):
    stuck = Gate()
    scarce(1)  # for the call, and none for its successor
    run = ordered_map(
        lambda i: stuck.wait() if i == 1 else i, range(9), concurrency=1, window=9, timeout=SHORT, on_error="skip"
    )
    results, error = until_error(run)
    assert results == [0]
    assert type(error) is RuntimeError
    assert "can't start new thread" in str(error)


@pytest.mark.parametrize("kind", [CallThread, WorkerThread])
def test_a_thread_of_ours_hides_no_attribute_that_threading_keeps_on_it(kind):
    """Python 3.14 has put its own context into `_context`."""
    tree = ast.parse(inspect.getsource(kind))
    ours = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    assert not ours & (vars(threading.Thread()).keys() | set(dir(threading.Thread)))
