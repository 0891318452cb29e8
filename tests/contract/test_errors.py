"""Guarantees 8 and 11: errors of `fn` come in their turn, with a note; errors that are easily mistaken."""

import asyncio
import concurrent.futures
import traceback
from functools import partial

import numpy as np
import pytest

import functions_for_workers as calls
from functions_for_workers import Oops, fail_at, same
from inturn import SKIP, Retry, retry, sentinel
from results import until_error
from waiting import Gate

ITEMS = 12


# 8: an error of fn


@pytest.mark.parametrize("chunksize", [None, 1, 3])
@pytest.mark.parametrize("bad", [0, 5, ITEMS - 1])
def test_g08_an_error_surfaces_in_its_turn_after_every_earlier_result(driver, window, chunksize, bad):
    window = max(window, chunksize or 1)
    run = driver.map(partial(fail_at, frozenset({bad})), range(ITEMS), window=window, chunksize=chunksize)
    results, error = until_error(run)
    assert results == list(range(0, 2 * bad, 2))
    assert type(error) is Oops
    assert error.args == (f"no {bad}",)


def test_g08_an_error_that_happens_first_still_waits_for_its_turn(overlapping):
    failed = Gate()

    def call(i):
        if i == 3:
            failed.open()
            raise Oops(i)
        failed.wait()
        return i

    results, error = until_error(overlapping.map(call, range(10), concurrency=4, window=8))
    assert results == [0, 1, 2]
    assert error.args == (3,)


def test_g08_the_first_error_in_input_order_is_raised_not_the_first_in_time(overlapping):
    failed = Gate()

    def call(i):
        if i == 2:
            failed.open()
            raise Oops(i)
        failed.wait()
        raise Oops(i)

    results, error = until_error(overlapping.map(call, range(10), concurrency=3, window=8))
    assert results == []
    assert error.args == (0,)


def test_g08_an_error_keeps_its_traceback(driver):
    _, error = until_error(driver.map(partial(fail_at, frozenset({2})), range(5)))
    frames = traceback.extract_tb(error.__traceback__)
    assert frames[0].name == "until_error"
    if driver.driver.in_process:
        assert frames[-1].name == "fail_at"
        assert frames[-1].line.startswith("raise Oops")
    else:
        words = "".join(traceback.format_exception(error))
        assert "in fail_at\n    raise Oops" in words


def test_g08_an_error_comes_with_one_traceback(inside):
    """Nothing of the library is its cause or its context."""
    _, error = until_error(inside.map(partial(fail_at, frozenset({2})), range(5)))
    assert error.__cause__ is None
    assert error.__context__ is None


def test_g08_an_error_keeps_its_own_cause(inside):
    def call(i):
        try:
            raise KeyError(i)
        except KeyError as inner:
            raise Oops(i) from inner

    _, error = until_error(inside.map(call, range(3)))
    assert type(error.__cause__) is KeyError


def test_g08_an_error_gains_a_note_with_the_index_and_the_item(driver, window):
    run = driver.map(partial(fail_at, frozenset({107})), range(100, 112), window=window)
    _, error = until_error(run)
    (note,) = error.__notes__
    assert note.startswith("item 7: ")
    assert "107" in note


def test_g08_the_note_of_several_sources_shows_all_arguments(driver):
    _, error = until_error(driver.map(fail_at, [frozenset({8})] * 3, [7, 8, 9]))
    (note,) = error.__notes__
    assert note.startswith("item 1: ")
    assert "frozenset({8})" in note
    assert note.count("8") > 1


@pytest.mark.parametrize(
    "item", ["x" * 100_000, list(range(100_000)), {i: i for i in range(10_000)}, b"x" * 100_000], ids=type
)
def test_g08_the_note_shows_a_shortened_repr(inside, item):
    def call(item):
        raise Oops

    _, error = until_error(inside.map(call, [item]))
    (note,) = error.__notes__
    assert note.startswith("item 0: ")
    assert len(note) < 500


@pytest.mark.parametrize("item", [np.zeros((9, 9)), calls.Table(), [calls.Table()] * 3], ids=type)
def test_g08_the_note_is_one_line_whatever_the_item(inside, item):
    def call(item):
        raise Oops

    _, error = until_error(inside.map(call, [item]))
    (note,) = error.__notes__
    assert len(note.splitlines()) == 1
    assert len(note) < 80


@pytest.mark.parametrize(
    "policy",
    ["skip", sentinel(None), retry(attempts=2, backoff=0, then="skip"), retry(1, then=sentinel(0))],
    ids=["skip", "sentinel", "retry-skip", "retry-sentinel"],
)
def test_g08_no_repr_is_made_of_an_item_whose_error_nobody_sees(inside, policy):
    shown = []

    class Row:
        def __repr__(self):
            shown.append(self)
            return "Row"

    def call(row):
        raise Oops

    list(inside.map(call, [Row() for _ in range(3)], on_error=policy))
    assert shown == []


def test_g08_an_error_that_ends_the_run_past_a_policy_that_would_drop_it_has_a_note(inside):
    def call(i):
        raise SystemExit(i)

    for policy in ("skip", sentinel(None)):
        _, error = until_error(inside.map(call, [7], on_error=policy))
        assert error.__notes__ == ["item 0: 7"]


def test_g08_an_error_that_a_function_of_the_users_sees_has_a_note(inside):
    seen = []

    def policy(failure):
        seen.extend(failure.error.__notes__)
        return SKIP

    list(inside.map(partial(fail_at, frozenset({3})), range(5), on_error=policy))
    assert seen == ["item 3: 3"]


def test_g08_an_item_that_cannot_be_shown_has_a_note_all_the_same(inside):
    def call(item):
        raise Oops("no")

    _, error = until_error(inside.map(call, [calls.Prickly()]))
    assert type(error) is Oops
    assert error.__context__ is None
    (note,) = error.__notes__
    assert note.startswith("item 0: ")


def test_g08_the_notes_of_fn_are_kept(inside):
    def call(i):
        error = Oops()
        error.add_note("mine")
        raise error

    _, error = until_error(inside.map(call, range(3)))
    assert error.__notes__[0] == "mine"
    assert len(error.__notes__) == 2


@pytest.mark.parametrize("kind", [calls.RefusesNotes, calls.Frozen, calls.OddNotes])
def test_g08_an_error_that_refuses_notes_is_raised_without_one(inside, kind):
    def call(i):
        if i == 2:
            raise kind("no")
        return i

    results, error = until_error(inside.map(call, range(5)))
    assert results == [0, 1]
    assert type(error) is kind
    assert error.__context__ is None


def test_g08_the_error_of_a_failure_has_the_note_too(driver):
    failures = [
        r for r in driver.map(partial(fail_at, frozenset({3})), range(5), on_error="return") if type(r) is not int
    ]
    (note,) = failures[0].error.__notes__
    assert note.startswith("item 3: ")


def test_g08_an_error_raised_by_every_attempt_gains_one_note(inside):
    error = Oops("always the same")

    def call(i):
        raise error

    _, raised = until_error(inside.map(call, [5], on_error=retry(attempts=3, backoff=0)))
    assert raised is error
    assert len(error.__notes__) == 1


@pytest.mark.parametrize(
    "error",
    [
        concurrent.futures.CancelledError(),
        concurrent.futures.TimeoutError(),
        concurrent.futures.InvalidStateError(),
        concurrent.futures.BrokenExecutor(),
        asyncio.CancelledError(),
        GeneratorExit(),
        RuntimeError("cannot schedule new futures after shutdown"),
        RuntimeError("can't start new thread"),
        BaseException("base"),
        ExceptionGroup("many", [ValueError(1)]),
    ],
    ids=repr,
)
def test_g08_no_error_of_fn_is_taken_for_one_of_the_machinery(inside, error):
    def call(i):
        if i == 2:
            raise error
        return i

    results, raised = until_error(inside.map(call, range(5)))
    assert results == [0, 1]
    assert raised is error


@pytest.mark.parametrize(
    "error",
    [
        concurrent.futures.CancelledError(),
        concurrent.futures.BrokenExecutor(),
        RuntimeError("cannot schedule new futures after shutdown"),
        TimeoutError(),
    ],
    ids=repr,
)
def test_g08_an_error_of_fn_that_looks_like_the_machinery_goes_through_the_policy(inside, error):
    def call(i):
        if i == 2:
            raise error
        return i

    assert list(inside.map(call, range(5), on_error="skip")) == [0, 1, 3, 4]


# 11: errors that are easily mistaken


def test_g11_stop_iteration_of_fn_arrives_as_runtime_error(driver, window):
    results, error = until_error(driver.map(partial(calls.stop_at, 5), range(ITEMS), window=window))
    assert results == [0, 1, 2, 3, 4]
    assert type(error) is RuntimeError
    assert type(error.__cause__) is StopIteration
    assert any(note.startswith("item 5: ") for note in error.__notes__)


def test_g11_stop_iteration_of_fn_goes_through_the_policy(driver):
    results = list(driver.map(partial(calls.stop_at, 2), range(4), on_error="return"))
    assert results[:2] + results[3:] == [0, 1, 3]
    assert type(results[2].error) is RuntimeError


@pytest.mark.parametrize("policy", ["raise", "skip", "return", sentinel(0), retry(on=BaseException), lambda failure: 0])
@pytest.mark.parametrize("call", [calls.exit_at, calls.interrupt_at])
def test_g11_system_exit_and_keyboard_interrupt_of_fn_arrive_in_turn_past_every_policy(driver, call, policy):
    run = driver.map(partial(call, 5), range(ITEMS), on_error=policy)
    results, error = until_error(run)
    assert results == [0, 1, 2, 3, 4]
    assert type(error) is (SystemExit if call is calls.exit_at else KeyboardInterrupt)
    assert next(run, "over") == "over"


def test_g11_no_policy_is_asked_about_system_exit(inside):
    asked = []

    def call(i):
        raise SystemExit(i)

    until_error(inside.map(call, [0], on_error=asked.append))
    assert asked == []


@pytest.mark.parametrize("kind", [calls.Falsy, calls.Empty])
def test_g11_errors_that_are_falsy_are_errors(driver, window, kind):
    items = [None, None, kind("no"), None]
    results, error = until_error(driver.map(calls.raise_it, items, window=window))
    assert results == [None, None]
    assert type(error) is kind
    assert list(driver.map(calls.raise_it, items, window=window, on_error="skip")) == [None, None, None]
    returned = list(driver.map(calls.raise_it, items, window=window, on_error="return"))
    assert type(returned[2].error) is kind


def test_g11_skip_and_retry_returned_by_fn_are_values(inside, window):
    again = Retry(after=0)
    values = [SKIP, again, Retry, 3]
    for policy in ("raise", "skip", retry(backoff=0)):
        results = list(inside.map(same, values, window=window, on_error=policy))
        assert len(results) == 4
        assert all(a is b for a, b in zip(results, values, strict=True))


def test_g11_a_failure_returned_by_fn_is_a_value(inside):
    (failure,) = inside.map(partial(fail_at, frozenset({0})), [0], on_error="return")
    assert list(inside.map(same, [failure], on_error="skip")) == [failure]


def test_g11_an_exception_returned_by_fn_is_a_value(inside):
    values = [ValueError(), StopIteration(), KeyboardInterrupt()]
    assert list(inside.map(same, values)) == values
