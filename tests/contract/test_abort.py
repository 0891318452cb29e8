"""Guarantees 9 and 33: `on_error="abort"`, the first failure in time ends the run at once."""

import asyncio
import itertools
from functools import partial

import pytest

from coroutines import Calls
from functions_for_workers import Oops, double, fail_at
from inturn import Limiter, ordered_aflat_map, ordered_amap, ordered_flat_map, retry, sentinel
from results import until_error
from waiting import HOUR, Background, Gate, Tally, primed, wait_until


def test_g09_abort_raises_a_failure_with_its_note_and_ends_the_run(driver):
    run = driver.map(partial(fail_at, frozenset({0})), itertools.count(), on_error="abort")
    with pytest.raises(Oops) as caught:
        list(run)
    assert any(note.startswith("item 0: ") for note in caught.value.__notes__)
    assert next(run, "over") == "over"
    assert run.stats.failed == 1


def test_g09_abort_raises_at_once_behind_a_slow_head(overlapping):
    head, begun = Gate(), Gate()

    def call(i):
        if i == 0:
            begun.open()
            head.wait()
        if i == 3:
            begun.wait()
            raise Oops(i)
        return i

    run = overlapping.map(call, itertools.count(), concurrency=4, window=8, on_error="abort")
    with pytest.raises(Oops, match="3"):
        next(run)
    assert not head.is_open
    assert next(run, "over") == "over"
    head.open()
    run.close()


def test_g09_the_first_in_time_is_raised_not_the_first_in_turn(overlapping):
    first = Gate()

    def call(i):
        if i == 1:
            first.wait()
        raise Oops(i)

    run = overlapping.map(call, [1, 2], concurrency=2, on_error="abort")
    with pytest.raises(Oops, match="2"):
        next(run)
    first.open()
    run.close()
    assert run.stats.failed == 1


def test_g09_nothing_starts_after_the_failure_while_the_consumer_is_away(overlapping):
    started, fails = Tally(), Gate()

    def call(i):
        started.add(i)
        if i == 2:
            fails.wait()
            raise Oops(i)
        return i

    run, source = primed(overlapping, call, window=6, concurrency=1, on_error="abort")
    started.wait(3)
    pulls = source.pulls
    fails.open()
    wait_until(lambda: run.stats.failed)
    with pytest.raises(Oops, match="2"):
        next(run)
    run.close()
    assert started.seen == [0, 1, 2]
    assert source.pulls <= pulls + overlapping.live  # a feeder may be inside a pull


def test_g09_a_failure_counts_when_it_has_ended_the_run(threads):
    held_up = Gate()
    run = threads.map(partial(fail_at, frozenset({1})), range(3), concurrency=1, on_error="abort")
    job = run._run.job
    note = job.note

    def late(index, err):
        held_up.wait()
        note(index, err)

    job.note = late
    assert next(run) == 0
    wait_until(job.aborted.taken)
    assert run.stats.failed == 0
    held_up.open()
    wait_until(lambda: run.stats.failed == 1)
    _, error = until_error(run)
    assert isinstance(error, Oops)


def test_g09_what_is_held_ahead_is_not_delivered_after_the_failure(overlapping):
    """Tiny items travel in batches; a failure comes before those that are ready, as before those that are not."""
    fails, failed = Gate(), Gate()

    def call(i):
        if i == 99:
            fails.wait()
            try:
                raise Oops(i)
            finally:
                failed.open()
        return i

    run = overlapping.map(call, range(100), concurrency=2, window=100, on_error="abort")
    assert next(run) == 0
    fails.open()
    failed.wait()
    wait_until(lambda: run.stats.failed)
    with pytest.raises(Oops):
        next(run)


def test_g09_retry_may_hand_over_to_abort(driver):
    policy = retry(attempts=3, backoff=0, then="abort")
    run = driver.map(partial(fail_at, frozenset({1})), range(4), on_error=policy)
    with pytest.raises(Oops):
        list(run)
    assert run.stats.retried == 2
    assert run.stats.failed == 1


def test_g09_policies_that_give_a_value_do_not_abort(driver):
    policy = retry(attempts=2, backoff=0, on=ValueError, then=sentinel("?"))
    assert list(driver.map(partial(fail_at, frozenset({1})), range(3), on_error=policy)) == [0, "?", 4]
    assert list(driver.map(double, range(3), on_error="abort")) == [0, 2, 4]


def test_g09_an_error_of_the_source_has_its_turn(pulling):
    def source():
        yield 1
        raise Oops("source")

    run = pulling.map(double, source(), on_error="abort")
    assert next(run) == 2
    with pytest.raises(Oops, match="source"):
        next(run)


@pytest.mark.parametrize("executor", ["thread", "serial", "process"])
def test_g09_a_flat_map_aborts(executor):
    run = ordered_flat_map(partial(fails_after, 1), range(3), executor=executor, on_error="abort")
    with pytest.raises(Oops) as caught:
        list(run)
    assert caught.value.__notes__
    assert run.stats.failed == 1


def fails_after(bad, item):
    yield item
    if item == bad:
        raise Oops(item)
    yield item


def test_g09_a_flat_map_aborts_behind_a_slow_head():
    head = Gate()

    def elements(item):
        if item == 0:
            head.wait()
        raise Oops(item)
        yield

    run = ordered_flat_map(elements, range(2), concurrency=2, on_error="abort")
    with pytest.raises(Oops, match="1"):
        next(run)
    head.open()
    run.close()


def test_g33_tasks_are_cancelled_at_once_also_while_the_consumer_is_away():
    async def main():
        calls, fails, last_began = Calls(), asyncio.Event(), asyncio.Event()

        async def call(i):
            if i == 2:
                await fails.wait()
                raise Oops(i)
            if i == 0:
                return i
            if i == 3:
                last_began.set()
            await calls(i)

        async with ordered_amap(call, range(4), on_error="abort") as run:
            assert await anext(run) == 0
            await last_began.wait()  # in the same turn, unless the machine is busy
            fails.set()
            while calls.ended < 2:  # noqa: ASYNC110 - nothing announces it; the consumer is not in anext
                await asyncio.sleep(0)
            with pytest.raises(Oops, match="2"):
                await anext(run)

    asyncio.run(main())


def test_g33_an_async_flat_map_aborts():
    async def main():
        forever, ended = asyncio.Event(), []

        async def elements(i):
            try:
                if i == 0:
                    await forever.wait()
                raise Oops(i)
                yield
            finally:
                ended.append(i)

        async with ordered_aflat_map(elements, range(2), on_error="abort") as run:
            with pytest.raises(Oops, match="1"):
                await anext(run)
            assert sorted(ended) == [0, 1]

    asyncio.run(main())


def test_g09_abort_ends_a_pause_and_the_wait_for_a_limit(overlapping):
    limiter = Limiter(1000)
    pausing, fails = Gate(), Gate()

    def call(i):
        if i == 0:
            raise OSError(i)
        pausing.wait()
        limiter.pause(HOUR)
        fails.wait()
        raise Oops(i)

    policy = retry(on=OSError, backoff=HOUR, max_backoff=HOUR, on_retry=lambda _: pausing.open(), then="abort")
    run = overlapping.map(call, range(9), on_error=policy, concurrency=2, limit=limiter)
    consumer = Background(next, run)
    pausing.wait()
    fails.open()
    with pytest.raises(Oops):
        consumer.result()
    run.close()
