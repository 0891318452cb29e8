"""Guarantees 9 and 10: what ends a run, and errors of its source."""

import itertools
from functools import partial

import pytest

import functions_for_workers as calls
from functions_for_workers import Oops, double, fail_at, pair
from inturn import retry, sentinel
from results import until_error
from waiting import Background, Gate, Source, Tally, absence, wait_until

ITEMS = 12


# 9: the end of a run


def test_g09_once_a_run_has_ended_next_raises_stop_iteration(driver):
    run = driver.map(partial(fail_at, frozenset({2})), range(5))
    until_error(run)
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(run)
    assert list(run) == []


def test_g09_once_a_failure_is_known_nothing_later_is_started(overlapping):
    head, started = Gate(), Tally()

    def call(i):
        started.add(i)
        if i == 0:
            head.wait()
        elif i == 1:
            raise Oops(i)
        return i

    source = Source(range(100))
    run = overlapping.map(call, source, concurrency=2, window=10)
    consumer = Background(until_error, run)
    started.wait(2)
    wait_until(lambda: run.stats.running == 1)  # the head alone: the failure is known
    absence()
    head.open()
    results, error = consumer.result()
    assert results == [0]
    assert error.args == (1,)
    assert sorted(started.seen) == [0, 1]


def test_g09_once_a_failure_is_known_nothing_later_is_pulled(overlapping):
    head, begun, failing, known = Gate(), Tally(), Gate(), Gate()

    def call(i):
        begun.add(i)
        if i == 0:
            head.wait()
        elif i == 1:
            failing.wait()
            raise Oops(i)
        return i

    def on_pull(k):
        if k == 5:
            begun.wait(2)
            failing.open()
            wait_until(lambda: run.stats.running == 1)  # the head alone
            known.open()
        elif k > 5:
            head.open()

    source = Source(itertools.count(), on_pull)
    run = overlapping.map(call, source, concurrency=2, window=1000)
    consumer = Background(until_error, run)
    known.wait()
    absence()
    pulls = source.pulls
    head.open()
    results, error = consumer.result()
    assert results == [0]
    assert error.args == (1,)
    assert pulls == source.pulls == 6


def test_g09_items_before_a_known_failure_are_still_run(overlapping):
    failed = Gate()

    def call(i):
        if i == 0:
            failed.wait()
        if i == 5:
            failed.open()
            raise Oops(i)
        return i

    results, error = until_error(overlapping.map(call, range(50), concurrency=2, window=20))
    assert results == [0, 1, 2, 3, 4]
    assert error.args == (5,)


def test_g09_an_earlier_item_is_still_retried_after_a_later_one_has_failed_for_good(overlapping):
    failed, attempts = Gate(), Tally()

    def call(i):
        attempts.add(i)
        if i == 0 and attempts.seen.count(0) < 3:
            failed.wait()
            raise ConnectionError
        if i == 1:
            failed.open()
            raise Oops(i)
        return i

    policy = retry(attempts=5, on=ConnectionError, backoff=0.01)
    results, error = until_error(overlapping.map(call, range(50), concurrency=2, window=20, on_error=policy))
    assert results == [0]
    assert error.args == (1,)
    assert attempts.seen.count(0) == 3


def test_g09_an_error_is_raised_at_once_though_later_calls_still_run(overlapping):
    later = Gate()

    def call(i):
        if i == 0:
            started.wait(1)
            raise Oops(i)
        started.add(i)
        later.wait()

    started = Tally()
    run = overlapping.map(call, range(10), concurrency=2, window=4)
    _, error = until_error(run)
    assert error.args == (0,)
    assert not later.is_open
    later.open()
    run.close()


# 10: an error of the source


class Sour:
    """A source that gives `n` items and then an error."""

    def __init__(self, n, error):
        self.items, self.error = iter(range(n)), error

    def __iter__(self):
        return self

    def __next__(self):
        for item in self.items:
            return item
        raise self.error


@pytest.mark.parametrize("policy", ["raise", "skip", "return", sentinel(None), retry(backoff=0), lambda failure: None])
def test_g10_an_error_of_the_source_surfaces_in_its_turn_and_no_policy_applies_to_it(driver, window, policy):
    error = Oops("source")
    run = driver.map(double, Sour(7, error), window=window, on_error=policy)
    results, raised = until_error(run)
    assert results == [0, 2, 4, 6, 8, 10, 12]
    assert raised is error
    assert next(run, "over") == "over"


@pytest.mark.parametrize("kind", [calls.Falsy, calls.Empty])
def test_g10_an_error_of_the_source_may_be_falsy(driver, window, kind):
    results, raised = until_error(driver.map(double, Sour(7, kind()), window=window))
    assert results == [0, 2, 4, 6, 8, 10, 12]
    assert type(raised) is kind


def test_g10_an_error_of_the_source_waits_for_calls_that_still_run(overlapping):
    raised = Gate()

    def source():
        yield 0
        yield 1
        raised.open()
        raise Oops("source")

    def call(i):
        raised.wait()
        return i

    results, error = until_error(overlapping.map(call, source(), window=8))
    assert results == [0, 1]
    assert error.args == ("source",)


def test_g10_a_failing_item_before_the_error_of_the_source_comes_first(driver):
    results, error = until_error(driver.map(partial(fail_at, frozenset({3})), Sour(5, ValueError("source")), window=30))
    assert results == [0, 2, 4]
    assert type(error) is Oops


def test_g10_an_error_of_the_second_source_counts_too(driver):
    results, error = until_error(driver.map(pair, range(9), Sour(2, Oops("source"))))
    assert results == [(0, 0), (1, 1)]
    assert type(error) is Oops


def test_g10_the_source_is_not_pulled_again_after_its_error(inside):
    source = Source(Sour(3, Oops("source")))
    until_error(inside.map(double, source, window=30))
    assert source.pulls == 4


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, BaseException])
def test_g10_any_other_exception_out_of_a_pull_ends_the_run_at_once(overlapping, kind):
    head, error = Gate(), kind("pull")
    run = overlapping.map(lambda i: head.wait(), Sour(3, error), window=8, on_error="skip")
    results, raised = until_error(run)
    assert results == []
    assert raised is error
    assert not head.is_open
    assert next(run, "over") == "over"
    head.open()
    run.close()


def test_g10_an_error_of_iter_is_raised_at_the_call(driver):
    class Never:
        def __iter__(self):
            raise Oops("iter")

    with pytest.raises(Oops, match="iter"):
        driver.map(double, Never())
