"""`with Threads(...) as workers:`: threads that outlive a run and are shared by all runs of the block."""

import asyncio
import contextvars
import gc
import itertools
import pickle
import threading
import weakref

import pytest

from inturn import Threads, ordered_amap, ordered_flat_map, ordered_map
from waiting import HANG_S, SHORT, Gate, Tally, wait_until

word = contextvars.ContextVar("word", default="nothing")


def thread_of(_):
    return threading.current_thread().name


def same(x):
    return x


async def list_of(run):
    return [value async for value in run]


# ---- one after the other -------------------------------------------------------------------------


def test_g35_threads_are_started_and_initialized_once_for_all_runs():
    initialized, finalized = Tally(), Tally()
    settings = Threads(
        lambda: initialized.add(threading.current_thread().name),
        finalizer=lambda: finalized.add(threading.current_thread().name),
        max_workers=2,
        name="kept",
    )
    with settings as workers:
        names = set()
        for _ in range(20):
            names |= set(ordered_map(thread_of, range(10), executor=workers))
        names |= set(asyncio.run(list_of(ordered_amap(thread_of, range(10), executor=workers))))
        names |= set(ordered_flat_map(lambda x: [thread_of(x)], range(10), executor=workers))
        assert finalized.seen == []
    assert names <= {"kept-1", "kept-2"}
    assert sorted(initialized.seen) == sorted(finalized.seen)
    assert len(set(initialized.seen)) == len(initialized.seen) <= 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kept")]


def test_g35_a_run_leaves_nothing_in_the_threads():
    class Thing:
        pass

    def call(item):
        word.set("from an earlier run")
        return None

    with Threads(max_workers=1) as workers:
        for end_early in (False, True):
            items = [Thing() for _ in range(5)]
            left = [weakref.ref(each) for each in (*items, call)]
            run = ordered_map(call, items, executor=workers)
            del items
            if end_early:
                next(run)
                run.close()
            else:
                assert list(run) == [None] * 5
            del run
            assert [ref() for ref in left[:-1]] == [None] * 5
            assert list(ordered_map(lambda _: word.get(), [0], executor=workers)) == ["nothing"]
        ref = weakref.ref(call)
        del call
        gc.collect()
        assert ref() is None


def test_g35_calls_see_what_the_initializer_has_set_and_the_context_of_their_own_run():
    mine = contextvars.ContextVar("mine")
    mine.set("the block's")
    with Threads(lambda: word.set("initialized"), max_workers=1) as workers:
        for value in ("one", "two"):
            mine.set(value)
            assert list(ordered_map(lambda _: (word.get(), mine.get()), [0], executor=workers)) == [
                ("initialized", value)
            ]
    assert word.get() == "nothing"


def test_g35_an_initializer_that_fails_ends_its_run_and_the_next_run_tries_again():
    attempts = Tally()

    def fails_once():
        attempts.add(1)
        if len(attempts.seen) == 1:
            raise ValueError("not yet")

    with Threads(fails_once, max_workers=1) as workers:
        with pytest.raises(ValueError, match="not yet"):
            list(ordered_map(same, range(3), executor=workers))
        for _ in range(3):
            assert list(ordered_map(same, range(3), executor=workers)) == [0, 1, 2]
    assert len(attempts.seen) == 2


def test_g35_a_call_that_was_given_up_costs_its_thread():
    gate = Gate()
    with Threads(max_workers=1) as workers:
        run = ordered_map(
            lambda x: gate.wait() if x == 1 else x, range(4), executor=workers, timeout=SHORT, on_error="return"
        )
        first, failure, *others = run
        assert isinstance(failure.error, TimeoutError)
        assert [first, *others] == [0, 2, 3]
        assert list(ordered_map(same, range(3), executor=workers)) == [0, 1, 2]
    gate.open()


# ---- at once, nested -----------------------------------------------------------------------------


def test_g35_runs_at_once_share_the_threads():
    busy, most = [], []

    def call(x):
        busy.append(x)
        most.append(len(busy))
        threading.Event().wait(0.0005)
        busy.pop()
        return x

    results = {}

    def consume(k):
        results[k] = list(ordered_map(call, range(100), executor=workers, concurrency=3))

    with Threads(max_workers=3) as workers:
        threads = [threading.Thread(target=consume, args=(k,)) for k in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == {k: list(range(100)) for k in range(5)}
    assert max(most) <= 3


def test_g35_an_idle_run_makes_room_and_a_busy_one_at_its_next_call():
    gate, begun = Gate(), Tally()
    with Threads(max_workers=1) as workers:
        idle = ordered_map(same, itertools.count(), executor=workers, window=4)
        assert next(idle) == 0  # its window is full, and its thread idle
        assert list(ordered_map(same, range(3), executor=workers)) == [0, 1, 2]

        def call(x):
            begun.add(x)
            gate.wait()
            return x

        busy = ordered_map(call, itertools.count(), executor=workers, concurrency=1)
        consumer = threading.Thread(target=next, args=(busy,))
        consumer.start()
        wait_until(lambda: begun.seen)
        waiting = ordered_map(same, range(3), executor=workers)
        results = []
        other = threading.Thread(target=lambda: results.extend(waiting))
        other.start()
        (store,) = workers._block.stores.values()
        wait_until(lambda: store.waiting)
        gate.open()
        other.join()
        consumer.join()
        assert results == [0, 1, 2]
        busy.close()
        idle.close()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_g22_nested_runs_on_threads_that_are_all_busy_do_not_wait_for_themselves(depth):
    def call(level, x):
        if not level:
            return x
        return sum(ordered_map(lambda y: call(level - 1, y), range(3), executor=workers))

    with Threads(max_workers=2) as workers:
        assert list(ordered_map(lambda x: call(depth, x), range(6), executor=workers)) == [3**depth] * 6


def test_g22_runs_nest_on_kept_threads_through_another_executor():
    with Threads(max_workers=1) as workers, Threads(max_workers=1) as others:

        def inner(x):
            return sum(ordered_map(same, [x, 1], executor=workers))

        def middle(x):
            return sum(ordered_map(inner, [x, 2], executor=others))

        assert list(ordered_map(middle, range(4), executor=workers)) == [x + 4 for x in range(4)]


def test_g22_an_event_loop_inside_a_call_on_kept_threads():
    def call(x):
        return sum(asyncio.run(list_of(ordered_amap(same, [x, 1], executor=workers))))

    with Threads(max_workers=1) as workers:
        assert list(ordered_map(call, range(3), executor=workers)) == [1, 2, 3]


def test_g35_lanes_that_wait_for_their_consumer_hold_up_no_other_run():
    with Threads(max_workers=2) as workers:
        flat = ordered_flat_map(lambda x: ((x, i) for i in range(50)), range(5), executor=workers, buffer=2)
        for x in range(5):
            for i in range(50):
                assert next(flat) == (x, i)
                if not i % 10:
                    assert list(ordered_map(same, range(3), executor=workers)) == [0, 1, 2]
        assert list(flat) == []


def test_g35_a_policy_of_a_flat_map_may_use_the_workers_of_its_run():
    def fails(x):
        raise ValueError(x)
        yield

    with Threads(max_workers=1) as workers:
        flat = ordered_flat_map(
            fails, range(3), executor=workers, on_error=lambda failure: sum(ordered_map(same, [1, 2], executor=workers))
        )
        assert list(flat) == [3, 3, 3]


# ---- the end of the block ------------------------------------------------------------------------


def test_g35_leaving_the_block_waits_for_running_calls_and_ends_open_runs():
    gate, ended = Gate(), Tally()

    def call(x):
        if x:
            gate.wait()
        return ended.add(x)

    workers = Threads(max_workers=2)
    with workers:
        run = ordered_map(call, itertools.count(), executor=workers, concurrency=2)
        next(run)
        wait_until(lambda: run.stats.running == 2)
        threading.Timer(0.05, gate.open).start()
    assert len(ended.seen) == 3  # the one that was delivered, and the two that ran
    with pytest.raises(RuntimeError, match="`with` block"):
        next(run)
    with pytest.raises(RuntimeError, match="`with` block"):
        list(ordered_map(same, [1], executor=workers))


def test_g35_a_consumer_in_another_thread_learns_that_the_block_was_left():
    results, errors = Tally(), []
    gate = Gate()

    def consume():
        try:
            for value in ordered_map(lambda x: x if x < 3 else gate.wait(), itertools.count(), executor=workers):
                results.add(value)
        except RuntimeError as error:
            errors.append(str(error))

    with Threads(max_workers=1) as workers:
        consumer = threading.Thread(target=consume)
        consumer.start()
        wait_until(lambda: len(results.seen) == 3)
        threading.Timer(0.05, gate.open).start()
    consumer.join(HANG_S)
    assert len(errors) == 1
    assert "`with` block" in errors[0]


def test_g35_leaving_the_block_inside_a_call_of_its_runs_does_not_wait_for_that_call():
    def call(x):
        workers.__exit__(None, None, None)
        return x

    workers = Threads(max_workers=1)
    workers.__enter__()
    with pytest.raises(RuntimeError, match="`with` block"):
        list(ordered_map(call, range(3), executor=workers))


def test_g35_the_last_reference_ends_the_threads():
    finalized = Tally()
    workers = Threads(finalizer=lambda: finalized.add(1), max_workers=2, name="forgotten").__enter__()
    run = ordered_map(same, itertools.count(), executor=workers)
    next(run)
    del workers
    assert next(run) == 1  # an open run keeps them
    run.close()
    wait_until(lambda: not [each for each in threading.enumerate() if each.name.startswith("forgotten")])
    assert finalized.seen


def test_g35_pickles_are_settings_without_a_block():
    with Threads(max_workers=1, name="settings") as workers:
        other = pickle.loads(pickle.dumps(workers))
        assert repr(other) == repr(workers)
        assert other._current() is None
