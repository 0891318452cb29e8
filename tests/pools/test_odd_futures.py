"""Executors and futures that are odd: cancelled while they run, ended before they are asked, with results of their own."""

import gc
import pickle
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from inturn import Failure, ordered_map
from inturn._engine.chunk import Chunk
from inturn._pools.executors import ExecutorPool
from inturn._pools.submission import Submission
from waiting import SHORT, Background, Gate, wait_until

# ---- executors and futures that are odd ----------------------------------------------------------


class Chaining:
    """Its futures follow those of another executor, and can be cancelled while their calls run."""

    def __init__(self, executor):
        self.executor = executor
        self.futures = []

    def submit(self, fn, *args):
        outer = Future()
        self.futures.append(outer)
        inner = self.executor.submit(fn, *args)
        inner.add_done_callback(lambda done: outer.cancelled() or outer.set_result(done.result()))
        return outer


def test_g01_a_future_that_is_cancelled_while_its_call_runs_disorders_nothing():
    running, go = Gate(), Gate()

    def call(i):
        if i == 1:
            running.open()
            go.wait()
        return i * 10

    with ThreadPoolExecutor(2) as threads:
        executor = Chaining(threads)
        run = ordered_map(call, range(6), executor=executor, chunksize=3, concurrency=2, window=6)
        consumer = Background(lambda: list(run))
        running.wait()
        executor.futures[0].cancel()
        go.open()
        assert consumer.result() == [0, 10, 20, 30, 40, 50]


def test_g13_close_waits_for_a_call_whose_future_could_be_cancelled():
    running, go, ended = Gate(), Gate(), []

    def call(i):
        running.open()
        go.wait()
        ended.append(i)

    with ThreadPoolExecutor(2) as threads:
        executor = Chaining(threads)
        run = ordered_map(call, range(4), executor=executor, concurrency=1)
        consumer = Background(lambda: list(run))
        running.wait()
        wait_until(lambda: ["future" in submission.awaits for submission in run._run.job.pool._submissions] == [True])
        closer = Background(run.close)
        wait_until(lambda: executor.futures[0].cancelled())
        assert not ended
        go.open()
        closer.result()
        assert ended == [0]
        assert consumer.result() == []


def test_g13_a_future_that_ends_while_its_call_is_withdrawn(monkeypatch):
    """`close` has withdrawn it; before its next step the executor comes to the call, finds none, and ends the future."""
    started, go = Gate(), Gate()
    begin = Submission.begin

    class Late(ThreadPoolExecutor):
        def submit(self, fn):
            def call():
                started.open()
                go.wait()
                return fn()

            future = super().submit(call)
            futures.append(future)
            return future

    def begins(submission, state):
        mine = begin(submission, state)
        if mine and threading.current_thread() is threading.main_thread():
            go.open()
            wait_until(futures[0].done)
        return mine

    futures = []
    with Late(1) as executor:
        for limit in (0.05, 0.5, 5, 50):  # on a busy machine a deadline may be over before the call has begun
            futures.clear()
            run = ordered_map(abs, range(3), executor=executor, concurrency=1, deadline=limit)
            with pytest.raises(TimeoutError):
                next(run)
            if futures and not futures[0].cancel():
                break
        started.wait()
        monkeypatch.setattr(Submission, "begin", begins)
        run.close()
        assert not run._run.job.pool._submissions


class Dry:
    """It says that it is done, and has called nothing."""

    def submit(self, fn, *args):
        future = Future()
        future.set_result(None)
        return future


def test_g19_an_executor_that_does_not_make_the_call_costs_its_item():
    results = list(ordered_map(abs, [1, 2], executor=Dry(), on_error="return"))
    assert [type(each) for each in results] == [Failure, Failure]
    assert "not made the call" in str(results[0].error)


class RaisesLate:
    """Its `submit` raises when the call has been queued, as where no thread can be had."""

    def __init__(self, executor, bad, *, pickles=False):
        self.executor = executor
        self.bad = bad
        self.pickles = pickles
        self.count = 0

    def submit(self, fn, *args):
        if self.pickles:
            fn = pickle.loads(pickle.dumps(fn))
        future = self.executor.submit(fn, *args)
        self.count += 1
        if self.count == self.bad:
            future.result()
            raise RuntimeError("can't start new thread")
        return future


def test_g19_a_submit_that_raises_though_the_call_was_made_costs_no_permit():
    with ThreadPoolExecutor(1) as threads:
        executor = RaisesLate(threads, 1)  # later ones may be submitted by the thread that is to make the call
        assert list(ordered_map(abs, range(5), executor=executor, concurrency=1)) == [0, 1, 2, 3, 4]


def test_g25_a_submit_that_raises_after_it_has_pickled_the_call_ends_the_run():
    with ThreadPoolExecutor(1) as threads:
        executor = RaisesLate(threads, 1, pickles=True)
        with pytest.raises(RuntimeError, match="new thread"):
            list(ordered_map(abs, range(5), executor=executor, concurrency=1))


class Unwrapping(Future):
    def result(self, timeout=None):
        return super().result(timeout)


class OfItsOwn:
    """Its futures have a `result` of their own, though threads make the calls."""

    def __init__(self, executor):
        self.executor = executor

    def submit(self, fn, *args):
        future = Unwrapping()

        def work():
            future.set_running_or_notify_cancel()
            future.set_result(fn(*args))

        self.executor.submit(work)
        return future


def test_g17_a_limit_ends_the_wait_for_a_future_with_a_result_of_its_own():
    hold = Gate()
    with ThreadPoolExecutor(2) as threads:
        run = ordered_map(lambda _: hold.wait(), [1], executor=OfItsOwn(threads), timeout=SHORT, on_error="return")
        failure = next(run)
        assert isinstance(failure.error, TimeoutError)
        assert not hold.is_open
        hold.open()


def test_an_executor_that_is_made_needs_a_shutdown():
    with pytest.raises(TypeError, match="no shutdown"):
        list(ordered_map(abs, [1], executor=lambda _: Dry()))


class Landing(Submission):
    """Whoever looks at its future twice finds none the second time: it has landed in another thread meanwhile."""

    __slots__ = ("looks",)

    @property
    def future(self):
        return self.looks.pop()

    @future.setter
    def future(self, future):
        self.looks = [None, future]


def test_g13_a_submission_may_land_between_two_looks_at_its_future():
    with ThreadPoolExecutor(1) as threads:
        run = ordered_map(abs, [1], executor=threads)
        pool = run._run.job.pool
        ended, recalled = Landing(pool, Chunk(0, 1)), Landing(pool, Chunk(1, 1))
        ended.future, recalled.future = Future(), Future()
        assert recalled.recall()
        pool._submissions[ended] = None
        pool.retire()
        assert (len(recalled.looks), len(ended.looks)) == (1, 1)
        pool._submissions.clear()
        run.close()


def test_g13_a_call_whose_submit_returns_just_as_the_run_is_closed_is_cancelled(monkeypatch):
    entered, returns = Gate(), Gate()

    class Full:
        """An executor that comes to nothing, since its workers are busy for ever."""

        def submit(self, fn):
            entered.open()
            returns.wait()
            return Future()

    def retire_just_before(pool):
        retire(pool)
        returns.open()
        wait_until(lambda: all("future" in each.awaits or each.left.is_open for each in pool.slots()))

    retire = ExecutorPool.retire
    run = ordered_map(abs, range(3), executor=Full(), concurrency=1)
    consumer = Background(next, run, None)
    entered.wait()
    monkeypatch.setattr(ExecutorPool, "retire", retire_just_before)
    Background(run.close).result()
    assert consumer.result() is None


def test_g19_an_executor_is_let_go_of_though_the_last_call_ended_within_its_submit():
    class InPlace(ThreadPoolExecutor):
        """It makes a call in place if one of its own workers asks for it."""

        def submit(self, fn):
            if threading.current_thread() is consumer:
                return super().submit(fn)
            future = Future()
            future.set_running_or_notify_cancel()
            future.set_result(fn())
            return future

    def source():
        yield 0
        yield 1
        pulled.open()
        yield from range(2, 5)

    def call(x):
        if x == 0:
            pulled.wait()
        if x == 1:
            runs.open()
            ends.wait()

    consumer, pulled, runs, ends = threading.current_thread(), Gate(), Gate(), Gate()
    executor = InPlace(1)
    run = ordered_map(call, source(), executor=executor, concurrency=1, window=3)
    next(run)
    runs.wait()
    closing = Background(run.close)
    ends.open()
    closing.result()
    executor.shutdown()
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    wait_until(lambda: gone() is None)
