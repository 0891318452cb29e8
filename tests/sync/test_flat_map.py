"""`ordered_flat_map` on threads and serially: order, laziness, bounds; what a run shows of itself, and bad input."""

import contextvars
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, count

import hypothesis.strategies as st
import pytest
from hypothesis import given

from generators_for_workers import steps
from inturn import Threads, ordered_flat_map, ordered_map
from waiting import HANG_S, Gate, Meter, Source, Tally, absence, wait_until

EXECUTORS = ["thread", "serial"]
everywhere = pytest.mark.parametrize("executor", EXECUTORS)


def model(fn, *sources):
    return list(chain.from_iterable(map(fn, *sources)))


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
