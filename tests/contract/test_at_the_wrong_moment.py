"""Threads that come just when another one has looked and not yet acted: the moments are made, not waited for."""

import asyncio
import itertools
import sys

import pytest

from functions_for_workers import Oops, double, same
from inturn import Processes, Threads, ordered_amap, ordered_flat_map, ordered_map
from inturn._pools.worker_threads import ThreadStore
from waiting import Background, Gate, Tally, wait_until

posix = pytest.mark.skipif(sys.platform == "win32", reason="no POSIX processes")


@pytest.mark.parametrize("settings", [Threads, pytest.param(Processes, marks=posix)])
def test_g35_the_block_may_be_left_just_when_a_run_takes_a_kept_thread(settings, monkeypatch):
    taken, go_on, take = Gate(), Gate(), ThreadStore.take

    def take_slowly(store, share):
        thread = take(store, share)
        if thread is not None:
            taken.open()
            go_on.wait()
        return thread

    with settings(max_workers=1) as workers:
        assert list(ordered_map(double, range(3), executor=workers)) == [0, 2, 4]
        monkeypatch.setattr(ThreadStore, "take", take_slowly)
        consumer = Background(list, ordered_map(double, range(3), executor=workers))
        taken.wait()
        leaving = Background(workers.__exit__, None, None, None)
        wait_until(lambda: workers._block.left)
        go_on.open()
        leaving.result()
    with pytest.raises(RuntimeError, match="was left"):
        consumer.result()


@pytest.mark.parametrize("settings", [{}, {"trace": True}, {"live": True}], ids=str)
def test_g16_close_from_another_thread_just_when_an_element_is_taken(settings):
    def produce(x):
        yield from range(50)

    run = ordered_flat_map(produce, itertools.count(), concurrency=1, **settings)
    wait_until(lambda: next(run) is not None and run._held.buffer)
    lane = run._held

    class Closing:
        """The elements of the head: they are there when the consumer looks, and then the run is closed."""

        def __init__(self, buffer):
            self.buffer = buffer

        def __bool__(self):
            lane.buffer = self.buffer
            Background(run.close).result()
            return True

    lane.buffer = Closing(lane.buffer)
    assert next(run, "over") == "over"


def test_g23_a_second_consumer_that_takes_the_last_result_there_is_ends_nothing():
    run = ordered_map(same, range(2000), concurrency=1)
    results = []
    wait_until(lambda: results.append(next(run)) or len(run._held) > 1)

    class Taken(list):
        """Results that are ready: they are there when the consumer looks, and then another one takes them."""

        def __bool__(self):
            left = len(self)
            results.extend(Background(lambda: [self.pop() for _ in range(left)]).result())
            return left > 0

    run._held = run._run.window.held = Taken(run._held)
    results += run
    assert results == list(range(2000))


def test_g03_a_run_that_a_thread_pulls_keeps_the_window_when_its_items_are_taken_while_it_pulls():
    slow, source = Gate(), Tally()

    def first_stage(i):
        source.add(i)
        if i == 1:
            slow.wait()
        return i

    async def main():
        hold = asyncio.Event()

        async def call(x):
            await hold.wait()
            return x

        first = ordered_map(first_stage, itertools.count(), executor="serial")
        async with ordered_amap(call, first, window=4, concurrency=2) as run:
            consumer = asyncio.ensure_future(anext(run))
            await asyncio.to_thread(source.wait, 2)  # the thread has one item, and pulls the next
            (puller,) = run._feeder.in_thread
            puller._answered.set()  # as it may be from the handful before
            await asyncio.to_thread(wait_until, lambda: run.stats.pulled == 1)
            await asyncio.sleep(0.01)  # it asks for another one
            slow.open()
            await asyncio.to_thread(source.wait, 4)
            await asyncio.to_thread(wait_until, lambda: run.stats.pulled == 4)
            assert not puller.pulling
            assert source.seen == [0, 1, 2, 3]
            hold.set()
            assert await consumer == 0

    asyncio.run(main())


def test_g16_a_run_that_is_closed_while_its_first_failure_is_noticed_stays_closed():
    closed, noticed = Gate(), Gate()

    class Item:
        """Its repr goes into the note of the error."""

        def __repr__(self):
            run.close()  # it does not wait: this is a thread of the run
            closed.open()
            noticed.wait()
            return "item"

    def fail(item):
        raise Oops

    run = ordered_map(fail, [Item()], on_error="abort")
    consumer = Background(next, run, "over")
    closed.wait()
    assert consumer.result() == "over"
    noticed.open()
    run.close()
    assert next(run, "over") == "over"


def test_g28_a_supervisor_that_fails_while_it_leaves_keeps_nobody_waiting(monkeypatch):
    from inturn._pools.store import Store

    def out_of_memory(store, share):
        raise MemoryError

    shown = []
    with monkeypatch.context() as patched:
        patched.setattr(Store, "end", out_of_memory)
        patched.setattr(sys, "unraisablehook", shown.append)
        assert list(ordered_map(double, range(3))) == [0, 2, 4]
        wait_until(lambda: shown)
        assert [each.exc_type for each in shown] == [MemoryError]
    shown.clear()
