"""Stages: runs whose source is another run. They end each other, share a deadline, and each failure is told once."""

import asyncio
import gc
import itertools
import operator
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from functions_for_workers import Oops, double, fail_at, same
from inturn import (
    Failure,
    OrderedMap,
    Processes,
    Threads,
    ordered_aflat_map,
    ordered_amap,
    ordered_flat_map,
    ordered_map,
)
from waiting import SHORT, Background, Gate, Source, Tally, wait_until


def over(run):
    return run.stats.running == 0 and next(run, None) is None


def chain_of(runner, call, items, **settings):
    """Three stages; the driver's is the last. Those before it are threads."""
    first = ordered_map(call, items, concurrency=2, window=4, name="first")
    second = ordered_map(same, first, concurrency=2, window=4, name="second")
    return first, second, runner.map(same, second, concurrency=2, window=4, name="third", **settings)


# how stages end


def test_g37_closing_the_last_stage_closes_all(driver):
    calls = Tally()
    source = Source(itertools.count())
    first, second, last = chain_of(driver, calls.add, source)
    assert next(last) == 0
    last.close()
    assert over(first)
    assert over(second)
    assert next(last, None) is None
    pulled, called = source.pulls, len(calls)
    assert pulled <= 1 + 3 * 4
    assert called <= pulled


def test_g37_leaving_the_with_block_waits_for_the_calls_of_all_stages():
    begun, held, ended = Gate(), Gate(), Tally()

    def call(x):
        if x == 9:
            begun.open()
            held.wait()
        return ended.add(x)

    with ordered_map(same, ordered_map(call, range(99), concurrency=4, window=20), window=1) as last:
        assert next(last) == 0
        begun.wait()
        threading.Thread(target=held.open).start()
    assert 9 in ended.seen


def test_g37_a_consumer_that_waits_in_an_earlier_stage_is_woken_by_close(driver):
    begun, held = Gate(), Gate()

    def call(x):
        begun.open()
        held.wait()
        return x

    first, second, last = chain_of(driver, call, range(9))
    consumer = Background(lambda: next(last, "ended"))
    begun.wait()
    closing = Background(last.close)
    wait_until(lambda: first._run.job.stopped, "the first stage is told to end")
    held.open()
    closing.result()
    assert consumer.result() == "ended"
    assert over(first)
    assert over(second)


@pytest.mark.parametrize("live", [False, True])
def test_g37_an_error_of_the_last_stage_ends_the_earlier_ones(live):
    first = ordered_map(same, itertools.count(), concurrency=2)
    last = ordered_map(fail_at, itertools.repeat(frozenset({3})), first, concurrency=2, live=live)
    with pytest.raises(Oops):
        list(last)
    wait_until(lambda: over(first), "the first stage has ended")


def test_g37_a_stage_that_ends_before_its_source_ends_it():
    first = ordered_map(same, itertools.count(), concurrency=2)
    assert list(ordered_map(pow, first, range(3))) == [1, 1, 4]
    assert over(first)


def test_g37_losing_the_last_reference_to_the_last_stage_ends_all():
    first = ordered_map(same, itertools.count(), concurrency=2, name="first")
    last = ordered_map(same, ordered_flat_map(lambda x: [x], first))
    assert next(last) == 0
    del last
    gc.collect()
    wait_until(lambda: over(first), "the first stage has ended")


def test_g37_the_progress_of_each_stage_is_told_when_the_last_is_dropped():
    told = Tally()
    first = ordered_map(same, itertools.count(), progress=lambda stats: told.add("first") if stats.pulled else None)
    last = ordered_map(same, first, progress=lambda stats: told.add("last") if stats.pulled else None)
    assert next(last) == 0
    told.seen.clear()
    del first, last
    gc.collect()
    wait_until(lambda: {"first", "last"} <= set(told.seen), "both are told")


def test_g13_a_source_that_is_not_a_run_itself_is_left_open(driver):
    first = ordered_map(same, itertools.count(), concurrency=2)
    last = driver.map(same, (each for each in first), concurrency=2)
    assert next(last) == 0
    last.close()
    assert next(first) > 0
    first.close()


def test_g37_a_run_that_has_not_begun_is_closed_too(driver):
    first, second, last = chain_of(driver, same, range(9))
    last.close()
    assert over(first)
    assert over(second)


def test_g37_an_earlier_stage_that_is_closed_ends_the_stream(driver):
    first, _second, last = chain_of(driver, same, range(99))
    assert next(last) == 0
    first.close()
    delivered = list(last)
    assert delivered == list(range(1, 1 + len(delivered)))


# errors and the deadline


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_g37_an_error_anywhere_is_raised_once_with_its_stage_in_its_note(driver, stage):
    calls = [same, same, same]
    calls[stage] = raising = Raising()
    run = range(9)
    for number, name in enumerate(["first", "second"]):
        run = ordered_map(calls[number], run, concurrency=2, name=name)
    run = driver.map(calls[2], run, name="third") if stage < 2 or driver.driver.in_process else pytest.skip("pickled")
    delivered = []
    with pytest.raises(Oops) as caught:
        for each in run:
            delivered.append(each)
    assert delivered == [0, 1, 2, 3]
    assert caught.value.__notes__ == [f"item 4: 4 (stage {['first', 'second', 'third'][stage]!r})"]
    assert list(run) == []
    assert raising is calls[stage]


class Raising:
    """Raises at 4."""

    def __call__(self, x):
        if x == 4:
            raise Oops(x)
        return x


def test_g37_the_deadline_of_the_last_covers_all(driver):
    held = Gate()
    first, second, last = chain_of(driver, lambda x: held.wait() if x == 2 else x, range(9), deadline=SHORT)
    with pytest.raises(TimeoutError, match=f"the run took longer than deadline={SHORT:g} s"):
        list(last)
    assert first._run.job.stopped
    assert second._run.job.stopped
    held.open()


def test_g37_nothing_is_pulled_after_the_deadline_of_a_later_stage():
    source = Source(itertools.count())
    first = ordered_map(same, source, window=2)
    last = ordered_map(same, first, window=2, deadline=SHORT)
    assert next(last) == 0
    assert first._run.job.deadline_at == pytest.approx(last._run.job.deadline_at)
    last.close()


def test_g37_an_earlier_stage_keeps_a_deadline_that_comes_first():
    first = ordered_map(same, range(9), deadline=1000.0)
    last = ordered_map(same, first, deadline=2000.0)
    next(last)
    assert first._run.job.deadline_at < last._run.job.deadline_at
    last.close()


# stages that share workers


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("stages", [2, 3, 4])
def test_g37_stages_that_share_an_executor_do_not_wait_for_each_other(workers, stages):
    with ThreadPoolExecutor(workers) as executor:
        run = range(40)
        sources = []
        for _ in range(stages):
            run = ordered_map(double, run, executor=executor, concurrency=3, window=6, name=f"stage {len(sources)}")
            sources.append(run)
        assert list(run) == [2**stages * i for i in range(40)]


@pytest.mark.parametrize("kind", [Threads, Processes])
@pytest.mark.parametrize("workers", [1, 2])
def test_g37_stages_that_share_kept_workers_do_not_wait_for_each_other(kind, workers):
    """The first stage is a flat map: its producers keep their worker while their buffers are full."""
    with kind(max_workers=workers) as shared:
        cut = ordered_flat_map(pair_of, range(20), executor=shared, concurrency=2, buffer=1)
        run = ordered_map(double, cut, executor=shared, concurrency=2, window=2)
        run = ordered_map(double, run, executor=shared, concurrency=2, window=2)
        assert list(run) == [4 * i for i in range(20) for _ in range(2)]


def pair_of(x):
    yield x
    yield x


def test_g37_the_window_of_each_stage_bounds_it():
    """Nobody takes from the last stage: each stage holds its window, and no more."""
    source = Source(itertools.count())
    runs = []
    run = source
    for window in (3, 4, 5):
        run = ordered_map(same, run, window=window, concurrency=2)
        runs.append(run)
    for k in range(20):
        assert next(run) == k
        assert source.pulls <= k + 1 + 3 + 4 + 5
        for each, window in zip(runs, (3, 4, 5), strict=True):
            stats = each.stats
            assert stats.pulled - stats.delivered <= window
    run.close()


# what is known of the origin, and how many are to come


def test_g38_the_name_is_shown(driver):
    names = Tally()
    run = (
        driver.map(lambda x: names.add(threading.current_thread().name) and x, range(3), name="translate")
        if (driver.driver.in_process)
        else driver.map(same, range(3), name="translate")
    )
    assert "'translate'" in repr(run)
    list(run)
    if driver.driver.name in {"thread", "Threads", "timeout", "live", "loop-thread"}:
        assert all(name.startswith("inturn-translate-") for name in names.seen)


def test_g38_processes_bear_the_name():
    (name,) = set(ordered_map(process_name, [1], executor="process", name="encode"))
    assert "encode" in name


def process_name(_):
    import multiprocessing

    return multiprocessing.current_process().name


def test_g38_tasks_bear_the_name():
    async def name(_):
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    async def main():
        async with ordered_amap(name, range(2), name="ask") as run:
            return [each async for each in run]

    assert asyncio.run(main()) == ["inturn-ask-0", "inturn-ask-1"]


@pytest.mark.parametrize("name", ["", 3, b"x"])
def test_g38_the_name_is_a_text(name):
    with pytest.raises((TypeError, ValueError), match="name must"):
        ordered_map(same, [1], name=name)


def test_g38_the_index_is_that_of_the_stage_and_the_origin_that_of_the_first(driver):
    odd = ordered_map(fail_at, itertools.repeat(frozenset(range(0, 20, 2))), range(20), on_error="skip", name="odd")
    run = driver.map(fail_in_half, odd, on_error="return", name="last")
    failures = [each for each in run if isinstance(each, Failure)]
    assert [(each.stage, each.index, each.origin, each.item) for each in failures] == [
        ("last", i, 2 * i + 1, 2 * (2 * i + 1)) for i in range(0, 10, 3)
    ]


def fail_in_half(x):
    if (x // 2) % 6 == 1:
        raise Oops(x)
    return x


def test_g38_the_elements_of_a_flat_map_have_the_origin_of_their_item():
    parts = ordered_flat_map(lambda x: [(x, k) for k in range(x)], range(6), name="cut")
    again = ordered_map(same, parts)

    def call(part):
        raise Oops(part)

    for failure in ordered_map(call, again, on_error="return"):
        assert failure.origin == failure.item[0]
    assert failure.index == sum(range(6)) - 1


def test_g38_the_origin_is_said_in_the_note_where_it_differs():
    flat = ordered_flat_map(lambda x: [x, x], range(3))
    with pytest.raises(Oops) as caught:
        list(ordered_map(fail_at, itertools.repeat(frozenset({2})), flat, name="last"))
    assert caught.value.__notes__[0].endswith("(stage 'last', item 2 of the first stage)")


def test_g38_what_is_kept_about_origins_is_bounded():
    flat = ordered_flat_map(lambda x: range(3), range(2000))
    run = ordered_map(same, flat, window=8)
    most = 0
    for _ in run:
        most = max(most, len(run._run.job.origins._differing))
    assert 0 < most <= 9


def test_g38_a_run_says_how_many_results_are_to_come(driver):
    run = driver.map(same, range(9))
    if driver.driver.in_loop:
        run = run._run
    assert operator.length_hint(run, -1) == 9


@pytest.mark.parametrize("live", [False, True])
def test_g38_the_number_to_come_falls_with_each_result(live):
    run = ordered_map(same, range(9), live=live)
    for left in range(8, -1, -1):
        next(run)
        assert operator.length_hint(run, -1) == left
    assert next(run, None) is None
    assert operator.length_hint(run, -1) == 0


def test_g38_the_number_to_come_is_unknown_for_endless_sources_and_flat_maps():
    assert operator.length_hint(ordered_map(same, itertools.count()), -1) == -1
    assert operator.length_hint(ordered_flat_map(str, range(3)), -1) == -1
    assert operator.length_hint(ordered_map(same, ordered_flat_map(str, range(3))), -1) == -1


def test_g38_a_later_stage_has_the_total_of_the_first():
    run = ordered_map(same, ordered_map(same, ordered_map(same, range(7))))
    assert run.stats.total == 7
    assert list(run) == list(range(7))


def test_g38_the_stages_are_told_from_the_first_to_the_last():
    first = ordered_map(same, range(3), name="first")
    second = ordered_map(same, first, name="second")
    assert second.stages == (first, second)
    assert first.stages == (first,)
    list(second)
    assert second.stages == (first, second)


# which stage holds the others back


def test_g38_stats_say_which_stage_holds_the_others_back():
    """The second of three stages is slow: the first is blocked on its consumer, the third on its source."""
    import time

    first = ordered_map(same, range(40), concurrency=2, window=4)
    slow = ordered_map(lambda x: time.sleep(0.01) or x, first, concurrency=1, window=2)
    last = ordered_map(same, slow, concurrency=2, window=4)
    assert list(last) == list(range(40))
    assert first.stats.blocked_on_consumer > first.stats.blocked_on_source + first.stats.blocked_on_head
    assert slow.stats.blocked_on_head > slow.stats.blocked_on_source + slow.stats.blocked_on_consumer
    assert last.stats.blocked_on_source > last.stats.blocked_on_head + last.stats.blocked_on_consumer


# asyncio


def test_g37_a_synchronous_run_does_not_block_the_loop():
    """The call of the first stage waits for the loop to go on."""
    gate = Gate()

    async def main():
        first = ordered_map(lambda x: gate.wait() or x, range(5), concurrency=2)
        async with ordered_amap(double_later, first) as run:
            asyncio.get_running_loop().call_later(0.01, gate.open)
            return [each async for each in run]

    assert asyncio.run(main()) == [0, 2, 4, 6, 8]


async def double_later(x):
    await asyncio.sleep(0)
    return 2 * x


def test_g37_a_synchronous_run_is_pulled_within_the_window_and_by_one_thread():
    async def main():
        source = Source(itertools.count())
        first = ordered_map(same, source, window=3, concurrency=2)
        async with ordered_amap(double_later, first, window=4, concurrency=2) as run:
            for k in range(30):
                assert await anext(run) == 2 * k
                assert source.pulls <= k + 1 + 3 + 4
        assert len(source.threads) == 1
        assert threading.get_ident() not in source.threads
        assert over(first)

    asyncio.run(main())


def test_g37_a_synchronous_run_zipped_with_an_async_source():
    async def numbers():
        for k in range(4):
            await asyncio.sleep(0)
            yield k

    async def both(x, y):
        return x, y

    async def main():
        async with ordered_amap(both, ordered_map(str, itertools.count()), numbers()) as run:
            return [each async for each in run]

    assert asyncio.run(main()) == [("0", 0), ("1", 1), ("2", 2), ("3", 3)]


def test_g37_an_error_of_a_synchronous_run_is_raised_in_its_turn():
    async def main():
        first = ordered_map(fail_at, itertools.repeat(frozenset({3})), range(9), name="first")
        delivered = []
        with pytest.raises(Oops) as caught:
            async with ordered_amap(double_later, first, name="second") as run:
                async for each in run:
                    delivered.append(each)
        assert delivered == [0, 4, 8]
        assert len(caught.value.__notes__) == 1
        assert "stage 'first'" in caught.value.__notes__[0]

    asyncio.run(main())


def test_g37_an_async_run_as_a_source_of_a_synchronous_one_names_the_cure():
    async def main():
        run = ordered_amap(double_later, range(3))
        with pytest.raises(TypeError, match="for an async iterable use ordered_amap"):
            ordered_map(same, run)
        with pytest.raises(TypeError, match="for an async iterable use ordered_amap"):
            ordered_flat_map(same, run)
        await run.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("how", ["aclose", "cancel", "error", "deadline"])
def test_g37_however_an_async_stage_ends_so_do_those_before_it(how):
    begun, ended = Tally(), Tally()

    async def hold(x):
        begun.add(x)
        try:
            await asyncio.sleep(3600 if x else 0)
        finally:
            ended.add(x)
        return x

    async def fail(x):
        raise Oops(x)

    async def main():
        sync = ordered_map(same, itertools.count(), concurrency=2)
        first = ordered_amap(hold, sync, concurrency=3, window=3)
        deadline = SHORT if how == "deadline" else None
        last = ordered_amap(fail if how == "error" else hold, first, deadline=deadline)
        if how == "error":
            with pytest.raises(Oops):
                await anext(last)
        else:
            assert await anext(last) == 0
        if how == "deadline":
            with pytest.raises(TimeoutError):
                await anext(last)
        elif how == "cancel":
            consumer = asyncio.ensure_future(anext(last))
            await asyncio.sleep(0)
            consumer.cancel()
            await asyncio.wait([consumer])
        elif how == "aclose":
            await last.aclose()
        assert len(asyncio.all_tasks()) == 1
        assert sorted(ended.seen) == sorted(begun.seen)
        assert sync._run.job.stopped
        await last.aclose()  # waits for threads
        with pytest.raises(StopAsyncIteration):
            await anext(first)

    asyncio.run(main())


def test_g37_dropping_the_last_async_stage_warns_once():
    async def main():
        last = ordered_amap(double_later, ordered_amap(double_later, itertools.count(), name="first"), name="last")
        await anext(last)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del last
            gc.collect()
            for _ in range(10):
                await asyncio.sleep(0)
            gc.collect()
        assert [str(each.message).partition(":")[0] for each in caught] == [
            "unclosed <ordered_amap 'last' of double_later"
        ]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_g38_origins_travel_through_async_stages_and_threads():
    async def pieces(x):
        for k in range(x):
            await asyncio.sleep(0)
            yield x, k

    async def fail(piece):
        raise Oops(piece)

    async def main():
        odd = ordered_map(fail_at, itertools.repeat(frozenset({0, 2, 4})), range(6), on_error="skip")
        cut = ordered_aflat_map(pieces, odd)
        async with ordered_amap(fail, cut, on_error="return") as run:
            return [(each.origin, each.item) async for each in run]

    assert asyncio.run(main()) == [(x, (2 * x, k)) for x in (1, 3, 5) for k in range(2 * x)]


def test_g37_types_of_stages():
    assert isinstance(ordered_map(same, [1]).stages[0], OrderedMap)


def test_g38_a_run_that_has_delivered_something_before_tells_the_right_origins():
    first = ordered_map(same, range(9))
    assert [next(first), next(first)] == [0, 1]
    failures = list(ordered_map(Raising(), first, on_error="return", name="last"))[2:3]
    assert [(each.index, each.origin) for each in failures if isinstance(each, Failure)] == [(2, 4)]


def test_g38_nothing_is_kept_about_origins_that_are_indices():
    run = ordered_map(same, ordered_map(same, ordered_map(same, range(99))))
    assert list(run) == list(range(99))
    assert all(stage._run.straight for stage in run.stages)
    assert not run._run.job.origins._differing
