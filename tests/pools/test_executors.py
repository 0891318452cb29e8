"""Guarantee 19: executors of the user's, and callables that make one."""

import gc
import itertools
import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial

import pytest

from drivers import DuckExecutor
from functions_for_workers import Oops, double, fail_at, same
from inturn import ordered_map, retry
from results import until_error
from waiting import Background, Gate, Meter, Tally, absence, farewell, primed, shown, wait_until


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
def test_g19_an_executor_passed_in_is_never_shut_down(how):
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


def test_g19_calls_that_the_executor_has_not_begun_are_in_flight_too():
    queue = Tally()

    class Slow:
        """Begins no call by itself."""

        def submit(self, fn, *args):
            future = Future()
            queue.add((future, fn, args))
            return future

    run = Background(list, ordered_map(same, range(10), executor=Slow(), concurrency=3, chunksize=1, window=10))
    for number in range(10):
        queue.wait(min(10, number + 3))
        absence(0.02)
        assert len(queue) == min(10, number + 3)
        future, fn, args = queue.seen[number]
        future.set_running_or_notify_cancel()
        future.set_result(fn(*args))
    assert run.result() == list(range(10))


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


def test_g19_an_executor_is_released_when_the_run_is_over():
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
    wait_until(lambda: run.stats.waiting == 7)  # there is a moment between two calls, too
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
