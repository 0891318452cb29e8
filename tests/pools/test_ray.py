"""What is particular to Ray."""

import gc
import os
import time
from functools import partial

import pytest

import clusters
from functions_for_clusters import kill_at, stay_at, task_of_ray
from functions_for_workers import double, sleeping
from inturn import ordered_map
from waiting import SHORT, Background, wait_until

pytestmark = list(clusters.MARKS["ray"])


@pytest.fixture
def ray():
    return clusters.ray_module()


def references(ray):
    gc.collect()
    return len(ray._private.worker.global_worker.core_worker.get_all_reference_counts())


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_g19_tasks_have_the_name_of_the_function(ray):
    if not hasattr(ray.get_runtime_context(), "get_task_name"):
        pytest.skip("this Ray does not tell the names of tasks")
    for name in ordered_map(task_of_ray, range(3), executor=ray):
        assert name.startswith("task_of_ray-")


def test_g19_there_are_as_many_calls_at_once_as_the_cluster_has_cpus(ray):
    assert ordered_map(double, [], executor=ray)._run.job.concurrency == 2


def test_g19_ray_has_to_be_initialised(ray, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RuntimeError, match=r"call ray\.init\(\) first"):
        ordered_map(double, [1], executor=ray)


def test_g12_no_references_are_kept(ray):
    list(ordered_map(double, range(10), executor=ray, chunksize=1))
    before = references(ray)
    most = 0
    for _ in ordered_map(double, range(300), executor=ray, chunksize=1, concurrency=3, window=5):
        most = max(most, references(ray))
    assert most <= before + 10  # one or two for each task
    wait_until(lambda: references(ray) <= before, "everything is released")


def test_g17_a_late_call_is_ended_with_its_worker(ray, place):
    run = ordered_map(
        partial(stay_at, place, frozenset({1})), range(4), executor=ray, timeout=10 * SHORT, on_error="return"
    )
    results = list(run)
    assert isinstance(results[1].error, TimeoutError)
    (pid,) = place.heard(1)
    wait_until(lambda: not alive(pid), "the worker has ended")


def test_g16_calls_may_end_in_the_moment_in_which_they_are_cancelled(ray):
    """Ray would end this process: it did so within some hundred runs."""
    for pause in [0.001 * i for i in range(20)] * 8:
        with ordered_map(partial(sleeping, 0.002), range(8), executor=ray, concurrency=8, chunksize=1) as run:
            time.sleep(pause)
            next(run)


@pytest.mark.parametrize("settings", [{"chunksize": 1}, {"timeout": 1000}], ids=["chunksize", "timeout"])
def test_g24_alone_in_its_task_no_item_runs_twice(ray, place, settings):
    run = ordered_map(partial(kill_at, place, frozenset({2})), range(6), executor=ray, on_error="skip", **settings)
    assert list(run) == [0, 1, 3, 4, 5]
    assert [len(place.heard(i)) for i in range(6)] == [1] * 6


def test_g25_a_shutdown_of_ray_ends_the_run(ray, place, monkeypatch):
    """Its futures do not end then."""
    run = ordered_map(partial(stay_at, place, frozenset({1})), range(9), executor=ray, on_error="skip")
    assert next(run) == 0
    waiting = Background(next, run)
    wait_until(lambda: place.heard(1), "the call has begun")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RuntimeError, match="shut down"):
        waiting.result()
    place.say("go")
