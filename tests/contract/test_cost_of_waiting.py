"""Guarantee 27, on threads: waiting costs no CPU."""

import itertools
from functools import partial

import pytest

from functions_for_workers import fail_at, same
from inturn import Retry, ordered_map
from waiting import HOUR, Background, Gate, Source, assert_waiting_costs_nothing, primed, wait_until

# 27, on threads: waiting costs no CPU


@pytest.mark.parametrize(
    "settings", [{}, {"timeout": HOUR}, {"deadline": HOUR}, {"timeout": HOUR, "deadline": HOUR}], ids=str
)
def test_g27_a_run_that_waits_for_slow_items_costs_no_cpu(apart, settings):
    stuck = Gate()
    run = apart.map(lambda i: stuck.wait(), itertools.count(), window=8, **settings)
    consumer = Background(next, run)
    wait_until(lambda: run.stats.running == 4)
    assert_waiting_costs_nothing()
    stuck.open()
    consumer.result()
    run.close()


def test_g27_a_run_that_waits_for_a_live_source_costs_no_cpu():
    more = Gate()

    def source():
        yield 1
        more.wait()

    run = ordered_map(same, source(), live=True)
    assert next(run) == 1
    consumer = Background(next, run, "over")
    assert_waiting_costs_nothing()
    more.open()
    assert consumer.result() == "over"


def test_g27_a_run_that_pauses_before_a_retry_costs_no_cpu(kinds):
    run = kinds.map(partial(fail_at, frozenset({0})), [0], on_error=lambda failure: Retry(after=HOUR))
    consumer = Background(next, run, "over")
    wait_until(lambda: run.stats.retried == 1)
    assert_waiting_costs_nothing()
    run.close()
    consumer.result()


def test_g27_a_run_whose_consumer_is_away_costs_no_cpu(apart):
    run, _ = primed(apart, same)
    wait_until(lambda: run.stats.running == 0)
    assert_waiting_costs_nothing()
    run.close()


def test_g27_a_run_behind_a_stuck_head_costs_no_cpu(apart):
    """Everything else has run, the window is full, and the deadline is far."""
    head, source = Gate(), Source(itertools.count())
    run = apart.map(lambda i: head.wait() if i == 0 else i, source, window=20, deadline=HOUR)
    consumer = Background(next, run)
    source.begun.wait(20)
    wait_until(lambda: run.stats.running == 1)
    assert_waiting_costs_nothing()
    head.open()
    consumer.result()
    run.close()
