"""Guarantee 9: the functions that `retry` takes, asked as soon as a failure is noticed."""

import asyncio
import itertools
import pickle
import threading
from functools import partial

import pytest

from functions_for_workers import Oops, fail_at
from inturn import Failure, Limiter, Retry, ordered_amap, ordered_flat_map, retry
from waiting import HOUR, SHORT, Gate, Tally, Watch


def is_busy(failure):
    return isinstance(failure.error, Oops)


def at_once(failure):
    return 0.0


def no_idea(failure):
    return None


BAD = frozenset({1, 2})


def test_g09_on_may_be_a_predicate_of_the_failure(driver):
    seen = Tally()
    policy = retry(attempts=3, on=lambda failure: seen.add(failure).item == 1, backoff=0, then="skip")
    run = driver.map(partial(fail_at, BAD), range(4), on_error=policy)
    assert list(run) == [0, 6]
    assert run.stats.retried == 2
    assert all(isinstance(failure, Failure) for failure in seen.seen)
    # The last attempt is not asked about: there is no further one. Nobody is asked twice about a failure.
    assert sorted((failure.item, failure.attempt) for failure in seen.seen) == [(1, 1), (1, 2), (2, 1)]


def test_g09_after_names_the_seconds_or_leaves_them_to_the_growing_pause(driver):
    policy = retry(attempts=3, backoff=HOUR, max_backoff=HOUR, after=at_once, then="skip")
    run = driver.map(partial(fail_at, BAD), range(4), on_error=policy)
    assert list(run) == [0, 6]
    assert run.stats.retried == 4
    policy = retry(attempts=3, backoff=0, after=no_idea, then="skip")
    assert list(driver.map(partial(fail_at, BAD), range(4), on_error=policy)) == [0, 6]


def test_g09_a_pause_that_after_names_is_kept(kinds):
    with Watch() as watch:
        policy = retry(attempts=2, backoff=0, after=lambda failure: SHORT / 3, max_backoff=0, then="skip")
        assert list(kinds.map(partial(fail_at, BAD), [1], on_error=policy)) == []
    assert watch.seconds >= SHORT / 3


def test_g09_on_retry_is_told_of_each_further_attempt(driver):
    told = Tally()
    policy = retry(attempts=3, backoff=0, on_retry=told.add, then="return")
    results = list(driver.map(partial(fail_at, BAD), range(4), on_error=policy))
    assert [result for result in results if not isinstance(result, Failure)] == [0, 6]
    assert sorted((failure.index, failure.attempt) for failure in told.seen) == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_g09_they_are_asked_while_the_head_is_slow(overlapping):
    head, asked = Gate(), Tally()

    def call(i):
        if i == 0:
            head.wait()
            return i
        raise Oops(i)

    policy = retry(attempts=2, on=is_busy, after=at_once, on_retry=asked.add, then="skip")
    run = overlapping.map(call, range(6), window=6, on_error=policy)
    started = threading.Thread(target=lambda: (asked.wait(5), head.open()))
    started.start()
    assert list(run) == [0]
    started.join()


def test_g09_one_failure_quiets_all_workers(overlapping):
    """A service asks for a pause: nothing starts until it is over, not even the item itself."""
    limiter, starts = Limiter(10_000), Tally()

    def quiet(failure):
        limiter.pause(HOUR)
        return 0.0

    def call(i):
        starts.add(i)
        if i == 2:
            raise Oops(i)
        return i

    run = overlapping.map(call, itertools.count(), concurrency=1, window=9, limit=limiter, on_error=retry(after=quiet))
    assert [next(run), next(run)] == [0, 1]
    starts.wait(3)
    while not run.stats.retried:
        pass
    run.close()
    assert starts.seen == [0, 1, 2]


@pytest.mark.parametrize("name", ["on", "after", "on_retry"])
def test_g09_an_error_of_such_a_function_ends_the_run_in_turn(inside, name):
    def wrong(failure):
        raise KeyError("mine")

    run = inside.map(partial(fail_at, BAD), range(4), on_error=retry(backoff=0, **{name: wrong}))
    assert next(run) == 0
    with pytest.raises(KeyError, match="mine") as caught:
        next(run)
    assert isinstance(caught.value.__cause__, Oops)
    assert next(run, "over") == "over"


@pytest.mark.parametrize("value", [-1, float("nan"), "3", True])
def test_g09_what_after_returns_is_checked(inside, value):
    run = inside.map(partial(fail_at, BAD), range(4), on_error=retry(after=lambda failure: value))
    assert next(run) == 0
    with pytest.raises((TypeError, ValueError), match="what after returns"):
        next(run)


def test_g09_a_flat_map_asks_them_too():
    told, attempts = [], []

    def elements(item):
        attempts.append(item)
        if attempts.count(item) < 3:
            raise Oops(item)
        yield item
        if item == 2:
            raise Oops("late")

    policy = retry(attempts=9, on=is_busy, after=at_once, on_retry=told.append)
    run = ordered_flat_map(elements, range(2), concurrency=2, on_error=policy)
    assert list(run) == [0, 1]
    assert sorted(failure.index for failure in told) == [0, 0, 1, 1]
    told.clear()
    run = ordered_flat_map(elements, [2], on_error=policy)
    assert next(run) == 2
    with pytest.raises(Oops, match="late"):  # it has produced an element: it cannot run again, and nobody is told so
        next(run)
    assert [failure.attempt for failure in told] == [1, 2]


def test_g09_an_async_run_asks_them_too():
    threads = set()

    def note(failure):
        threads.add(threading.get_ident())

    async def main():
        async def call(i):
            raise Oops(i)

        policy = retry(attempts=3, on=is_busy, after=at_once, on_retry=note, then="skip")
        async with ordered_amap(call, range(5), on_error=policy) as run:
            assert [each async for each in run] == []
            assert run.stats.retried == 10

    asyncio.run(main())
    assert threads == {threading.get_ident()}


def test_g09_a_policy_may_hand_over_to_retry(driver):
    """It is asked in turn, and so are the functions."""
    inner = retry(attempts=3, on=is_busy, after=at_once, then="skip")
    run = driver.map(partial(fail_at, BAD), range(4), on_error=lambda failure: inner(failure))
    assert list(run) == [0, 6]
    assert run.stats.retried == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"on": 3}, "on must be an exception class, a tuple of them, or a function"),
        ({"on": int}, "on must be an exception class"),
        ({"on": (OSError, is_busy)}, "on must be an exception class"),
        ({"after": 3}, "after must be a function of the Failure or None"),
        ({"on_retry": "log"}, "on_retry must be a function of the Failure or None"),
    ],
)
def test_g09_functions_are_checked(arguments, words):
    with pytest.raises(TypeError, match=words):
        retry(**arguments)


@pytest.mark.parametrize("name", ["on", "after", "on_retry"])
def test_g09_async_functions_are_refused(name):
    async def function(failure):
        pass

    with pytest.raises(TypeError, match=f"{name} must be a plain function"):
        retry(**{name: function})


def test_g09_a_policy_with_functions_is_shown_and_pickled():
    policy = retry(attempts=5, on=is_busy, after=at_once, then="abort")
    assert repr(policy) == f"retry(attempts=5, on={is_busy!r}, after={at_once!r}, then='abort')"
    again = pickle.loads(pickle.dumps(policy))
    assert repr(again) == repr(policy)
    failure = Failure(0, 1, Oops())
    assert isinstance(again(failure), Retry)
