"""Further attempts: the answer `Retry` and the policy `retry`."""

import itertools
import random
import time
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from functions_for_workers import Oops, double, fail_at
from inturn import SKIP, Retry, ordered_map, retry, sentinel
from waiting import HOUR, Background, Gate, Source, Tally, Watch, absence, wait_until

ITEMS = 12
BAD = frozenset({0, 4, 5, 11})
call = partial(fail_at, BAD)


def times(attempts_needed, log=None):
    """A function that fails until the attempt, per item, that it needs."""
    attempts = Counter()

    def flaky(i):
        attempts[i] += 1
        if log is not None:
            log.add((i, attempts[i]))
        if attempts[i] < attempts_needed:
            raise ConnectionError(f"attempt {attempts[i]} of {i}")
        return 2 * i

    return flaky


# Retry


@pytest.mark.parametrize("after", [0, 0.01])
def test_retry_runs_the_item_again(inside, window, after):
    attempts = []

    def policy(failure):
        attempts.append((failure.index, failure.attempt))
        return Retry(after=after)

    assert list(inside.map(times(3), range(4), window=window, on_error=policy)) == [0, 2, 4, 6]
    assert sorted(attempts) == [(i, attempt) for i in range(4) for attempt in (1, 2)]


def test_retry_without_argument_runs_the_item_again_at_once(inside):
    assert list(inside.map(times(2), range(4), on_error=lambda failure: Retry())) == [0, 2, 4, 6]


def test_retry_waits_as_long_as_it_says(kinds):
    began = []

    def late(i):
        began.append(time.monotonic())
        if len(began) < 3:
            raise Oops
        return i

    assert list(kinds.map(late, [1], on_error=lambda failure: Retry(after=0.1))) == [1]
    assert all(later - earlier >= 0.099 for earlier, later in itertools.pairwise(began))


def test_retry_and_other_answers_may_alternate(inside):
    def policy(failure):
        if failure.attempt < 3:
            return Retry(after=0)
        return SKIP if failure.index % 2 else f"gave up {failure.index} after {failure.attempt}"

    run = inside.map(partial(fail_at, frozenset({1, 2})), range(4), on_error=policy)
    assert list(run) == [0, "gave up 2 after 3", 6]


def test_retry_refuses_a_negative_pause():
    with pytest.raises(ValueError, match=r"after.*0.*-1|after.*-1.*0"):
        Retry(after=-1)


# retry


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_retry_policy_delivers_what_a_later_attempt_returns(inside, window, chunksize):
    run = inside.map(
        times(3), range(ITEMS), window=max(window, chunksize or 1), chunksize=chunksize, on_error=retry(backoff=0.001)
    )
    assert list(run) == [2 * i for i in range(ITEMS)]
    assert run.stats.retried == 2 * ITEMS
    assert run.stats.failed == 0


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_retry_policy_gives_up_after_so_many_attempts(inside, attempts):
    log = Tally()
    with pytest.raises(ConnectionError, match=f"attempt {attempts} of 3"):
        list(inside.map(times(99, log), [3], on_error=retry(attempts=attempts, backoff=0)))
    assert log.seen == [(3, n + 1) for n in range(attempts)]


@pytest.mark.parametrize(
    ("then", "answer"),
    [("skip", []), (sentinel("gone"), ["gone"] * 3), (lambda failure: failure.attempt, [2, 2, 2])],
    ids=["skip", "sentinel", "own"],
)
def test_retry_policy_hands_over_to_the_policy_then(inside, then, answer):
    assert list(inside.map(times(99), range(3), on_error=retry(attempts=2, backoff=0, then=then))) == answer


def test_retry_policy_hands_the_last_failure_to_the_policy_then(inside):
    results = list(inside.map(times(99), range(3), on_error=retry(attempts=4, backoff=0, then="return")))
    assert [(f.index, f.attempt, str(f.error)) for f in results] == [(i, 4, f"attempt 4 of {i}") for i in range(3)]


def test_retry_policies_may_be_chained(inside):
    """Attempts are counted per item, so the second policy's count includes those of the first."""
    log = Tally()
    policy = retry(attempts=2, backoff=0, then=retry(attempts=4, backoff=0, then="skip"))
    assert list(inside.map(times(99, log), [3], on_error=policy)) == []
    assert len(log) == 4


@pytest.mark.parametrize("on", [ConnectionError, (KeyError, ConnectionError), OSError, Exception])
def test_retry_policy_tries_again_on_the_errors_it_is_for(inside, on):
    assert list(inside.map(times(3), range(3), on_error=retry(on=on, backoff=0))) == [0, 2, 4]


@pytest.mark.parametrize("on", [KeyError, (KeyError, ValueError), ()])
def test_retry_policy_hands_over_other_errors_at_once(inside, on):
    log = Tally()
    assert (
        list(inside.map(times(3, log), range(3), on_error=retry(on=on, backoff=0, then=sentinel("no")))) == ["no"] * 3
    )
    assert [attempt for _, attempt in log.seen] == [1, 1, 1]


def test_retry_policy_begins_with_the_pause_that_is_given():
    policy = retry(backoff=0.5, factor=3.0, jitter=False)
    assert [policy.pause(attempt) for attempt in (1, 2, 3)] == [0.5, 1.5, 4.5]


def test_retry_policy_pauses_grow_by_the_factor(kinds):
    began = []

    def late(i):
        began.append(time.monotonic())
        if len(began) < 4:
            raise Oops
        return i

    policy = retry(attempts=4, backoff=0.05, factor=2, jitter=False)
    assert list(kinds.map(late, [1], on_error=policy)) == [1]
    pauses = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert all(pause >= least for pause, least in zip(pauses, (0.049, 0.099, 0.199), strict=True))


def test_retry_policy_pauses_are_never_longer_than_max_backoff(inside):
    """The fourth would last for months."""
    policy = retry(attempts=6, backoff=0.01, factor=1000, max_backoff=0.02)
    assert list(inside.map(times(6), [1], on_error=policy)) == [2]


def test_retry_policy_may_be_as_patient_as_one_likes(kinds):
    """The pause grows past what a float can hold."""
    policy = retry(attempts=500, backoff=0.0001, factor=10.0, max_backoff=0.0001)
    assert list(kinds.map(times(400), [1], on_error=policy)) == [2]


def test_retry_policy_pauses_of_several_items_overlap(apart):
    """One worker: it gets to every item before the first pause is over."""
    log = Tally()
    pause = 1.0
    policy = retry(attempts=2, backoff=pause, jitter=False)
    with Watch() as watch:
        run = apart.map(times(2, log), range(8), concurrency=1, window=8, on_error=policy)
        assert list(run) == list(range(0, 16, 2))
    assert pause * 0.99 <= watch.seconds < pause * 8  # as long as one of them lasts, not all of them
    assert [attempt for _, attempt in log.seen] == [1] * 8 + [2] * 8


def test_retry_policy_decides_while_the_consumer_waits_for_an_earlier_item(overlapping):
    head, log = Gate(), Tally()
    flaky = times(2, log)

    def call(i):
        if i == 0:
            head.wait()
            return 0
        return flaky(i)

    run = overlapping.map(call, range(4), concurrency=2, window=4, on_error=retry(backoff=0.01))
    consumer = Background(list, run)
    log.wait(6)  # both attempts of the others, though the head is stuck
    assert not head.is_open
    head.open()
    assert consumer.result() == [0, 2, 4, 6]


def test_retry_policy_decides_while_the_consumer_is_away(overlapping):
    log, full = Tally(), Gate()
    source = Source(range(6), lambda k: full.open() if k == 5 else None)
    flaky = times(2, log)

    def call(i):
        if i == 0:
            full.wait()
            return 0
        return flaky(i)

    run = overlapping.map(call, source, concurrency=2, window=6, on_error=retry(backoff=0.01))
    assert next(run) == 0
    log.wait(10)
    assert list(run) == [2, 4, 6, 8, 10]


def test_a_pausing_item_occupies_no_worker(apart):
    log = Tally()
    flaky = times(2)

    def call(i):
        log.add(i)
        return flaky(i) if i == 0 else 2 * i

    policy = retry(backoff=HOUR, max_backoff=HOUR, jitter=False)
    run = apart.map(call, range(6), concurrency=1, window=6, on_error=policy)
    consumer = Background(next, run, "over")
    assert log.wait(6) == [0, 1, 2, 3, 4, 5]  # while the first one pauses
    run.close()
    assert consumer.result() == "over"


def test_a_pausing_item_keeps_its_place_in_the_window(apart):
    paused, source = Tally(), Source(itertools.count())
    flaky = times(2)

    def call(i):
        paused.add(i)
        return flaky(i) if i == 0 else 2 * i

    policy = retry(backoff=HOUR, max_backoff=HOUR, jitter=False)
    run = apart.map(call, source, window=5, on_error=policy)
    consumer = Background(next, run, "over")
    assert set(paused.wait(5)) == {0, 1, 2, 3, 4}
    absence(0.05)
    assert source.pulls == len(paused) == 5
    run.close()
    assert consumer.result() == "over"


def test_a_pausing_item_is_not_running(inside):
    run = inside.map(times(99), [1], on_error=retry(backoff=HOUR, max_backoff=HOUR, jitter=False))
    consumer = Background(next, run, "over")
    wait_until(lambda: run.stats.retried == 1)
    wait_until(lambda: run.stats.running == 0)
    run.close()
    assert consumer.result() == "over"


@pytest.mark.parametrize("share", [0.0, 1e-6])
def test_retry_policy_with_jitter_pauses_at_random_but_no_longer(kinds, monkeypatch, share):
    """As long as the dice say: the pause without jitter would last for an hour."""
    asked = []

    def uniform(least, most):
        asked.append((least, most))
        return share

    monkeypatch.setattr(random, "uniform", uniform)
    policy = retry(backoff=HOUR, max_backoff=HOUR, jitter=True)
    assert list(kinds.map(times(3), [1], on_error=policy)) == [2]
    assert len(asked) == 2
    assert all(0 <= least < most <= 1 for least, most in asked)


def test_retry_policy_may_serve_many_runs_at_once(inside):
    policy = retry(attempts=3, backoff=0.001)
    runs = [inside.map(times(3), range(10), on_error=policy) for _ in range(4)]
    assert list(zip(*runs, strict=True)) == [(2 * i,) * 4 for i in range(10)]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"attempts": 0}, ValueError),
        ({"attempts": -1}, ValueError),
        ({"attempts": True}, TypeError),
        ({"attempts": 2.0}, TypeError),
        ({"backoff": -0.1}, ValueError),
        ({"factor": 0.5}, ValueError),
        ({"jitter": 1}, TypeError),
        ({"backoff": "1"}, TypeError),
        ({"max_backoff": -1}, ValueError),
        ({"then": "ignore"}, ValueError),
        ({"then": 5}, TypeError),
        ({"on": "ValueError"}, TypeError),
        ({"on": ValueError()}, TypeError),
    ],
    ids=str,
)
def test_retry_refuses_at_the_call_what_it_cannot_do(arguments, kind):
    with pytest.raises(kind) as caught:
        retry(**arguments)
    ((name, value),) = arguments.items()
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)


def test_double_is_not_asked():
    """A run without failures asks no policy."""
    asked = []
    assert list(ordered_map(double, range(9), on_error=asked.append)) == list(range(0, 18, 2))
    assert asked == []


# numbers of other libraries


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, Fraction, Decimal])
def test_retry_takes_numbers_of_other_libraries(kind):
    policy = retry(attempts=np.int64(4), backoff=kind(2), factor=kind(3), max_backoff=kind(5), jitter=False)
    assert [policy.pause(attempt) for attempt in (1, 2, 3)] == [2.0, 5.0, 5.0]
    assert repr(policy) == "retry(attempts=4, backoff=2.0, factor=3.0, jitter=False, max_backoff=5.0)"
    assert Retry(after=kind(2)).after == 2.0
    assert type(Retry(after=kind(2)).after) is float


@pytest.mark.parametrize("value", [1e300, 10**300])
def test_a_pause_may_be_any_finite_number(value):
    assert Retry(after=value).after == 1e300
    assert retry(backoff=value, max_backoff=value, jitter=False).pause(1) == 1e300


@pytest.mark.parametrize("name", ["backoff", "factor", "max_backoff", "after"])
@pytest.mark.parametrize(
    ("value", "kind"),
    [(10**400, ValueError), (float("inf"), ValueError), (float("nan"), ValueError), (-1, ValueError)]
    + [(each, TypeError) for each in (True, np.True_, "1", None, 1j, [])],
    ids=str,
)
def test_what_is_no_finite_number_is_refused(name, value, kind):
    with pytest.raises(kind, match=rf"^{name} must be a"):
        Retry(value) if name == "after" else retry(**{name: value})


@pytest.mark.drivers("tasks are no batches", in_loop=False)
def test_g09_what_follows_in_the_batch_of_an_item_that_has_failed_again_is_not_started(overlapping):
    started, again, going_on, attempts = Tally(), Gate(), Gate(), Counter()

    def call(i):
        started.add(i)
        attempts[i] += 1
        if i == 1:
            if attempts[i] == 2:
                again.open()
            raise Oops(i)
        if i == 2:
            going_on.wait()
        return i

    policy = retry(attempts=2, backoff=0)
    run = overlapping.map(call, range(20), concurrency=2, chunksize=8, window=8, on_error=policy)
    consumer = Background(list, run)
    again.wait()
    wait_until(lambda: run.stats.running == 1)  # the batch, at 2: the second failure is known
    absence()
    going_on.open()
    with pytest.raises(Oops):
        consumer.result()
    assert sorted(started.seen) == [0, 1, 1, 2]


@pytest.mark.drivers("is closed from another thread", in_loop=False)
def test_g13_an_item_that_fails_behind_the_end_of_its_run_is_not_tried_again(overlapping):
    begun, failing, told = Gate(), Gate(), Tally()

    def call(i):
        if i == 1:
            begun.open()
            failing.wait()
            raise Oops(i)
        return i

    run = overlapping.map(call, range(4), concurrency=1, on_error=retry(backoff=0, on_retry=told.add))
    consumer = Background(list, run)
    begun.wait()
    closing = Background(run.close)
    wait_until(lambda: run._run.job.stopped)
    failing.open()
    closing.result()
    consumer.result()
    assert not told.seen
