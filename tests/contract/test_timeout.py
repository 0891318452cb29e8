"""Guarantee 17: `timeout`."""

import sys
import threading
from functools import partial

import pytest

from functions_for_workers import Oops, double, fail_at, same
from inturn import ordered_map, retry, sentinel
from waiting import HANG_S, HOUR, SHORT, Background, Gate, Meter, Tally, Watch, absence, primed, spend, wait_until

SIXTH = SHORT / 6  # seconds: a call well below the time limit, of which a handful together are above it
HANDFUL = 7


# 17: timeout


@pytest.mark.waits
@pytest.mark.parametrize("window", [2, 6, 30])
def test_g17_an_item_that_runs_longer_fails_with_timeout_error_in_its_turn(apart, window):
    stuck = Gate()

    def call(i):
        if i == 3:
            stuck.wait()
        return i

    with Watch() as watch:
        run = apart.map(call, range(6), window=window, timeout=SHORT)
        assert [next(run), next(run), next(run)] == [0, 1, 2]
        with pytest.raises(TimeoutError) as caught:
            next(run)
    assert watch.seconds >= SHORT * 0.99  # a clock that is read twice may be rounded
    assert not stuck.is_open
    assert any(note.startswith("item 3: ") for note in caught.value.__notes__)
    assert next(run, "over") == "over"
    stuck.open()
    run.close()


@pytest.mark.waits
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("skip", [0, 1, 3, 4]),
        (sentinel("late"), [0, 1, "late", 3, 4]),
        (lambda failure: failure.index, [0, 1, 2, 3, 4]),
    ],
    ids=["skip", "sentinel", "own"],
)
def test_g17_a_timeout_goes_through_the_policy(apart, policy, expected):
    stuck = Gate()
    run = apart.map(lambda i: stuck.wait() if i == 2 else i, range(5), timeout=SHORT, on_error=policy)
    assert list(run) == expected
    assert not stuck.is_open


def test_g17_the_failure_of_a_timeout_says_how_long_it_took(apart):
    stuck = Gate()
    run = apart.map(lambda i: stuck.wait() if i == 1 else i, range(3), timeout=SHORT, on_error="return")
    with Watch() as watch:
        results = list(run)
    failure = results[1]
    assert type(failure.error) is TimeoutError
    assert (failure.index, failure.item, failure.attempt) == (1, 1, 1)
    assert SHORT * 0.99 <= failure.elapsed <= watch.seconds


def test_g17_the_clock_starts_when_a_worker_takes_the_item_and_not_in_the_queue(apart):
    def call(i):
        spend(SIXTH)
        return i

    run = apart.map(call, range(HANDFUL), concurrency=1, window=HANDFUL, timeout=SHORT)
    with Watch() as watch:
        assert list(run) == list(range(HANDFUL))
    assert watch.seconds > SHORT


def test_g17_the_queue_of_an_executor_passed_in_does_not_count():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor:
        busy = Gate()
        blocker = executor.submit(busy.wait)
        run = ordered_map(double, range(3), executor=executor, timeout=SHORT)
        consumer = Background(list, run)
        absence(1.5 * SHORT)
        busy.open()
        assert consumer.result() == [0, 2, 4]
        blocker.result()


@pytest.mark.drivers("no timeout in turn", concurrent=True)
def test_g17_the_time_of_the_consumer_does_not_count(kinds):
    for result in kinds.map(same, range(3), window=3, timeout=SHORT):
        if result == 0:
            absence(1.5 * SHORT)  # the others are ready, and older than the timeout


def test_g17_the_clock_of_an_item_is_its_own_and_not_its_chunk_mates(apart):
    for settings in ({}, {"chunksize": HANDFUL}):
        items = range(2 * HANDFUL)
        run = apart.map(lambda i: spend(SIXTH) or i, items, concurrency=2, window=len(items), timeout=SHORT, **settings)
        with Watch() as watch:
            assert list(run) == list(items)
        assert watch.seconds > SHORT


def test_g17_a_chunk_mate_of_a_stuck_item_is_not_lost(refilling):
    stuck = Gate()
    run = refilling.map(
        lambda i: stuck.wait() if i == 2 else i, range(12), concurrency=1, chunksize=6, timeout=SHORT, on_error="skip"
    )
    assert list(run) == [0, 1, *range(3, 12)]
    assert not stuck.is_open


def test_g17_a_stuck_item_deep_in_a_run_of_tiny_ones_costs_itself_only(refilling):
    stuck = Gate()
    run = refilling.map(
        lambda i: stuck.wait() if i == 1500 else i, range(2000), concurrency=2, timeout=SHORT, on_error="skip"
    )
    assert list(run) == [i for i in range(2000) if i != 1500]
    assert not stuck.is_open


def test_g17_the_slot_of_an_item_given_up_is_taken_by_a_new_thread(refilling):
    stuck = Gate()
    run = refilling.map(
        lambda i: stuck.wait() if i % 3 == 0 else i, range(6), concurrency=1, window=4, timeout=SHORT, on_error="skip"
    )
    assert list(run) == [1, 2, 4, 5]
    assert not stuck.is_open
    assert run.stats.abandoned == 2


def test_g17_the_slot_is_taken_also_while_the_consumer_is_away(refilling):
    stuck, ended = Gate(), Tally()

    def call(i):
        if i == 1:
            stuck.wait()
        return ended.add(i)

    run, _ = primed(refilling, call, window=6, concurrency=1, timeout=SHORT, on_error="skip")
    assert sorted(ended.wait(5))[:5] == [0, 2, 3, 4, 5]
    assert not stuck.is_open
    run.close()


def test_g17_a_call_given_up_does_not_count_as_concurrency(refilling):
    stuck, meter = Gate(), Meter()
    meeting = threading.Barrier(2)

    def call(i):
        if i < 2:
            stuck.wait()
            return i
        with meter:
            meeting.wait(HANG_S)
        return i

    run = refilling.map(call, range(8), concurrency=2, window=8, timeout=SHORT, on_error="skip")
    assert list(run) == [2, 3, 4, 5, 6, 7]
    assert meter.peak == 2
    stats = run.stats
    assert (stats.abandoned, stats.running) == (2, 0)


@pytest.mark.waits
@pytest.mark.parametrize("how", ["result", "error"])
def test_g17_what_a_call_given_up_comes_to_later_is_dropped(refilling, how):
    late, ended = Gate(), Tally()

    def call(i):
        if i == 1:
            late.wait()
            ended.add("late")
            if how == "error":
                raise Oops
            return "late"
        return i

    def policy(failure):
        late.open()
        ended.wait(1)
        absence(0.02)  # it may take a moment to come back from the call
        return type(failure.error)

    run = refilling.map(call, range(8), concurrency=2, window=4, timeout=SHORT, on_error=policy)
    assert list(run) == [0, TimeoutError, 2, 3, 4, 5, 6, 7]
    assert (run.stats.failed, run.stats.abandoned, run.stats.delivered) == (1, 1, 8)


def test_g17_an_item_given_up_may_be_retried(refilling):
    stuck, attempts = Gate(), Tally()

    def call(i):
        attempts.add(i)
        if i == 1 and attempts.seen.count(1) < 2:
            stuck.wait()
        return i

    run = refilling.map(
        call, range(3), concurrency=2, timeout=SHORT, on_error=retry(attempts=3, on=TimeoutError, backoff=0)
    )
    assert list(run) == [0, 1, 2]
    assert attempts.seen.count(1) == 2
    assert (run.stats.abandoned, run.stats.retried, run.stats.failed) == (1, 1, 0)


def test_g17_a_pause_between_attempts_does_not_count(apart):
    attempts = Tally()

    def call(i):
        attempts.add(i)
        if len(attempts) < 2:
            raise Oops
        return i

    run = apart.map(call, [7], timeout=SHORT, on_error=retry(backoff=1.5 * SHORT, factor=1, jitter=False))
    assert list(run) == [7]


@pytest.mark.parametrize("name", ["borrowed", "duck"])
def test_g17_on_an_executor_passed_in_the_slot_stays_taken(name):
    from drivers import DRIVERS, Runner

    runner = Runner(next(d for d in DRIVERS if d.name == name))
    stuck, meter = Gate(), Meter()

    def call(i):
        with meter:
            if i == 1:
                stuck.wait()
            return i

    run = runner.map(call, range(10), concurrency=2, window=4, timeout=SHORT, on_error="skip")
    assert list(run) == [0, 2, 3, 4, 5, 6, 7, 8, 9]
    assert not stuck.is_open
    assert meter.peak <= 2
    assert run.stats.abandoned == 1
    runner.end()


def test_g17_timeouts_are_refused_in_serial():
    with pytest.raises(ValueError, match="timeout"):
        ordered_map(double, range(3), executor="serial", timeout=1.0)


def test_g17_an_item_within_its_timeout_is_delivered_as_ever(apart):
    assert list(apart.map(double, range(2000), timeout=HOUR)) == list(range(0, 4000, 2))


def test_g17_many_items_may_time_out_at_once(refilling):
    stuck = Gate()
    soon = SHORT / 10  # no call can be in time
    run = refilling.map(lambda i: stuck.wait(), range(12), concurrency=6, window=12, timeout=soon, on_error="return")
    assert [type(failure.error) for failure in run] == [TimeoutError] * 12
    assert not stuck.is_open
    assert run.stats.abandoned == 12


# 17, 18: any finite number of seconds


@pytest.mark.drivers("no timeout in turn", concurrent=True)
@pytest.mark.parametrize("seconds", [2.2e6, 1e10, sys.float_info.max])
@pytest.mark.parametrize("option", ["timeout", "deadline"])
def test_g17_any_finite_number_of_seconds_is_a_limit(driver, option, seconds):
    run = driver.map(double, range(9), window=3, **{option: seconds})
    assert list(run) == [*range(0, 18, 2)]


@pytest.mark.drivers("a serial call runs within `next`, which then waits", concurrent=True)
@pytest.mark.parametrize("seconds", [2.2e6, 1e10, sys.float_info.max])
def test_g17_any_finite_number_of_seconds_is_a_pause(driver, seconds):
    policy = retry(2, backoff=seconds, max_backoff=seconds, jitter=False)
    fn = partial(fail_at, frozenset({2}))
    run = driver.map(fn, range(9), window=3, on_error=policy)
    assert [next(run), next(run)] == [0, 2]
    wait_until(lambda: run.stats.retried == 1)
    run.close()
