"""Guarantee 12: no reference is kept to what has been delivered."""

import gc
import itertools
from collections import Counter
from functools import partial

import pytest

from functions_for_workers import (
    Oops,
    Unreadable,
    double,
    fail_at,
    raise_because_of_remade,
    raise_group_of_remade,
    raise_remade,
)
from inturn import SKIP, Retry, ordered_flat_map, retry
from waiting import Tally, Thing, farewell, shown

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


def raises(failure):
    raise Oops("the policy")


POLICIES = ["raise", "abort", retry(3, backoff=0), raises]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("policy", POLICIES, ids=shown)
def test_g12_no_reference_to_the_error_that_was_raised_is_kept(inside, policy):
    _raised_once(inside.map(partial(fail_at, frozenset({2})), range(20), window=5, on_error=policy), policy)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("policy", POLICIES, ids=shown)
@pytest.mark.parametrize("executor", ["thread", "serial"])
def test_g12_no_reference_to_the_error_that_a_flat_map_raised_is_kept(executor, policy):
    def produce(x):
        yield x
        fail_at(frozenset({2}), x)

    _raised_once(ordered_flat_map(produce, range(20), executor=executor, on_error=policy), policy)


def _raised_once(run, policy):
    try:
        list(run)
    except Oops as error:
        farewells = [farewell(each) for each in (error, error.__cause__) if each is not None]
    assert len(farewells) == (2 if policy is raises else 1)
    for gone in farewells:
        gone.wait()
    assert next(run, "over") == "over"


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("fn", [raise_remade, raise_because_of_remade, raise_group_of_remade, Unreadable])
def test_g12_no_reference_to_an_error_that_travels_is_kept(driver, fn):
    farewells = []

    def told(failure):
        farewells.extend(farewell(error) for error in (failure.error, failure.error.__cause__) if error is not None)
        return failure.index

    run = driver.map(fn, range(6), on_error=told)
    if fn is Unreadable and driver.driver.in_process:
        assert all(isinstance(result, Unreadable) for result in run)
        return
    assert list(run) == [*range(6)]
    assert len(farewells) >= 6
    for gone in farewells:
        gone.wait()


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
    """A generator, too, drops all references when it ends."""

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
@pytest.mark.parametrize("chunksize", [1, 4])
def test_g12_a_closed_run_holds_no_results_and_no_items(overlapping, chunksize):
    farewells, ended = [], Tally()

    def call(thing):
        result = Thing(thing.name)
        farewells.extend((farewell(result), farewell(thing)))
        ended.add(thing.name)
        return result

    run = overlapping.map(call, (Thing(i) for i in itertools.count()), window=8, chunksize=chunksize)
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
