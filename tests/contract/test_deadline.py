"""Guarantee 18: `deadline`."""

import itertools
from functools import partial

import pytest

from functions_for_workers import double, fail_at
from inturn import Retry, ordered_map
from inturn._core.consumer import Run
from waiting import HOUR, SHORT, Gate, Tally, absence, primed, spend, wait_until

# 18: deadline


def test_g18_a_deadline_ends_the_run_when_the_head_is_not_ready(apart):
    stuck = Gate()
    run = apart.map(lambda i: stuck.wait() if i == 2 else i, itertools.count(), window=5, deadline=SHORT)
    assert [next(run), next(run)] == [0, 1]
    with pytest.raises(TimeoutError):
        next(run)
    assert not stuck.is_open
    assert next(run, "over") == "over"
    stuck.open()
    run.close()


def test_g18_the_deadline_counts_from_the_first_next(kinds):
    run = kinds.map(double, range(3), deadline=SHORT)
    absence(1.5 * SHORT)
    assert list(run) == [0, 2, 4]


def test_g18_results_that_are_ready_are_still_delivered_after_the_deadline(apart):
    stuck, ended = Gate(), Tally()

    def call(i):
        if i == 5:
            stuck.wait()
        return ended.add(i)

    run, source = primed(apart, call, window=10, concurrency=2, deadline=SHORT)
    ended.wait(9)  # all but the stuck one
    wait_until(lambda: run.stats.running == 1)
    absence(SHORT)  # past the deadline
    pulls = source.pulls
    assert [next(run) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(TimeoutError):
        next(run)
    assert source.pulls == pulls
    assert next(run, "over") == "over"
    stuck.open()
    run.close()


def test_g18_nothing_is_pulled_or_started_after_the_deadline(apart):
    back, started = Gate(), Tally()

    def call(i):
        started.add(i)
        if i:
            back.wait()
        return i

    run, source = primed(apart, call, window=10, concurrency=2, deadline=HOUR)
    started.wait(3)
    engine = run._run if isinstance(run._run, Run) else run._run._run
    engine.hurry(0.0, "the deadline is over")
    absence(SHORT)  # what stands behind them in their chunks is taken back
    back.open()
    wait_until(lambda: run.stats.running == 0)
    pulls = source.pulls
    with pytest.raises(TimeoutError):
        for _ in run:
            pass
    run.close()
    assert len(started) == 3
    assert source.pulls == pulls


def test_g18_no_policy_applies_to_a_deadline(apart):
    stuck, asked = Gate(), []
    run = apart.map(lambda i: stuck.wait(), range(3), deadline=0.2, on_error=asked.append)
    with pytest.raises(TimeoutError):
        next(run)
    assert asked == []
    stuck.open()
    run.close()


def test_g18_a_deadline_holds_in_serial_between_calls():
    calls = Tally()
    run = ordered_map(lambda i: spend(0.3) or calls.add(i), itertools.count(), executor="serial", deadline=1.0)
    with pytest.raises(TimeoutError):
        list(run)
    assert 1 <= len(calls) <= 4
    assert next(run, "over") == "over"


def test_g18_a_deadline_ends_a_pause(kinds):
    run = kinds.map(partial(fail_at, frozenset({0})), [0], deadline=0.3, on_error=lambda failure: Retry(after=HOUR))
    with pytest.raises(TimeoutError):
        next(run)


def test_g18_a_deadline_ends_endless_retries(kinds):
    run = kinds.map(partial(fail_at, frozenset({0})), [0], deadline=0.2, on_error=lambda failure: Retry(after=0))
    with pytest.raises(TimeoutError):
        next(run)


def test_g18_a_deadline_is_raised_while_a_live_source_blocks(apart):
    more = Gate()

    def source():
        yield 1
        more.wait()

    run = apart.map(double, source(), live=True, deadline=SHORT)
    assert next(run) == 2
    with pytest.raises(TimeoutError):
        next(run)
    assert not more.is_open


def test_g18_a_deadline_that_is_met_changes_nothing(kinds):
    assert list(kinds.map(double, range(500), deadline=HOUR)) == list(range(0, 1000, 2))


def test_g18_timeout_and_deadline_go_together(refilling):
    stuck = Gate()
    run = refilling.map(
        lambda i: stuck.wait() if i in {1, 5} else i, range(9), window=9, timeout=SHORT, deadline=HOUR, on_error="skip"
    )
    assert list(run) == [0, 2, 3, 4, 6, 7, 8]
