"""`ordered_flat_map` on threads and serially: order, liveness, bounds, failures, retries, time, closing, bad input."""

import contextvars
import gc
import itertools
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, count

import hypothesis.strategies as st
import pytest
from hypothesis import given

from inturn import SKIP, Failure, Report, Retry, Threads, ordered_flat_map, ordered_map, retry, sentinel
from waiting import HANG_S, HOUR, SHORT, Background, Gate, Meter, Source, Tally, Thing, absence, spend, wait_until

GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
EXECUTORS = ["thread", "serial"]
everywhere = pytest.mark.parametrize("executor", EXECUTORS)


class Oops(Exception):
    pass


def steps(x):
    """Zero to four elements."""
    for n in range(x % 5):
        yield x, n


def model(fn, *sources):
    return list(chain.from_iterable(map(fn, *sources)))


def breaks_after(n, x):
    for k in range(n):
        yield x, k
    raise Oops(x)


# ---- order and laziness --------------------------------------------------------------------------


@everywhere
@pytest.mark.parametrize("window", [1, 3, 20, 100, None])
@pytest.mark.parametrize("buffer", [1, 2, 64])
def test_g01_elements_are_delivered_as_if_by_chain_from_iterable_of_map(executor, window, buffer):
    run = ordered_flat_map(steps, range(20), executor=executor, concurrency=4, window=window, buffer=buffer)
    assert list(run) == model(steps, range(20))


@given(
    st.lists(st.integers(0, 9), max_size=20),
    st.integers(1, 4),
    st.none() | st.integers(1, 8),
    st.integers(1, 5),
    st.sampled_from(EXECUTORS),
    st.sampled_from([None, 100.0]),
)
def test_g01_whatever_the_lengths_of_the_lanes(lengths, concurrency, window, buffer, executor, timeout):
    fn = partial(map, lambda k: (k,))
    settings = {} if executor == "serial" else {"timeout": timeout}
    run = ordered_flat_map(
        lambda n: fn(range(n)),
        lengths,
        executor=executor,
        concurrency=concurrency,
        window=window,
        buffer=buffer,
        **settings,
    )
    assert list(run) == [(k,) for n in lengths for k in range(n)]


@everywhere
def test_g02_nothing_happens_before_the_first_next(executor):
    calls, source = Tally(), Source(range(3))
    run = ordered_flat_map(lambda x: [calls.add(x)], source, executor=executor)
    absence()
    assert not source.pulls
    assert not len(calls)
    assert list(run) == [0, 1, 2]


@everywhere
def test_several_iterables_are_zipped(executor):
    run = ordered_flat_map(lambda a, b: [a] * b, "xyz", [2, 0, 1], executor=executor)
    assert "".join(run) == "xxz"


@everywhere
def test_fn_may_return_any_iterable(executor):
    results = [
        [1, 2],
        (3,),
        {4: None},
        "56",
        range(7, 9),
        iter([9]),
        b"\x0a",
        (x for x in (11,)),
        ordered_map(abs, [-12]),
    ]
    run = ordered_flat_map(lambda k: results[k], range(len(results)), executor=executor)
    assert list(run) == [1, 2, 3, 4, "5", "6", 7, 8, 9, 10, 11, 12]


@everywhere
def test_all_lanes_may_be_empty(executor):
    assert list(ordered_flat_map(lambda x: (), range(500), executor=executor, concurrency=3)) == []
    assert list(ordered_flat_map(steps, [], executor=executor)) == []


def test_the_heads_elements_are_delivered_as_they_are_produced():
    gates = [Gate() for _ in range(3)]

    def produce(x):
        for gate in gates:
            gate.wait()
            yield x

    with ordered_flat_map(produce, "ab", concurrency=2) as run:
        for gate in gates:
            gate.open()
            assert next(run) == "a"


def test_the_first_element_arrives_after_the_time_of_one_element():
    gate = Gate()

    def produce(x):
        yield "first"
        gate.wait()
        yield "last"

    with ordered_flat_map(produce, [0], concurrency=1) as run:
        assert next(run) == "first"
        gate.open()
        assert next(run) == "last"


def test_up_to_concurrency_items_produce_at_once():
    meter, four = Meter(), threading.Barrier(4)

    def produce(x):
        with meter:
            four.wait(HANG_S)
            yield x
            yield x

    assert list(ordered_flat_map(produce, range(8), concurrency=4)) == [x for x in range(8) for _ in "ab"]
    assert meter.peak == 4


@pytest.mark.parametrize("buffer", [1, 2, 7, 64])
def test_every_item_produces_at_most_buffer_elements_ahead_and_then_waits(buffer):
    made = [Tally() for _ in range(3)]

    def produce(x):
        for n in count():
            made[x].add(n)
            yield x, n

    with ordered_flat_map(produce, range(3), concurrency=3, buffer=buffer) as run:
        for taken in range(1, 3 * buffer):
            assert next(run) == (0, taken - 1)
            assert len(made[0]) <= taken + buffer
        for x in (1, 2):
            made[x].wait(buffer)
        if buffer < 16:  # a large buffer is topped up by the handful
            made[0].wait(taken + buffer)
        absence()
        assert [len(each) for each in made[1:]] == [buffer, buffer]
        assert len(made[0]) <= taken + buffer


@pytest.mark.parametrize("live", [False, True])
def test_g03_at_most_window_items_are_pulled_and_not_delivered_to_their_end(live):
    source = Source(range(30))
    window, done = 5, 0
    for x, n in ordered_flat_map(lambda x: [(x, 0), (x, 1)], source, concurrency=2, window=window, live=live):
        assert source.pulls <= x + window + n
        done += 1
    assert done == 60


def test_g03_an_infinite_source_of_endless_generators_is_fine():
    with ordered_flat_map(lambda x: count(), count(), concurrency=3) as run:
        assert list(itertools.islice(run, 5000)) == list(range(5000))


@everywhere
def test_indexed_delivers_the_index_of_the_item_with_each_element(executor):
    run = ordered_flat_map(steps, range(12), executor=executor, concurrency=3, indexed=True, buffer=2)
    assert list(run) == [(x, (x, n)) for x in range(12) for n in range(x % 5)]


def test_g07_what_was_pulled_is_produced_while_the_consumer_is_away():
    made, full = Tally(), Gate()
    source = Source(count(), lambda k: full.open() if k == 7 else None)

    def produce(x):
        if x == 0:
            full.wait()
        return [made.add(x)]

    with ordered_flat_map(produce, source, concurrency=2, window=8) as run:
        assert next(run) == 0
        made.wait(8)
        absence()
        assert len(made) == source.pulls == 8


@pytest.mark.parametrize("live", [False, True])
def test_g05_the_window_is_filled_while_the_head_always_has_elements(live):
    """Or the items behind it would not be made ahead when the consumer is slower than the head."""
    ahead, made, source = Gate(), Tally(), Source(range(20))

    def produce(x):
        for n in count():
            if (x, n) == (0, 1):
                ahead.wait()
            yield made.add(x)

    with ordered_flat_map(produce, source, concurrency=3, window=6, live=live) as run:
        assert next(run) == 0
        ahead.open()
        wait_until(lambda: made.seen.count(0) >= 64)
        for _ in range(10):
            assert next(run) == 0
        wait_until(lambda: source.pulls == 6)
        wait_until(lambda: set(made.seen) == {0, 1, 2})


def test_g06_live_a_ready_element_never_waits_for_the_source():
    gate = Gate()

    def source():
        yield 0
        gate.wait()
        yield 1

    with ordered_flat_map(lambda x: [x] * 3, source(), concurrency=2, live=True) as run:
        assert [next(run) for _ in range(3)] == [0, 0, 0]
        gate.open()
        assert list(run) == [1, 1, 1]


@everywhere
def test_serial_and_threads_produce_in_one_context_copy_per_item(executor):
    var = contextvars.ContextVar("var", default=0)
    var.set(5)

    def produce(x):
        assert var.get() == 5
        for n in range(3):
            var.set(100 * x + n)
            yield var.get()
            assert var.get() == 100 * x + n

    run = ordered_flat_map(produce, range(1, 5), executor=executor, concurrency=2)
    assert list(run) == [100 * x + n for x in range(1, 5) for n in range(3)]
    assert var.get() == 5


def test_serial_produces_each_element_in_the_consumers_thread_when_it_is_delivered():
    seen = []

    def produce(x):
        for n in range(3):
            seen.append((x, n, threading.get_ident()))
            yield x, n

    me = threading.get_ident()
    for element in ordered_flat_map(produce, range(3), executor="serial", concurrency=4):
        assert seen[-1] == (*element, me)


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
def test_g09_what_the_policy_returns_takes_the_place_of_the_rest(executor, policy, instead):
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
def test_indexed_delivers_what_takes_the_place_of_the_rest_with_its_index(executor):
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
def test_never_deadlocks_a_retrying_head_keeps_its_place_among_full_lanes(policy, concurrency, bad):
    """Every other item fills its buffer and waits for its turn; without a place of its own the head would starve."""
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


def test_a_pausing_item_keeps_its_place():
    started = Tally()
    fails = flaky(1)

    def produce(x):
        started.add(x)
        return fails(x) if x == 0 else [x]

    with ordered_flat_map(produce, range(5), concurrency=1, on_error=retry(backoff=0.2, jitter=False)) as run:
        assert next(run) == 0
        assert started.seen[:2] == [0, 0]


def test_an_item_whose_policy_may_yet_retry_keeps_its_place_until_its_turn():
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


LAST_WORD = retry(attempts=1)


@pytest.mark.parametrize("policy", ["skip", "return", sentinel(None), LAST_WORD, retry(attempts=1, then="skip")])
def test_an_item_whose_policy_never_retries_leaves_its_place_at_once(policy):
    started, gate = Tally(), Gate()

    def produce(x):
        started.add(x)
        if x == 0:
            gate.wait()
        if x == 1 and policy is not LAST_WORD:
            raise Oops
        yield x

    with ordered_flat_map(produce, range(4), concurrency=2, on_error=policy) as run:
        getting = Background(list, run)
        started.wait(4)
        gate.open()
        assert len(getting.result()) in (3, 4)


# ---- time ----------------------------------------------------------------------------------------


def stuck_after(n, gate, x):
    for k in range(n):
        yield x, k
    gate.wait()
    yield "too late"


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("buffer", [1, 64])
def test_g17_an_item_that_produces_longer_fails_after_the_elements_it_has_made(n, buffer):
    gate, closed = Gate(), Tally()

    def produce(x):
        try:
            yield from stuck_after(n, gate, x) if x == 1 else [x]
        finally:
            closed.add(x)

    run = ordered_flat_map(produce, range(3), timeout=SHORT, concurrency=2, on_error="return", buffer=buffer)
    got = list(run)
    failure = got.pop(-2)
    assert got == [0, *((1, k) for k in range(n)), 2]
    assert isinstance(failure.error, TimeoutError)
    assert failure.delivered == n
    assert run.stats.abandoned == 1
    gate.open()
    assert set(closed.wait(3)) == {0, 1, 2}  # the generator that was given up is closed by its thread


def test_g17_time_spent_waiting_for_room_does_not_count():
    with ordered_flat_map(lambda x: range(20), range(3), timeout=SHORT, concurrency=3, buffer=1) as run:
        assert next(run) == 0
        absence(1.5 * SHORT)
        assert list(run) == [*range(1, 20), *range(20), *range(20)]
        assert run.stats.abandoned == 0


def test_g17_the_time_of_all_elements_of_an_item_counts_together():
    def produce(x):
        for n in count():
            spend(SHORT / 8)
            yield n

    run = ordered_flat_map(produce, [0], timeout=SHORT, on_error="return", buffer=3)
    *elements, failure = run
    assert 1 <= len(elements) <= 8
    assert isinstance(failure.error, TimeoutError)
    run.close()


@pytest.mark.parametrize("policy", ["retry", "a function", "a function that pauses"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_g17_an_item_that_was_given_up_before_its_first_element_runs_again_and_keeps_its_place(policy, concurrency):
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


def test_g18_when_the_deadline_is_over_what_is_ready_is_delivered_first():
    gate, made = Gate(), Tally()

    def produce(x):
        for n in range(3):
            yield made.add(n)
        gate.wait()

    run = ordered_flat_map(produce, [0], deadline=SHORT)
    assert next(run) == 0
    made.wait(3)
    absence(SHORT)
    assert [next(run), next(run)] == [1, 2]
    with pytest.raises(TimeoutError, match="deadline"):
        next(run)
    gate.open()


# ---- closing -------------------------------------------------------------------------------------


def leaves_a_note(closed, x):
    try:
        for n in count():
            yield x, n
    finally:
        closed.add((x, threading.current_thread().name.startswith("inturn")))


@pytest.mark.parametrize("timeout", [None, 100.0])
@pytest.mark.parametrize("buffer", [1, 64])
def test_g13_closing_the_run_closes_the_generators_where_they_run(timeout, buffer):
    closed = Tally()
    with ordered_flat_map(
        partial(leaves_a_note, closed), count(), concurrency=3, timeout=timeout, buffer=buffer
    ) as run:
        list(itertools.islice(run, 200))
        wait_until(lambda: run.stats.running == 3)
    assert sorted(closed.seen) == [(0, True), (1, True), (2, True)]


def test_g13_closing_closes_the_generator_of_a_serial_run():
    closed = Tally()
    with ordered_flat_map(partial(leaves_a_note, closed), count(), executor="serial") as run:
        assert [next(run), next(run)] == [(0, 0), (0, 1)]
    assert closed.seen == [(0, False)]


@everywhere
def test_g13_dropping_the_run_closes_the_generators(executor):
    closed = Tally()
    places = 1 if executor == "serial" else 2
    run = ordered_flat_map(partial(leaves_a_note, closed), count(), concurrency=places, executor=executor)
    for _ in range(4):  # each pulls at least one item
        next(run)
    running = run._run.job.pool.running
    wait_until(lambda: executor == "serial" or running() == places)
    del run
    closed.wait(1)


@everywhere
def test_g13_an_error_closes_the_generators(executor):
    closed = Tally()

    def produce(x):
        return leaves_a_note(closed, x) if x else [0]

    run = ordered_flat_map(produce, range(2), executor=executor, on_error="raise")
    assert next(run) == 0
    assert next(run) == (1, 0)
    with pytest.raises(Oops), run:
        raise Oops
    assert len(closed) == 1


def test_g13_close_wakes_items_that_wait_for_room_that_pause_and_that_nobody_has_decided():
    started, closed = Tally(), Tally()

    def produce(x):
        started.add(x)
        if x == 0:
            return leaves_a_note(closed, x)
        raise Oops if x == 1 else KeyError

    policy = retry(on=KeyError, backoff=HOUR, max_backoff=HOUR, then=lambda failure: Retry())
    with ordered_flat_map(produce, range(3), concurrency=3, on_error=policy, buffer=1) as run:
        next(run)
        started.wait(3)
        absence(0.05)
    assert len(closed) == 1


@everywhere
def test_g16_close_may_be_called_from_fn_itself(executor):
    closed = Tally()

    def produce(x):
        try:
            yield 1
            run.close()
            yield 2
        finally:
            closed.add(x)

    run = ordered_flat_map(produce, [0], executor=executor)
    assert set(run) <= {1, 2}
    closed.wait(1)
    assert list(run) == []


def test_g16_a_next_that_waits_raises_stop_iteration_when_the_run_is_closed():
    gate, waiting = Gate(), Gate()

    def produce(x):
        yield x
        waiting.open()
        gate.wait()

    run = ordered_flat_map(produce, [0])
    getting = Background(list, run)
    waiting.wait()
    closing = Background(run.close)
    assert getting.result() in ([0], [])
    gate.open()
    closing.result()


@everywhere
def test_g13_after_close_nothing_is_delivered(executor):
    run = ordered_flat_map(lambda x: range(10), range(5), executor=executor)
    next(run)
    run.close()
    assert list(run) == []
    run.close()


def test_an_error_in_a_generators_finally_block_on_closing_is_dropped():
    def produce(x):
        try:
            yield from count()
        finally:
            raise Oops

    with ordered_flat_map(produce, range(2), concurrency=2) as run:
        assert next(run) == 0


def test_g23_a_second_consumer_gets_a_clear_error():
    gate, waiting = Gate(), Gate()

    def produce(x):
        waiting.open()
        gate.wait()
        yield from range(3)

    run = ordered_flat_map(produce, [0])
    getting = Background(list, run)
    waiting.wait()
    wait_until(lambda: run._run.job.sleeping)
    with pytest.raises(ValueError, match="ordered_flat_map already executing"):
        next(run)
    gate.open()
    assert getting.result() == [0, 1, 2]


def test_g23_without_order_two_consumers_still_share_every_element():
    run = ordered_flat_map(lambda x: range(1000), range(20), concurrency=2)

    def take():
        got = []
        while True:
            try:
                got.append(next(run))
            except StopIteration:
                return got
            except ValueError:
                pass

    both = [Background(take), Background(take)]
    assert sorted(chain.from_iterable(each.result() for each in both)) == sorted(list(range(1000)) * 20)


def test_g22_runs_nest():
    def inner(x):
        return ordered_flat_map(lambda y: [(x, y)] * 2, range(3), concurrency=2)

    run = ordered_flat_map(inner, range(4), concurrency=2)
    assert list(run) == [(x, y) for x in range(4) for y in range(3) for _ in "ab"]


# ---- seeing what happens -------------------------------------------------------------------------


@everywhere
def test_stats_count_items(executor):
    run = ordered_flat_map(steps, range(10), executor=executor)
    list(run)
    stats = run.stats
    assert (stats.pulled, stats.delivered, stats.running, stats.waiting, stats.total) == (10, 10, 0, 0, 10)
    assert "ordered_flat_map of steps: 10 pulled" in repr(run)


def test_stats_the_worker_of_a_waiting_item_counts_as_running():
    made = Tally()

    def produce(x):
        for n in range(3):
            yield made.add(n)

    with ordered_flat_map(produce, range(4), concurrency=3, buffer=2) as run:
        next(run)
        made.wait(3 + 2 + 2)
        assert (run.stats.running, run.stats.waiting) == (3, 0)
        assert next(run) == 1  # and so there is room for the first item to come to its end
        wait_until(lambda: run.stats.waiting == 1)
        assert run.stats.pulled == 4


@everywhere
def test_progress_is_called_and_told_the_end(executor):
    seen = []
    assert list(ordered_flat_map(steps, range(10), executor=executor, progress=seen.append)) == model(steps, range(10))
    assert seen[-1].delivered == 10


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"buffer": 0}, ValueError, "buffer must be at least 1, got 0"),
        ({"buffer": True}, TypeError, "buffer must be an int"),
        ({"buffer": 1.0}, TypeError, "buffer must be an int"),
        ({"buffer": None}, TypeError, "buffer must be an int"),
        ({"concurrency": 0}, ValueError, "concurrency must be at least 1"),
        ({"window": 0}, ValueError, "window must be at least 1"),
        ({"timeout": 0}, ValueError, "timeout must be"),
        ({"deadline": -1}, ValueError, "deadline must be"),
        ({"timeout": 1, "executor": "serial"}, ValueError, "serial"),
        ({"indexed": 1}, TypeError, "indexed must be a bool"),
        ({"on_error": "ignore"}, ValueError, "on_error must be one of"),
        ({"executor": "fork"}, ValueError, "executor must be"),
        ({"executor": 3}, TypeError, "executor must be"),
        ({"executor": ThreadPoolExecutor}, TypeError, "ordered_map"),
        ({"executor": None}, TypeError, "executor must be"),
        ({"chunksize": 2}, TypeError, "chunksize"),
        ({"progress": 3}, TypeError, "progress must be"),
    ],
)
def test_bad_input_is_refused_at_the_call(settings, error, text):
    with pytest.raises(error, match=text):
        ordered_flat_map(steps, [1], **settings)


def test_bad_input_an_executor_instance_cannot_stream():
    with ThreadPoolExecutor(1) as executor, pytest.raises(TypeError, match="executor must be"):
        ordered_flat_map(steps, [1], executor=executor)


@pytest.mark.parametrize(("fn", "sources"), [(3, ([],)), (steps, ()), (steps, (3,))])
def test_bad_input_fn_and_sources(fn, sources):
    with pytest.raises(TypeError):
        ordered_flat_map(fn, *sources)


@everywhere
def test_strict_sources_of_different_length_are_an_error_in_turn(executor):
    run = ordered_flat_map(lambda a, b: [a, b], "ab", "x", executor=executor, strict=True)
    assert [next(run), next(run)] == ["a", "x"]
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is shorter"):
        next(run)


def test_threads_with_settings():
    run = ordered_flat_map(lambda x: [threading.current_thread().name], [0], executor=Threads(name="voice"))
    assert next(run).startswith("voice")
    run.close()
