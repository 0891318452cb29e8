"""`stats`, and the `repr` of a run."""

import itertools
import re
import time
from functools import partial

import pytest

from functions_for_workers import double, fail_at, same
from inturn import SKIP, Stats, ordered_map, retry
from waiting import SHORT, Background, Gate, Source, Tally, Watch, absence, primed, shown, spend, wait_until

COUNTS = ("pulled", "running", "waiting", "delivered", "failed", "skipped", "retried", "abandoned")
TIMES = ("elapsed", "busy", "blocked_on_head", "blocked_on_source", "blocked_on_consumer", "throttled")


def counts(run):
    stats = run.stats
    return {name: getattr(stats, name) for name in COUNTS if getattr(stats, name)}


def test_stats_are_zero_before_the_first_next(inside):
    run = inside.map(double, range(3))
    assert type(run.stats) is Stats
    assert counts(run) == {}
    assert all(getattr(run.stats, name) == 0 for name in TIMES)
    assert run.stats.total == 3


@pytest.mark.parametrize("window", [1, 5, 12, 30])
def test_stats_count_what_was_pulled_delivered_failed_and_skipped(driver, window):
    run = driver.map(partial(fail_at, frozenset({2, 7})), range(12), window=window, on_error="skip")
    assert len(list(run)) == 10
    assert counts(run) == {"pulled": 12, "delivered": 10, "failed": 2, "skipped": 2}


def test_stats_count_replaced_failures_as_delivered(driver):
    run = driver.map(partial(fail_at, frozenset({2, 7})), range(12), on_error="return")
    assert len(list(run)) == 12
    assert counts(run) == {"pulled": 12, "delivered": 12, "failed": 2}


def test_stats_count_own_answers(driver):
    run = driver.map(
        partial(fail_at, frozenset({2, 7})), range(12), on_error=lambda failure: SKIP if failure.index == 2 else 0
    )
    list(run)
    assert counts(run) == {"pulled": 12, "delivered": 11, "failed": 2, "skipped": 1}


def test_stats_count_the_failure_that_ended_the_run(driver):
    run = driver.map(partial(fail_at, frozenset({2})), range(3))
    with pytest.raises(Exception, match="no 2"):
        list(run)
    assert (run.stats.delivered, run.stats.failed) == (2, 1)


def test_stats_count_further_attempts_and_only_final_failures(inside):
    run = inside.map(partial(fail_at, frozenset({2, 7})), range(12), on_error=retry(attempts=4, backoff=0, then="skip"))
    list(run)
    assert counts(run) == {"pulled": 12, "delivered": 10, "failed": 2, "skipped": 2, "retried": 6}


def test_stats_tell_what_runs_and_what_waits_its_turn(overlapping):
    head, stuck, ended = Gate(), Gate(), Tally()

    def call(i):
        if i == 0:
            head.wait()
        elif i == 9:
            stuck.wait()
        return ended.add(i)

    run = overlapping.map(call, range(10), concurrency=2, window=10)
    consumer = Background(list, run)
    ended.wait(8)
    wait_until(lambda: run.stats.running == 2)
    wait_until(lambda: counts(run) == {"pulled": 10, "running": 2, "waiting": 8})
    head.open()
    wait_until(lambda: counts(run) == {"pulled": 10, "running": 1, "delivered": 9})
    stuck.open()
    assert consumer.result() == list(range(10))
    assert counts(run) == {"pulled": 10, "delivered": 10}


def test_stats_may_be_asked_for_from_any_thread_at_any_time(kinds):
    run = kinds.map(double, range(20_000), concurrency=3)
    stop, odd = Gate(), []

    def look():
        while not stop.is_open:
            stats = run.stats
            if (
                not 0 <= stats.delivered <= stats.pulled <= 20_000
                or stats.running > 3
                or not 0 <= stats.waiting <= 4096
            ):
                odd.append(stats)
            repr(run)
            spend(0.0005)  # a thread that never waits would hold up all the others

    lookers = [Background(look) for _ in range(2)]
    assert len(list(run)) == 20_000
    stop.open()
    for looker in lookers:
        looker.result()
    assert odd == []


def test_stats_may_be_asked_for_from_inside_a_call_a_policy_and_the_source(inside):
    seen = []

    def call(i):
        seen.append(run.stats)
        if i == 2:
            raise ValueError
        return i

    source = Source(range(5), lambda k: seen.append(run.stats))
    run = inside.map(call, source, on_error=lambda failure: seen.append(run.stats))
    list(run)
    assert len(seen) == 12
    assert all(type(stats) is Stats for stats in seen)


def test_stats_are_a_snapshot(driver):
    run = driver.map(double, range(5))
    next(run)
    before = run.stats
    list(run)
    assert before.delivered == 1
    assert run.stats.delivered == 5


def test_stats_stay_after_the_end(driver):
    run = driver.map(double, range(5))
    list(run)
    run.close()
    first = run.stats
    absence(0.02)
    assert counts(run) == {"pulled": 5, "delivered": 5}
    assert run.stats.elapsed == first.elapsed > 0


def test_stats_show_counts_then_times_in_milliseconds():
    values = dict.fromkeys(TIMES, 1 / 3) | {name: number for number, name in enumerate(COUNTS)} | {"total": None}
    stats = Stats(**values)
    assert repr(stats) == (
        "Stats(total=None, pulled=0, running=1, waiting=2, delivered=3, failed=4, skipped=5, retried=6, abandoned=7, "
        "elapsed=0.333, busy=0.333, blocked_on_head=0.333, blocked_on_source=0.333, blocked_on_consumer=0.333, "
        "throttled=0.333)"
    )
    assert stats.elapsed == 1 / 3
    assert stats == Stats(**values)
    assert stats != Stats(**values | {"busy": 0.333})


@pytest.mark.parametrize(
    ("source", "total"),
    [
        (range(7), 7),
        ([1, 2], 2),
        (iter(range(7)), 7),
        ((i for i in range(7)), None),
        (itertools.count(), None),
        ({}, 0),
    ],
    ids=shown,
)
def test_stats_know_the_total_as_far_as_the_source_does(source, total):
    assert ordered_map(double, source).stats.total == total


def test_stats_know_the_total_of_several_sources():
    assert ordered_map(pow, range(7), [1, 2, 3]).stats.total == 3


def test_stats_elapsed_counts_from_the_first_next(kinds):
    run = kinds.map(double, range(5))
    absence(0.1)
    begin = time.perf_counter()
    next(run)
    elapsed = run.stats.elapsed
    assert 0 < elapsed <= time.perf_counter() - begin
    with Watch() as later:
        absence(0.1)
    assert run.stats.elapsed - elapsed >= later.seconds * 0.99
    run.close()


def test_stats_tell_the_time_spent_waiting_for_the_head(apart):
    calls = Watch()

    def call(i):
        with calls:
            spend(SHORT / 2)

    run = apart.map(call, range(2), concurrency=1)
    with Watch() as all_of_it:
        list(run)
    stats = run.stats
    assert calls.seconds * 0.75 < stats.blocked_on_head <= all_of_it.seconds
    assert stats.blocked_on_source < stats.blocked_on_head / 2
    assert stats.blocked_on_consumer < stats.blocked_on_head / 2


def test_stats_tell_the_time_spent_waiting_for_the_source(apart):
    pulls = Watch()

    def on_pull(k):
        with pulls:
            spend(SHORT / 3)

    run = apart.map(double, Source(range(3), on_pull))
    with Watch() as all_of_it:
        list(run)
    stats = run.stats
    assert pulls.seconds * 0.75 < stats.blocked_on_source <= all_of_it.seconds
    assert stats.blocked_on_consumer < stats.blocked_on_source / 2


def test_stats_tell_the_time_spent_waiting_for_the_consumer(apart):
    run, _ = primed(apart, same, window=4)
    wait_until(lambda: run.stats.waiting == run.stats.pulled - run.stats.delivered)  # what is not begun is not running
    with Watch() as away:
        absence(SHORT / 2)
    next(run)
    stats = run.stats
    assert away.seconds * 0.75 < stats.blocked_on_consumer <= stats.elapsed
    run.close()


def test_stats_tell_how_busy_the_workers_were(apart):
    for count, window in ((8, 8), (3, 1)):
        calls = Watch()

        def call(i, calls=calls):
            with calls:
                spend(0.1)

        run = apart.map(call, range(count), concurrency=3, window=window)
        list(run)
        stats = run.stats
        spent = stats.busy * stats.elapsed * 3
        assert calls.seconds * 0.95 < spent < stats.elapsed * min(window, 3) * 1.05


def test_the_repr_of_a_run_shows_its_counts(driver):
    run = driver.map(double, range(7))
    assert re.match("<ordered_a?map of double: ", repr(run))
    next(run)
    next(run)
    assert re.search(r"\b2\b", repr(run))
    assert "delivered" in repr(run)
    list(run)
    assert re.search(r"\b7\b", repr(run))


def test_stats_of_a_run_that_was_closed_count_only_what_was_delivered(kinds):
    run = kinds.map(double, range(5000), concurrency=2)
    for _ in range(700):
        next(run)
    run.close()
    assert run.stats.delivered == 700


def test_stats_of_a_run_whose_results_are_held_count_only_what_was_delivered():
    """Tiny items are taken from the window by the chunk."""
    for settings in ({}, {"progress": lambda stats: None}, {"live": True}):
        run = ordered_map(double, range(5000), concurrency=2, **settings)
        most = 0
        for count in range(1, 5001):
            next(run)
            assert run.stats.delivered == count
            most = max(most, run.stats.waiting)
        assert most > 4  # there were some at which it could have gone wrong
