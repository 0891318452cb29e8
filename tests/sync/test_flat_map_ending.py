"""`ordered_flat_map` on threads and serially: time limits, closing, several consumers."""

import itertools
import threading
from functools import partial
from itertools import chain, count

import pytest

from generators_for_workers import Oops
from inturn import Retry, ordered_flat_map, retry
from waiting import HOUR, SHORT, Background, Gate, Tally, absence, wait_until

EXECUTORS = ["thread", "serial"]
everywhere = pytest.mark.parametrize("executor", EXECUTORS)


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
    """If it did not, an eighth would be all that the last step takes, and the run would not end."""
    now, over = [0.0], Gate()

    def produce(x):
        for n in range(8):
            now[0] += SHORT / 8
            yield n
        now[0] += SHORT / 8
        over.wait()

    run = ordered_flat_map(produce, [0], timeout=SHORT, on_error="return", buffer=3)
    run._run.job.clock = lambda: now[0]
    *elements, failure = run
    over.open()
    assert 1 <= len(elements) <= 8
    assert isinstance(failure.error, TimeoutError)
    run.close()


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


@everywhere
def test_g13_a_run_that_was_closed_in_the_midst_of_an_item_says_that_nothing_runs(executor):
    run = ordered_flat_map(range, [5, 5], executor=executor, concurrency=1, buffer=1)
    assert next(run) == 0
    run.close()
    assert run.stats.running == 0


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
    slots = 1 if executor == "serial" else 2
    run = ordered_flat_map(partial(leaves_a_note, closed), count(), concurrency=slots, executor=executor)
    for _ in range(4):  # each pulls at least one item
        next(run)
    running = run._run.job.pool.running
    wait_until(lambda: executor == "serial" or running() == slots)
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
