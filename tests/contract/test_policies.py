"""The error policies of the contract, and guarantee 9: what takes the place of an item that failed."""

import functools
import itertools
import pickle
import random
import threading
import time
import warnings
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from functions_for_workers import Oops, double, fail_at, pair, same
from inturn import SKIP, Failure, Retry, ordered_map, retry, sentinel
from waiting import HOUR, SHORT, Background, Gate, Source, Tally, Watch, absence, shown, spend, wait_until

ITEMS = 12
BAD = frozenset({0, 4, 5, 11})
call = partial(fail_at, BAD)


@pytest.fixture(params=[1, 5, ITEMS, 30], ids=["one", "below", "equal", "above"])
def window(request):
    return request.param


def expected(instead):
    return [instead(i) if i in BAD else 2 * i for i in range(ITEMS)]


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


# the named ones


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_skip_leaves_the_item_out(driver, window, chunksize):
    run = driver.map(call, range(ITEMS), window=max(window, chunksize or 1), chunksize=chunksize, on_error="skip")
    assert list(run) == [2 * i for i in range(ITEMS) if i not in BAD]


def test_skip_may_leave_everything_out(driver, window):
    assert (
        list(driver.map(partial(fail_at, frozenset(range(ITEMS))), range(ITEMS), window=window, on_error="skip")) == []
    )


def test_the_index_of_what_follows_a_skipped_item_stays(driver):
    run = driver.map(call, range(ITEMS), on_error="skip", indexed=True)
    assert list(run) == [(i, 2 * i) for i in range(ITEMS) if i not in BAD]


def test_return_delivers_the_failure_in_its_place(driver, window):
    with Watch() as watch:
        results = list(driver.map(call, range(ITEMS), window=window, on_error="return"))
    for i, result in enumerate(results):
        if i in BAD:
            assert type(result) is Failure
            assert (result.index, result.item, result.attempt, result.delivered) == (i, i, 1, 0)
            assert type(result.error) is Oops
            assert 0 <= result.elapsed <= watch.seconds
        else:
            assert result == 2 * i
    assert len(results) == ITEMS


def test_return_with_the_index_delivers_both(driver):
    results = list(driver.map(call, range(ITEMS), on_error="return", indexed=True))
    assert [index for index, _ in results] == list(range(ITEMS))
    assert all(index == value.index for index, value in results if index in BAD)


def test_the_item_of_several_sources_is_the_tuple_of_arguments(driver):
    results = list(driver.map(fail_at, [frozenset({7})] * 3, [6, 7, 8], on_error="return"))
    assert results[1].item == (frozenset({7}), 7)
    assert results[0::2] == [12, 16]


def test_an_item_that_is_a_tuple_is_one_argument(driver):
    assert list(driver.map(same, [(1, 2), (3,)])) == [(1, 2), (3,)]
    assert list(driver.map(pair, [(1, 2), (3,)])) == [((1, 2),), ((3,),)]


def test_the_failure_says_how_long_the_last_attempt_took(inside):
    attempt = Watch()

    def slow(i):
        with attempt:
            spend(0.05)
        raise Oops

    with Watch() as all_of_it:
        (failure,) = inside.map(slow, [1], on_error="return")
    assert attempt.seconds * 0.99 <= failure.elapsed <= all_of_it.seconds


# sentinel


def test_sentinel_delivers_a_value(driver, window):
    assert list(driver.map(call, range(ITEMS), window=window, on_error=sentinel(None))) == expected(lambda i: None)


def test_sentinel_delivers_the_same_object_each_time(inside):
    mark = object()
    results = list(inside.map(call, range(ITEMS), on_error=sentinel(mark)))
    assert all(results[i] is mark for i in BAD)


def test_sentinel_delivers_what_a_factory_makes_of_the_failure(driver):
    run = driver.map(call, range(ITEMS), on_error=sentinel(factory=lambda failure: -failure.item))
    assert list(run) == expected(lambda i: -i)


@pytest.mark.parametrize("arguments", [((), {}), ((1,), {"factory": str})], ids=["none", "both"])
def test_sentinel_takes_a_value_or_a_factory(arguments):
    args, kwargs = arguments
    with pytest.raises(TypeError):
        sentinel(*args, **kwargs)


@pytest.mark.parametrize("value", [None, False, 0, "", ()])
def test_sentinel_takes_falsy_values(value):
    assert list(ordered_map(call, range(5), on_error=sentinel(value)))[0] is value


# one's own


def test_a_policy_may_return_any_value(driver, window):
    for value in (None, False, ValueError("a value"), StopIteration, Failure):
        results = list(driver.map(call, range(ITEMS), window=window, on_error=lambda failure: value))
        assert results == expected(lambda i: value)


def test_a_policy_may_return_skip(driver):
    run = driver.map(call, range(ITEMS), on_error=lambda failure: SKIP if failure.index > 3 else "kept")
    assert list(run) == ["kept"] + [2 * i for i in range(1, ITEMS) if i not in BAD]


def test_a_policy_may_return_the_failure(driver):
    seen = []
    results = list(driver.map(call, range(ITEMS), on_error=lambda failure: seen.append(failure) or failure))
    assert [results[i].index for i in sorted(BAD)] == [failure.index for failure in seen] == sorted(BAD)


def test_a_policy_runs_in_the_thread_of_the_consumer_in_order(inside, window):
    asked = []

    def policy(failure):
        asked.append((failure.index, threading.get_ident()))
        return None

    list(inside.map(call, range(ITEMS), window=window, on_error=policy))
    assert asked == [(i, threading.get_ident()) for i in sorted(BAD)]


def test_a_policy_is_asked_only_when_the_turn_of_its_item_has_come(overlapping):
    head, asked, failed = Gate(), Tally(), Gate()

    def fail_late(i):
        if i == 0:
            head.wait()
            return i
        failed.open()
        raise Oops

    run = overlapping.map(fail_late, range(2), concurrency=2, window=4, on_error=lambda failure: asked.add(1))
    consumer = Background(list, run)
    failed.wait()
    absence(0.05)
    assert len(asked) == 0
    head.open()
    assert consumer.result() == [0, 1]


def test_a_policy_that_raises_ends_the_run_and_its_error_is_chained_to_that_of_the_item(driver, window):
    def policy(failure):
        raise LookupError("policy")

    run = driver.map(call, range(1, ITEMS), window=window, on_error=policy)
    results = []
    with pytest.raises(LookupError, match="policy") as caught:
        for result in run:
            results.append(result)
    assert results == [2, 4, 6]
    chained = caught.value.__cause__ or caught.value.__context__
    assert type(chained) is Oops
    assert chained.args == ("no 4",)
    assert next(run, "over") == "over"


def test_a_policy_that_raises_from_an_error_of_its_own_keeps_that_cause(inside):
    cause = KeyError("cause")

    def policy(failure):
        raise LookupError("policy") from cause

    with pytest.raises(LookupError) as caught:
        list(inside.map(call, range(3), on_error=policy))
    assert caught.value.__cause__ is cause


def test_a_policy_may_raise_the_error_of_the_item_itself(inside):
    def policy(failure):
        raise failure.error

    with pytest.raises(Oops) as caught:
        list(inside.map(call, range(3), on_error=policy))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is not caught.value


def test_a_policy_that_raises_stop_iteration_does_not_end_the_loop_silently(inside):
    def policy(failure):
        raise StopIteration

    with pytest.raises(RuntimeError):
        list(inside.map(call, range(3), on_error=policy))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_policy_may_raise_what_ends_programs(inside, kind):
    def policy(failure):
        raise kind

    run = inside.map(call, range(3), on_error=policy)
    with pytest.raises(kind):
        list(run)
    assert next(run, "over") == "over"


def test_a_policy_may_be_any_callable(inside):
    class Policy:
        def __init__(self):
            self.count = 0

        def __call__(self, failure):
            self.count += 1
            return self.count

        def __bool__(self):
            return False

    assert list(inside.map(call, range(ITEMS), on_error=Policy())) == [1, 2, 4, 6, 2, 3, 12, 14, 16, 18, 20, 4]


def test_a_policy_may_take_its_time_while_calls_go_on(overlapping):
    """Back-pressure, not a stop: what has been pulled is run while the policy thinks."""
    ended, full = Tally(), Gate()
    source = Source(range(8), lambda k: full.open() if k == 7 else None)

    def call(i):
        if i == 0:
            full.wait()
            raise Oops
        return ended.add(i)

    def policy(failure):
        ended.wait(7)
        return 0

    assert list(overlapping.map(call, source, concurrency=2, window=8, on_error=policy)) == list(range(8))


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


# policies that cannot be meant


async def _async_policy(failure):
    return None


async def _async_generator_policy(failure):
    yield None


def _generator_policy(failure):
    yield None


@pytest.mark.parametrize("argument", ["on_error", "then"])
@pytest.mark.parametrize(
    ("policy", "instead"),
    [
        (ValueError, r"retry\(on=ValueError\)"),
        (KeyboardInterrupt, r"retry\(on=KeyboardInterrupt\)"),
        (retry, r"call it, retry\(\)"),
        (sentinel, r"call it, sentinel\(value\)"),
        (Retry, r"write retry\(\)"),
        (Retry(), r"write retry\(\)"),
        (SKIP, 'write "skip"'),
        (Failure, 'write "return"'),
        (_async_policy, "plain function, got an async function"),
        (partial(_async_policy), "plain function, got an async function"),
        (_async_generator_policy, "plain function, got an async generator function"),
        (_generator_policy, "plain function, got a generator function"),
        (None, "name or a callable, got NoneType"),
    ],
    ids=shown,
)
def test_a_policy_that_cannot_be_meant_is_refused_at_the_call_with_the_cure(argument, policy, instead):
    with pytest.raises(TypeError, match=instead) as caught:
        if argument == "on_error":
            ordered_map(double, range(3), on_error=policy)
        else:
            retry(then=policy)
    assert argument in str(caught.value)


def test_a_factory_that_is_async_is_refused_at_the_call():
    with pytest.raises(TypeError, match="factory must be a plain function"):
        sentinel(factory=_async_policy)


def test_a_class_that_is_no_error_may_be_a_policy(driver):
    assert list(driver.map(call, range(2), on_error=str))[0].startswith("Failure(index=0, item=0")


def test_a_policy_that_returns_a_coroutine_ends_the_run_chained_to_the_error_of_the_item(driver):
    """Nobody awaits it, and it is no value that anybody wants."""

    @functools.wraps(_generator_policy)
    def hidden(failure):
        return _async_policy(failure)

    hidden.__wrapped__ = None
    run = driver.map(call, range(4, ITEMS), on_error=hidden)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is closed, so that it does not complain that it was never awaited
        with pytest.raises(TypeError, match=r"returned a coroutine.*plain function") as caught:
            next(run)
    assert type(caught.value.__cause__) is Oops
    assert next(run, "over") == "over"


# what they say they are


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (retry(), "retry(attempts=3)"),
        (retry(5), "retry(attempts=5)"),
        (retry(on=OSError, backoff=0), "retry(attempts=3, on=OSError, backoff=0.0)"),
        (retry(on=(OSError, KeyError), then="skip"), "retry(attempts=3, on=(OSError, KeyError), then='skip')"),
        (retry(on=(OSError,), factor=3, jitter=False), "retry(attempts=3, on=(OSError,), factor=3.0, jitter=False)"),
        (retry(max_backoff=5, then=sentinel(None)), "retry(attempts=3, max_backoff=5.0, then=sentinel(None))"),
        (retry(2, then=retry(9)), "retry(attempts=2, then=retry(attempts=9))"),
        (sentinel("?"), "sentinel('?')"),
        (Retry(after=0.5), "Retry(after=0.5)"),
    ],
    ids=str,
)
def test_the_repr_of_a_policy_is_the_code_that_makes_it(policy, code):
    assert repr(policy) == code
    again = eval(code)
    assert repr(again) == code
    assert repr(pickle.loads(pickle.dumps(policy))) == code


def test_the_repr_of_a_sentinel_with_a_factory_names_it():
    assert repr(sentinel(factory=str)) == "sentinel(factory=<class 'str'>)"


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
