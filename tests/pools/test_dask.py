"""What is particular to Dask."""

import asyncio
from functools import partial

import pytest

import clusters
from functions_for_clusters import stay_at, task_of_dask
from functions_for_workers import double
from inturn import ordered_amap, ordered_map
from waiting import SHORT, Background, wait_until

pytestmark = list(clusters.MARKS["dask"])


@pytest.fixture
def dask_client():
    return clusters.dask_client()


def tasks(prefix):
    """The tasks that the scheduler knows, of those with this name."""
    return [key for key in list(clusters.dask_cluster().scheduler.tasks) if str(key).startswith(prefix)]


def test_g19_tasks_have_the_name_of_the_function(dask_client):
    for key in ordered_map(task_of_dask, range(3), executor=dask_client):
        assert key.startswith("task_of_dask-")
    assert "task_of_dask" in clusters.dask_cluster().scheduler.task_prefixes


def test_g19_there_are_as_many_calls_at_once_as_the_workers_have_threads(dask_client):
    assert ordered_map(double, [], executor=dask_client)._run.job.concurrency == 2


def test_g12_neither_the_client_nor_the_scheduler_keeps_results(dask_client):
    run = ordered_map(double, range(300), executor=dask_client, chunksize=1, concurrency=3, window=5)
    most = 0
    for _ in run:
        most = max(most, len(dask_client.futures))
    assert most <= 5
    wait_until(lambda: not tasks("double-") and not dask_client.futures, "everything is released")


def test_g12_nothing_is_kept_of_a_run_that_ends_early(dask_client, place):
    with ordered_map(partial(stay_at, place, frozenset({1})), range(9), executor=dask_client, concurrency=4) as run:
        assert next(run) == 0
    place.say("go")
    wait_until(lambda: not tasks("stay_at-") and not dask_client.futures, "everything is released")


def test_g16_a_run_that_is_closed_leaves_the_results_of_others_alone(dask_client):
    """Their results are fetched together: what is no longer wanted must not cancel that for all."""
    for _ in range(20):
        with ordered_map(double, range(50), executor=dask_client, chunksize=1, concurrency=20) as run:
            next(run)
        assert list(ordered_map(double, range(20), executor=dask_client, chunksize=1, concurrency=20)) == [
            *range(0, 40, 2)
        ]


def tasks_of(dask_worker):
    return len(dask_worker.state.tasks)


def test_g17_a_late_call_that_waits_there_is_taken_out_of_the_queue(dask_client, place):
    """Two calls occupy the workers, the others wait behind them, and are late."""
    call = partial(stay_at, place, frozenset({0, 1}))
    run = ordered_map(call, range(6), executor=dask_client, concurrency=6, timeout=SHORT, on_error="return")
    assert [type(each.error) for each in run] == [TimeoutError] * 6
    wait_until(lambda: sum(dask_client.run(tasks_of).values()) <= 2, "the workers have been told")
    place.say("go")
    assert list(ordered_map(partial(stay_at, place, frozenset()), [10, 11, 12], executor=dask_client)) == [10, 11, 12]
    assert not any(place.heard(i) for i in range(2, 6))


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_g25_a_client_that_is_closed_ends_the_run_past_every_policy(dask_client, place, policy):
    from distributed import Client

    with Client(clusters.dask_cluster()) as client:
        run = ordered_map(partial(stay_at, place, frozenset({1})), range(9), executor=client, on_error=policy)
        assert next(run) == 0
        waiting = Background(next, run)
        wait_until(lambda: place.heard(1), "the call has begun")
        client.close()
        with pytest.raises(Exception, match="cancelled"):
            waiting.result()
    place.say("go")


def test_g25_a_client_that_is_closed_already_ends_the_run():
    from distributed import Client

    with Client(clusters.dask_cluster()) as client:
        pass
    with pytest.raises(Exception, match=r"[Cc]lient|after closing"):
        list(ordered_map(double, range(3), executor=client, concurrency=2))


def test_g32_an_asynchronous_client_works_in_its_event_loop():
    from distributed import Client

    async def main():
        async with Client(clusters.dask_cluster().scheduler_address, asynchronous=True) as client:
            async with ordered_amap(double, range(200), executor=client) as run:
                results = [each async for each in run]
            with pytest.raises(RuntimeError, match="use ordered_amap"):
                next(ordered_map(double, range(3), executor=client))
            return results

    assert asyncio.run(main()) == [2 * i for i in range(200)]
