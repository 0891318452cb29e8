"""`ordered_flat_map` on threads and serially: failures and retries."""

import gc
import sys
import weakref
from functools import partial
from itertools import chain, count

import pytest

from generators_for_workers import Oops, steps
from inturn import SKIP, Failure, Report, Retry, ordered_flat_map, retry, sentinel
from waiting import SHORT, Background, Gate, Meter, Tally, Thing, absence, wait_until

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
EXECUTORS = ["thread", "serial"]
everywhere = pytest.mark.parametrize("executor", EXECUTORS)


def model(fn, *sources):
    return list(chain.from_iterable(map(fn, *sources)))


def breaks_after(n, x):
    for k in range(n):
        yield x, k
    raise Oops(x)


# ---- failures ------------------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("buffer", [1, 64])
def test_g08_a_failure_in_mid_stream_keeps_the_elements_already_produced(executor, n, buffer):
    run = ordered_flat_map(partial(breaks_after, n), [7], executor=executor, buffer=buffer)
    for k in range(n):
        assert next(run) == (7, k)
    with pytest.raises(Oops) as caught:
        next(run)
    assert caught.value.__notes__ == ["item 0: 7"]
    assert list(run) == []


@everywhere
def test_g08_every_earlier_element_comes_before_a_failure(executor):
    got = []
    with pytest.raises(Oops):
        for element in ordered_flat_map(
            lambda x: breaks_after(2, x) if x == 3 else steps(x), range(9), executor=executor
        ):
            got.append(element)
    assert got == [*model(steps, range(3)), (3, 0), (3, 1)]


@everywhere
@pytest.mark.parametrize(
    ("policy", "instead"),
    [("skip", []), (sentinel(None), [None]), (sentinel(factory=lambda f: f.delivered), [2]), (lambda f: f.index, [1])],
)
def test_g09_what_the_policy_returns_takes_the_place_of_the_remainder(executor, policy, instead):
    run = ordered_flat_map(
        lambda x: breaks_after(2, x) if x == "b" else iter(x), ["a", "b", "c"], executor=executor, on_error=policy
    )
    assert list(run) == ["a", ("b", 0), ("b", 1), *instead, "c"]
    assert run.stats.failed == 1
    assert run.stats.delivered + run.stats.skipped == 3


@everywhere
@pytest.mark.parametrize("n", [0, 1, 100])
def test_failure_delivered_is_the_count_of_elements_delivered(executor, n):
    *elements, failure = ordered_flat_map(partial(breaks_after, n), "x", executor=executor, on_error="return", buffer=8)
    assert len(elements) == n
    assert isinstance(failure, Failure)
    assert (failure.delivered, failure.index, failure.item, failure.attempt) == (n, 0, "x", 1)


@everywhere
def test_indexed_delivers_what_takes_the_place_of_the_remainder_with_its_index(executor):
    run = ordered_flat_map(partial(breaks_after, 1), "xy", executor=executor, on_error=sentinel(None), indexed=True)
    assert list(run) == [(0, ("x", 0)), (0, None), (1, ("y", 0)), (1, None)]


@everywhere
def test_a_report_can_be_made_of_a_flat_run(executor):
    report = Report(ordered_flat_map(partial(breaks_after, 1), "xy", executor=executor, on_error="return"))
    assert (len(report.successful), len(report.failed)) == (2, 2)


@everywhere
@pytest.mark.parametrize("value", [3, None, 1.5, object])
def test_a_plain_value_gets_a_clear_type_error_for_that_item(executor, value):
    run = ordered_flat_map(lambda x: value if x == 1 else [x], range(3), executor=executor, on_error="return")
    first, failure, last = run
    assert (first, last) == (0, 2)
    assert isinstance(failure.error, TypeError)
    assert "fn must return an iterable, got" in str(failure.error)
    assert "ordered_map" in str(failure.error)


async def _async_generator(x):
    yield x


async def _coroutine(x):
    return x


@everywhere
@pytest.mark.parametrize("fn", [_async_generator, _coroutine])
def test_an_async_result_gets_a_type_error_that_names_the_cure(executor, fn):
    with pytest.raises(TypeError, match="fn must return an iterable"):
        next(ordered_flat_map(lambda x: fn(x), [0], executor=executor))
    with pytest.raises(TypeError, match="ordered_aflat_map"):
        ordered_flat_map(fn, [0], executor=executor)


@everywhere
@pytest.mark.parametrize("where", ["fn", "iter"])
def test_g11_stop_iteration_never_ends_the_loop_silently(executor, where):
    class Odd:
        def __iter__(self):
            raise StopIteration("from iter")

    def produce(x):
        if where == "iter":
            return Odd()
        raise StopIteration("from fn")

    with pytest.raises(RuntimeError, match="StopIteration"):
        list(ordered_flat_map(produce, [1], executor=executor))


@everywhere
def test_g11_stop_iteration_inside_a_generator_is_a_runtime_error(executor):
    def produce(x):
        yield x
        next(iter(()))

    run = ordered_flat_map(produce, [1], executor=executor)
    assert next(run) == 1
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(run)


@everywhere
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_g11_exits_go_to_the_consumer_in_turn_past_every_policy(executor, error):
    def produce(x):
        yield x
        if x == 1:
            raise error

    run = ordered_flat_map(produce, range(3), executor=executor, on_error="skip")
    assert [next(run), next(run)] == [0, 1]
    with pytest.raises(error):
        next(run)


@everywhere
def test_g11_skip_and_retry_are_elements_like_any_other(executor):
    again = Retry()
    elements = [SKIP, again, StopIteration, None, False]
    assert list(ordered_flat_map(lambda x: elements, [0], executor=executor)) == elements


@everywhere
def test_g10_an_error_of_the_source_surfaces_after_all_elements_before_it(executor):
    def source():
        yield from "ab"
        raise Oops("source")

    run = ordered_flat_map(lambda x: [x] * 2, source(), executor=executor, on_error="skip")
    assert [next(run) for _ in range(4)] == ["a", "a", "b", "b"]
    with pytest.raises(Oops, match="source"):
        next(run)


@everywhere
def test_g12_no_reference_to_a_delivered_element_its_item_or_error_is_kept(executor):
    gate = Gate()

    class Element:
        pass

    def produce(thing):
        for _ in range(3):
            yield Element()
        if executor == "thread" and GIL:  # else a thread has to be awake for its objects to go
            gate.wait()  # while it produces the next one
        raise Oops

    def gone():
        if GIL:
            wait_until(lambda: all(reference() is None for reference in references))

    references = []
    gc.collect()
    gc.disable()
    try:
        run = ordered_flat_map(produce, map(Thing, range(2)), executor=executor, on_error="return", concurrency=1)
        for _ in range(3):
            references.append(weakref.ref(next(run)))
            gone()
        gate.open()
        failure = next(run)
        references += [weakref.ref(failure.item), weakref.ref(failure.error)]
        del failure
        next(run)
        gone()
        run.close()
        wait_until(lambda: all(reference() is None for reference in references))
    finally:
        gc.enable()


# ---- retries -------------------------------------------------------------------------------------


def flaky(fails, n=0):
    """Fails so often, each time after `n` elements, then makes two."""
    attempts = count()

    def produce(x):
        if next(attempts) < fails:
            yield from range(n)
            raise Oops
        yield x
        yield x

    return produce


POLICIES = {
    "retry": retry(attempts=5, backoff=0.001),
    "retry at once": retry(attempts=5, backoff=0),
    "a function": lambda failure: Retry(),
    "a function that pauses": lambda failure: Retry(after=0.001),
    "retry, then a function": retry(attempts=2, backoff=0, then=lambda failure: Retry()),
}


@everywhere
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("timeout", [None, 100.0])
def test_g09_an_item_that_has_produced_nothing_runs_again(executor, policy, concurrency, timeout):
    fns = {0: flaky(3), 1: lambda x: [x], 2: flaky(4)}
    settings = {} if executor == "serial" else {"timeout": timeout}
    run = ordered_flat_map(
        lambda x: fns[x](x), range(3), executor=executor, concurrency=concurrency, on_error=POLICIES[policy], **settings
    )
    assert list(run) == [0, 0, 1, 2, 2]
    assert run.stats.retried == 7
    assert run.stats.failed == 0


@everywhere
@pytest.mark.parametrize("policy", POLICIES)
def test_g09_retry_is_honoured_only_if_the_item_has_produced_no_element(executor, policy):
    run = ordered_flat_map(flaky(1, 2), "x", executor=executor, on_error=POLICIES[policy])
    assert [next(run), next(run)] == [0, 1]
    with pytest.raises(Oops):
        next(run)
    assert run.stats.retried == 0
    assert run.stats.failed == 1


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("then", ["skip", "value", "raise"])
def test_a_policy_that_gives_up_settles_the_item(policy, then):
    decide = POLICIES[policy]

    def give_up(failure):
        if failure.attempt < 3:
            return decide(failure) if callable(decide) else Retry()
        if then == "raise":
            raise failure.error
        return SKIP if then == "skip" else "gave up"

    run = ordered_flat_map(flaky(9), "xy", concurrency=2, on_error=give_up)
    if then == "raise":
        with pytest.raises(Oops):
            list(run)
    else:
        assert list(run) == ([] if then == "skip" else ["gave up"] * 2)
    run.close()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("concurrency", [1, 2, 4])
@pytest.mark.parametrize("bad", [0, 1, 3])
def test_never_deadlocks_a_retrying_head_keeps_its_slot_among_full_lanes(policy, concurrency, bad):
    """Every other item fills its buffer and waits for its turn; without a slot of its own the head would starve."""
    fail = flaky(3)
    meter = Meter()

    def produce(x):
        with meter:
            if x == bad:
                yield from fail(x)
            else:
                yield from [x] * 20

    run = ordered_flat_map(produce, range(8), concurrency=concurrency, buffer=1, on_error=POLICIES[policy])
    assert list(run) == [x for x in range(8) for _ in range(2 if x == bad else 20)]
    assert meter.peak <= concurrency


def test_a_pausing_item_keeps_its_slot():
    started = Tally()
    fails = flaky(1)

    def produce(x):
        started.add(x)
        return fails(x) if x == 0 else [x]

    with ordered_flat_map(produce, range(5), concurrency=1, on_error=retry(backoff=0.2, jitter=False)) as run:
        assert next(run) == 0
        assert started.seen[:2] == [0, 0]


def test_an_item_whose_policy_may_yet_retry_keeps_its_slot_until_its_turn():
    started, gate = Tally(), Gate()

    def produce(x):
        started.add(x)
        if x == 0:
            gate.wait()
        if x == 1:
            raise Oops
        yield x

    with ordered_flat_map(produce, range(4), concurrency=2, on_error=lambda failure: SKIP) as run:
        getting = Background(list, run)
        started.wait(2)
        absence()
        assert sorted(started.seen) == [0, 1]
        gate.open()
        assert getting.result() == [0, 2, 3]


NO_RETRY = retry(attempts=1)


@pytest.mark.parametrize("policy", ["skip", "return", sentinel(None), NO_RETRY, retry(attempts=1, then="skip")])
def test_an_item_whose_policy_never_retries_frees_its_slot_at_once(policy):
    started, gate = Tally(), Gate()

    def produce(x):
        started.add(x)
        if x == 0:
            gate.wait()
        if x == 1 and policy is not NO_RETRY:
            raise Oops
        yield x

    with ordered_flat_map(produce, range(4), concurrency=2, on_error=policy) as run:
        getting = Background(list, run)
        started.wait(4)
        gate.open()
        assert len(getting.result()) in (3, 4)


@pytest.mark.parametrize("policy", ["retry", "a function", "a function that pauses"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_g17_an_item_that_was_given_up_before_its_first_element_runs_again_and_keeps_its_slot(policy, concurrency):
    gate, attempts, meter = Gate(), count(), Meter()

    def produce(x):
        if x == 0 and next(attempts) < 2:
            gate.wait()
        with meter:
            yield from [x] * 5

    run = ordered_flat_map(
        produce, range(8), timeout=SHORT, concurrency=concurrency, buffer=1, on_error=POLICIES[policy]
    )
    assert list(run) == [x for x in range(8) for _ in range(5)]
    assert run.stats.abandoned == 2
    assert run.stats.retried == 2
    assert meter.peak <= concurrency
    gate.open()
