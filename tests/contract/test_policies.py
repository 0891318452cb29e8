"""The error policies: those that have a name, and one's own; what cannot be a policy."""

import functools
import pickle
import threading
import warnings
from functools import partial

import pytest

from functions_for_workers import Oops, double, fail_at, pair, same
from inturn import SKIP, Failure, Retry, ordered_map, retry, sentinel
from waiting import Background, Gate, Source, Tally, Watch, absence, shown, spend

ITEMS = 12
BAD = frozenset({0, 4, 5, 11})
call = partial(fail_at, BAD)


def expected(instead):
    return [instead(i) if i in BAD else 2 * i for i in range(ITEMS)]


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


# invalid policies


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
        (None, "or a callable, got NoneType"),
    ],
    ids=shown,
)
def test_an_invalid_policy_is_refused_at_the_call_with_the_cure(argument, policy, instead):
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
