"""Dask and Ray as executors: what the contract says, and what is particular there."""

import asyncio
from functools import partial

import pytest

from functions_for_clusters import Lacking, kill_at, kill_once, stay_at
from functions_for_workers import double, fail_at, same
from inturn import Failure, WorkerDied, ordered_amap, ordered_flat_map, ordered_map, retry
from things_hard_to_pickle import NoPickle, NoUnpickle
from waiting import HANG_S, SHORT, Background, Source, wait_until

CHUNKSIZES = [None, 1, 4]


# 24: lost workers


def shown(results):
    """Results, and of failures the index that their error names."""
    return [f"died at {each.error.index}" if isinstance(each, Failure) else each for each in results]


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g24_a_worker_that_dies_costs_the_item_that_killed_it(client, place, chunksize):
    call = partial(kill_at, place, frozenset({5}))
    run = ordered_map(call, range(10), executor=client, chunksize=chunksize, on_error="return")
    results = list(run)
    assert shown(results) == [0, 1, 2, 3, 4, "died at 5", 6, 7, 8, 9]
    assert isinstance(results[5].error, WorkerDied)
    assert type(results[5].error.__cause__).__name__ in {"KilledWorker", "WorkerCrashedError"}


def test_g24_with_a_timeout_a_worker_that_dies_costs_one_item(client, place):
    call = partial(kill_at, place, frozenset({2}))
    run = ordered_map(call, range(5), executor=client, timeout=HANG_S, on_error="return")
    assert shown(run) == [0, 1, "died at 2", 3, 4]


def test_g24_a_batch_whose_worker_somebody_kills_is_run_again_one_by_one_and_nothing_fails(client, place):
    run = ordered_map(partial(kill_once, place, 2), range(8), executor=client, chunksize=4, concurrency=1)
    assert list(run) == list(range(8))
    assert [len(place.heard(i)) for i in range(8)] == [2, 2, 2, 1, 1, 1, 1, 1]


def test_g24_a_policy_may_run_an_item_again_whose_worker_died(client, place):
    policy = retry(5, on=WorkerDied, backoff=0)
    run = ordered_map(partial(kill_once, place, 1), range(3), executor=client, chunksize=1, on_error=policy)
    assert list(run) == [0, 1, 2]


# 13, 17: what is queued there, and what is late


def test_g13_close_cancels_what_has_not_started_there(client, place):
    """There are two workers, and six tasks are with the cluster."""
    call = partial(stay_at, place, frozenset(range(6)))
    with ordered_map(call, range(6), executor=client, concurrency=6, window=6) as run:
        Background(next, run)
        wait_until(lambda: any(place.heard(i) for i in range(6)), "a call has begun")
    place.say("go")
    after = ordered_map(partial(stay_at, place, frozenset()), [10, 11, 12, 13], executor=client, concurrency=2)
    assert list(after) == [10, 11, 12, 13]
    assert 1 <= sum(bool(place.heard(i)) for i in range(6)) < 6


def test_g17_an_item_that_takes_too_long_fails_in_its_turn(cluster, place):
    slow = partial(stay_at, place, frozenset({1}))
    run = ordered_map(slow, range(4), executor=cluster, timeout=10 * SHORT, on_error="return", concurrency=2)
    results = list(run)
    assert [results[i] for i in (0, 2, 3)] == [0, 2, 3]
    assert isinstance(results[1].error, TimeoutError)
    assert run.stats.abandoned == 1


# 3, 12: what is held


def test_g03_the_window_is_exact(cluster):
    source = Source(range(200))
    run = ordered_map(double, source, executor=cluster, window=7)
    assert list(source.watch(run)) == [2 * i for i in range(200)]
    assert max(source.held) == 7


# 25, 26: what travels, and how


def test_g26_small_items_are_sent_in_batches(cluster, monkeypatch):
    sent = []
    kind = type(ordered_map(double, [], executor=cluster)._run.job.pool)
    future_of = kind.future_of
    monkeypatch.setattr(kind, "future_of", lambda *args: sent.append(1) or future_of(*args))
    assert list(ordered_map(double, range(20_000), executor=cluster)) == [2 * i for i in range(20_000)]
    assert len(sent) < 2_000


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g25_what_cannot_travel_costs_its_item(cluster, chunksize):
    items = [0, NoPickle(), 2, NoUnpickle(), 4]
    results = list(ordered_map(same, items, executor=cluster, chunksize=chunksize, on_error="return"))
    assert [results[i] for i in (0, 2, 4)] == [0, 2, 4]
    assert repr(results[1].error) == "TypeError('not this one')"
    assert repr(results[3].error) == "LookupError('boom')"


def test_g25_closures_travel(cluster):
    pytest.importorskip("cloudpickle")
    offset = 5
    assert list(ordered_map(lambda x: x + offset, range(4), executor=cluster)) == [5, 6, 7, 8]


@pytest.mark.parametrize("policy", ["skip", "return"])
def test_g25_a_function_that_the_workers_lack_ends_the_run_past_every_policy(cluster, policy):
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        list(ordered_map(Lacking(), range(9), executor=cluster, on_error=policy))
    assert "fn could not be unpickled in the worker" in caught.value.__notes__


def test_g08_an_error_arrives_with_its_traceback_and_the_item(cluster):
    run = ordered_map(partial(fail_at, frozenset({3})), range(5), executor=cluster)
    assert [next(run) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(Exception, match="no 3") as caught:
        next(run)
    assert "item 3: 3" in caught.value.__notes__


# async, flat, and what is refused


def test_g32_results_come_in_order_from_async_code_too(cluster):
    async def main():
        async with ordered_amap(double, range(500), executor=cluster) as run:
            return [each async for each in run]

    assert asyncio.run(main()) == [2 * i for i in range(500)]


def test_g19_a_flat_map_on_a_cluster_is_refused_and_the_message_names_the_way_round(cluster):
    with pytest.raises(TypeError, match=r"a cluster returns results whole: have fn return a list.*chain"):
        ordered_flat_map(str, [1], executor=cluster)


def test_g22_several_runs_share_a_cluster(cluster):
    runs = [ordered_map(double, range(100), executor=cluster) for _ in range(3)]
    assert [sum(results) for results in zip(*runs, strict=True)] == [6 * i for i in range(100)]
