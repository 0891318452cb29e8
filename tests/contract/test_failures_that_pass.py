"""`pass_failures=True`: an item that is a failure goes through in its place, untouched, and no call is made for it."""

import asyncio
import pickle
import threading
from functools import partial

import pytest

from functions_for_workers import Oops, add, double, fail_at, same
from inturn import (
    Failure,
    Threads,
    ordered_aflat_map,
    ordered_amap,
    ordered_flat_map,
    ordered_gather,
    ordered_map,
    retry,
    sentinel,
)
from waiting import Gate, Source, Tally, primed

ITEMS = 12
LOST = frozenset({0, 4, 5, 11})


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("an error that stays where it is")


def mixed(lost=LOST, items=ITEMS):
    """Items of an earlier stage, in which some were lost; what was lost can be sent nowhere."""
    return [Failure(i, i, Unpicklable(i), stage="earlier") if i in lost else i for i in range(items)]


def expected(items, call=double):
    return [each if isinstance(each, Failure) else call(each) for each in items]


def same_objects(delivered, wanted):
    return len(delivered) == len(wanted) and all(
        one is other if isinstance(other, Failure) else one == other
        for one, other in zip(delivered, wanted, strict=True)
    )


@pytest.mark.parametrize("chunksize", [None, 1, 3])
@pytest.mark.parametrize("prompt", [True, False], ids=["list", "iterator"])
def test_g36_a_failure_goes_through_in_its_place_untouched(driver, window, chunksize, prompt):
    items = mixed()
    run = driver.map(
        double,
        items if prompt else Source(items),
        window=max(window, chunksize or 1),
        chunksize=chunksize,
        pass_failures=True,
    )
    assert same_objects(list(run), expected(items))
    assert (run.stats.delivered, run.stats.failed, run.stats.skipped) == (ITEMS, 0, 0)


@pytest.mark.parametrize("lost", [range(ITEMS), range(1, ITEMS), range(ITEMS - 1), [3], range(0, ITEMS, 2)], ids=str)
@pytest.mark.parametrize("chunksize", [None, 1, 3, 5])
def test_g36_wherever_the_failures_stand(driver, window, lost, chunksize):
    items = mixed(frozenset(lost))
    run = driver.map(double, Source(items), window=max(window, chunksize or 1), chunksize=chunksize, pass_failures=True)
    assert same_objects(list(run), expected(items))


def test_g36_with_the_index(driver):
    items = mixed()
    run = driver.map(double, items, indexed=True, pass_failures=True)
    assert list(run) == list(enumerate(expected(items)))


@pytest.mark.parametrize("policy", ["skip", "return", sentinel("instead"), retry(2, backoff=0)], ids=str)
def test_g36_no_policy_is_asked_about_it(driver, policy):
    items = mixed()
    run = driver.map(double, items, on_error=policy, pass_failures=True)
    assert same_objects(list(run), expected(items))
    assert run.stats.failed == run.stats.retried == 0


def test_g36_failures_of_this_stage_count_and_those_of_an_earlier_one_do_not(driver):
    items = mixed()
    run = driver.map(partial(fail_at, frozenset({3, 7})), items, on_error="return", pass_failures=True, name="this")
    stages = [each.stage for each in run if isinstance(each, Failure)]
    assert stages == ["earlier", "this", "earlier", "earlier", "this", "earlier"]
    assert run.stats.failed == 2


def test_g36_under_raise_a_failure_of_an_earlier_stage_does_not_end_the_run(driver):
    items = mixed()
    run = driver.map(partial(fail_at, frozenset({7})), items, pass_failures=True)
    delivered = [next(run) for _ in range(7)]
    assert same_objects(delivered, expected(items)[:7])
    with pytest.raises(Oops):
        next(run)


def test_g36_no_call_is_made_for_it(inside):
    calls = Tally()
    assert len(list(inside.map(calls.add, mixed(), pass_failures=True))) == ITEMS
    assert sorted(calls.seen) == [i for i in range(ITEMS) if i not in LOST]


def test_g36_without_the_option_a_failure_is_an_item_like_any_other(inside):
    items = mixed()
    assert same_objects(list(inside.map(same, items)), items)
    assert all(isinstance(each, tuple) for each in inside.map(lambda each: (each,), items))


def test_g36_with_several_sources_the_first_failure_among_the_arguments_goes_through(driver):
    left, right = mixed(frozenset({1, 2})), mixed(frozenset({2, 3}))
    run = driver.map(add, left, right, pass_failures=True)
    assert same_objects(list(run), [0, left[1], left[2], right[3], *range(8, 2 * ITEMS, 2)])


def test_g36_a_failure_inside_a_tuple_of_a_single_source_is_not_an_item_that_is_a_failure(threads):
    items = list(enumerate(mixed()))
    assert list(threads.map(same, items, pass_failures=True)) == items


def test_g36_a_failure_that_passes_is_held_in_the_window_like_a_result(overlapping):
    lost = frozenset(range(1, 30))
    source = Source(mixed(lost, 30))
    held = Gate()
    run = overlapping.map(lambda i: held.wait(), source, window=5, pass_failures=True)
    begun = threading.Thread(target=lambda: next(run))
    begun.start()
    source.begun.wait(5)
    assert source.pulls == 5
    held.open()
    begun.join()


def test_g36_the_window_is_never_exceeded(overlapping, window):
    source = Source(mixed(frozenset(range(0, 40, 3)), 40))
    run = overlapping.map(double, source, window=window, pass_failures=True)
    assert len(list(source.watch(run))) == 40
    assert max(source.held_or_asked if overlapping.live else source.held) <= window


def test_g36_a_failure_at_the_head_does_not_wait_for_a_batch_to_be_full(inside):
    """The source yields no second item before the first one, a failure, was delivered."""
    delivered = Gate()
    items = mixed(frozenset({0}), 4)
    source = Source(items, lambda k: delivered.wait() if k and inside.live else None)
    run = inside.map(double, source, chunksize=3, window=6, pass_failures=True)
    assert next(run) is items[0]
    delivered.open()
    assert list(run) == [2, 4, 6]


def test_g36_failures_go_through_while_the_consumer_is_away(overlapping):
    run, _ = primed(overlapping, lambda i: i, window=4)  # a run whose workers are up
    run.close()
    items = mixed(frozenset({1, 2, 3}), 4)
    run = overlapping.map(double, items, window=4, pass_failures=True)
    assert next(run) == 0
    assert same_objects(list(run), items[1:])


def test_g36_a_timeout_does_not_concern_it(inside):
    items = mixed()
    if inside.driver.name == "serial":
        pytest.skip("serial has no timeout")
    run = inside.map(double, items, timeout=100.0, pass_failures=True)
    assert same_objects(list(run), expected(items))


def twice(x):
    yield x
    yield x


@pytest.mark.parametrize("executor", ["thread", "process", "serial", Threads()], ids=str)
@pytest.mark.parametrize("buffer", [1, 64])
def test_g36_flat_maps_deliver_it_once(executor, buffer, window):
    items = mixed()
    with ordered_flat_map(
        twice, items, executor=executor, buffer=buffer, window=window, concurrency=2, pass_failures=True
    ) as run:
        wanted = [each for item in items for each in ([item] if isinstance(item, Failure) else [item, item])]
        assert same_objects(list(run), wanted)
        assert (run.stats.failed, run.stats.delivered) == (0, ITEMS)


def test_g36_flat_maps_deliver_it_with_its_index():
    items = mixed(frozenset({1}), 3)
    with ordered_flat_map(twice, items, indexed=True, pass_failures=True) as run:
        assert list(run) == [(0, 0), (0, 0), (1, items[1]), (2, 2), (2, 2)]


def in_loop(main):
    return asyncio.run(main)


@pytest.mark.parametrize("executor", [None, "thread"])
def test_g36_flat_maps_of_asyncio_deliver_it_once(executor):
    items = mixed()

    async def atwice(x):
        yield x
        await asyncio.sleep(0)
        yield x

    async def main():
        fn = atwice if executor is None else twice
        async with ordered_aflat_map(fn, items, executor=executor, concurrency=2, pass_failures=True) as run:
            return [each async for each in run]

    wanted = [each for item in items for each in ([item] if isinstance(item, Failure) else [item, item])]
    assert same_objects(in_loop(main()), wanted)


def test_g36_async_sources():
    items = mixed()

    async def source():
        for each in items:
            await asyncio.sleep(0)
            yield each

    async def call(x):
        await asyncio.sleep(0)
        return 2 * x

    async def main():
        async with ordered_amap(call, source(), pass_failures=True) as run:
            return [each async for each in run]

    assert same_objects(in_loop(main()), expected(items))


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_g36_gather(batch_size):
    items = mixed()

    async def call(x):
        await asyncio.sleep(0)
        return 2 * x

    delivered = in_loop(ordered_gather(call, items, batch_size=batch_size, pass_failures=True))
    assert same_objects(delivered, expected(items))


def test_g36_a_failure_of_an_earlier_version_has_no_stage_and_its_own_index_as_origin():
    class Old:
        def __reduce__(self):
            return Failure, (3, "item", Oops("no"), 2, 0.5, 1)

    failure = pickle.loads(pickle.dumps(Old()))
    assert (failure.stage, failure.origin, failure.attempt) == (None, 3, 2)


@pytest.mark.parametrize("pass_failures", [1, None, "yes"])
def test_g36_the_option_is_a_bool(pass_failures):
    with pytest.raises(TypeError, match="pass_failures must be a bool"):
        ordered_map(double, [1], pass_failures=pass_failures)
