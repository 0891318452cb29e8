"""Guarantees 8 to 12: errors in turn, their notes, what ends a run, and what is no longer referenced."""

import asyncio
import concurrent.futures
import gc
import itertools
import traceback
from collections import Counter
from functools import partial

import numpy as np
import pytest

import functions_for_workers as calls
from functions_for_workers import Oops, double, fail_at, pair, same
from inturn import SKIP, Retry, retry, sentinel
from waiting import Background, Gate, Source, Tally, Thing, absence, farewell, wait_until

ITEMS = 12


@pytest.fixture(params=[1, 5, ITEMS, 30], ids=["one", "below", "equal", "above"])
def window(request):
    return request.param


def until_error(run):
    """What a run delivers, and the error that ends it."""
    results = []
    try:
        for result in run:
            results.append(result)
    except BaseException as error:
        return results, error
    return results, None


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
    consumer = Background(until_error, overlapping.map(call, source, concurrency=2, window=10))
    started.wait(2)
    absence()
    head.open()
    results, error = consumer.result()
    assert results == [0]
    assert error.args == (1,)
    assert sorted(started.seen) == [0, 1]


def test_g09_once_a_failure_is_known_nothing_later_is_pulled(overlapping):
    head, failing = Gate(), Gate()

    def call(i):
        if i == 0:
            head.wait()
        elif i == 1:
            failing.wait()
            raise Oops(i)
        return i

    def on_pull(k):
        if k == 5:
            failing.open()
            wait_until(lambda: run.stats.running == 1)  # the head alone
            absence(0.05)
        elif k > 5:
            head.open()

    source = Source(itertools.count(), on_pull)
    run = overlapping.map(call, source, concurrency=2, window=1000)
    consumer = Background(until_error, run)
    source.begun.wait(6)
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


# 12: references


@pytest.fixture
def uncollected():
    """No garbage collector: what goes, goes because nobody holds it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


SHAPES = [{}, {"window": 10}, {"window": 10, "chunksize": 1}, {"window": 10, "chunksize": 5}, {"window": 1}]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("settings", SHAPES, ids=str)
def test_g12_no_reference_to_a_delivered_result_is_kept(inside, settings):
    run = inside.map(Thing, range(200), **settings)
    i = -1
    for thing in run:  # not enumerate, which keeps what it has handed out last
        i += 1
        assert thing.name == i
        gone = farewell(thing)
        del thing
        gone.wait()
    assert i == 199


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("settings", SHAPES, ids=str)
def test_g12_no_reference_to_the_item_of_a_delivered_result_is_kept(inside, settings):
    farewells = []

    def source():
        for i in range(60):
            thing = Thing(i)
            farewells.append(farewell(thing))
            yield thing
            del thing

    for i, result in enumerate(inside.map(lambda thing: thing.name, source(), **settings)):
        assert result == i
        if i + 1 < len(farewells):  # or else the source itself still holds it
            farewells[i].wait()


@pytest.mark.usefixtures("uncollected")
def test_g12_no_reference_to_the_arguments_of_several_sources_is_kept(inside):
    farewells = []

    def source():
        for i in range(20):
            thing = Thing(i)
            farewells.append(farewell(thing))
            yield thing
            del thing

    for i, _ in enumerate(inside.map(lambda thing, n: n, source(), itertools.count(), window=5)):
        if i + 1 < len(farewells):
            farewells[i].wait()


@pytest.mark.usefixtures("uncollected")
def test_g12_no_reference_to_the_last_item_is_kept_by_an_idle_worker(inside):
    things = [Thing(i) for i in range(3)]
    farewells = [farewell(thing) for thing in things]
    things.reverse()
    source = (things.pop() for _ in range(3))
    with inside.map(lambda thing: thing.name, source, window=3) as run:
        assert [next(run) for _ in range(3)] == [0, 1, 2]
        for gone in farewells:
            gone.wait()


@pytest.mark.usefixtures("uncollected")
def test_g12_no_reference_to_the_error_that_was_raised_is_kept(inside):
    run = inside.map(partial(fail_at, frozenset({2})), range(20), window=5)
    try:
        list(run)
    except Oops as error:
        gone = farewell(error)
    gone.wait()
    assert next(run, "over") == "over"


@pytest.mark.usefixtures("uncollected")
def test_g12_no_reference_to_the_error_of_the_source_is_kept(inside):
    def source():
        yield 0
        raise Oops("source")

    run = inside.map(double, source(), window=5)
    try:
        list(run)
    except Oops as error:
        gone = farewell(error)
    gone.wait()


@pytest.mark.usefixtures("uncollected")
def test_g12_no_reference_to_a_failure_is_kept(inside):
    def call(thing):
        raise Oops

    run = inside.map(call, (Thing(i) for i in range(10)), window=5, on_error="return")
    for failure in run:
        farewells = [farewell(failure.error), farewell(failure.item)]
        if failure.index == 9:
            break
        del failure
        for gone in farewells:
            gone.wait()
    run.close()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("answer", [SKIP, 1], ids=["skip", "value"])
def test_g12_no_reference_to_an_error_that_a_policy_has_replaced_is_kept(inside, answer):
    farewells = []

    def call(i):
        if i % 2:
            raise Oops
        return i

    def policy(failure):
        farewells.append(farewell(failure.error))
        return answer

    run = inside.map(call, range(21), window=5, on_error=policy)
    for i in range(0, 20, 2):
        assert next(run) == i
        if answer is not SKIP:
            assert next(run) == answer
    assert next(run) == 20
    assert len(farewells) == 10
    for gone in farewells:
        gone.wait()
    run.close()


@pytest.mark.usefixtures("uncollected")
def test_g12_no_reference_to_an_attempt_that_was_retried_is_kept(inside):
    attempts, farewells = Counter(), []

    def call(thing):
        attempts[thing.name] += 1
        if attempts[thing.name] < 3:
            raise Oops
        return thing.name

    def policy(failure):
        farewells.extend((farewell(failure.error), farewell(failure.item)))
        return Retry(after=0)

    run = inside.map(call, (Thing(i) for i in range(10)), window=5, on_error=policy)
    for i in range(9):
        assert next(run) == i
        assert len(farewells) == 4 * (i + 1)
        if i < 8:  # or else the source itself may still hold the last item
            for gone in farewells:
                gone.wait()
    run.close()


@pytest.mark.usefixtures("uncollected")
def test_g12_a_run_that_has_ended_holds_neither_its_function_nor_its_source(inside):
    """A generator, too, lets go of everything when it ends."""

    class Call:
        def __call__(self, i):
            return i

    call = Call()
    functions = farewell(call)
    things = [Thing(0)]
    source = (thing for thing in things)
    sources = farewell(source)
    run = inside.map(call, source)
    del call, source
    assert len(list(run)) == 1
    functions.wait()
    sources.wait()
    assert next(run, "over") == "over"


@pytest.mark.usefixtures("uncollected")
def test_g12_a_closed_run_holds_no_results_and_no_items(overlapping):
    farewells, ended = [], Tally()

    def call(thing):
        result = Thing(thing.name)
        farewells.extend((farewell(result), farewell(thing)))
        ended.add(thing.name)
        return result

    run = overlapping.map(call, (Thing(i) for i in itertools.count()), window=8)
    next(run)
    ended.wait(1)
    run.close()
    for gone in farewells:
        gone.wait()


@pytest.mark.usefixtures("uncollected")
def test_g12_a_dropped_run_is_gone_at_once_and_takes_its_results_with_it(inside):
    run = inside.map(Thing, itertools.count(), window=8)
    next(run)
    gone = farewell(run)
    del run
    assert gone.is_open
