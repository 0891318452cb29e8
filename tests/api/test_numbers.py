"""Counts and seconds: numbers of other libraries, any finite number of seconds."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

import coroutines
from functions_for_workers import double, fail_at
from inturn import Processes, Retry, Threads, ordered_gather, ordered_map, retry

# numbers of other libraries


@pytest.mark.parametrize("name", ["concurrency", "window", "chunksize"])
def test_integers_of_other_libraries_are_integers(name):
    assert list(ordered_map(double, range(3), **{name: np.int64(2)})) == [0, 2, 4]
    assert Processes(max_tasks_per_worker=np.int64(2)).max_tasks_per_worker == 2


@pytest.mark.parametrize("kind", [np.float32, np.int64, Fraction, Decimal])
def test_numbers_of_other_libraries_are_seconds(kind):
    assert list(ordered_map(double, range(3), timeout=kind(100), deadline=kind(100))) == [0, 2, 4]


@pytest.mark.parametrize("name", ["timeout", "deadline"])
@pytest.mark.parametrize("value", [np.True_, np.array([1.0, 2.0]), timedelta(seconds=3)], ids=type)
def test_what_looks_like_a_number_is_none(name, value):
    with pytest.raises(TypeError, match=name):
        ordered_map(double, range(3), **{name: value})


def test_a_timedelta_is_told_how_to_become_seconds():
    with pytest.raises(TypeError, match=r"timeout .*timedelta.*total_seconds\(\)"):
        ordered_map(double, range(3), timeout=timedelta(seconds=3))


def test_any_finite_number_of_seconds_works(inside):
    timeout = None if inside.driver.name == "serial" else 1e300
    policy = retry(backoff=1e300, max_backoff=1e300, attempts=2, then="skip")
    run = inside.map(double, range(5), timeout=timeout, deadline=1e300, on_error=policy)
    assert list(run) == [0, 2, 4, 6, 8]


def test_a_pause_may_be_as_long_as_one_likes(inside):
    policy = retry(backoff=1e300, max_backoff=1e300)
    run = inside.map(partial(fail_at, frozenset({2})), range(5), window=5, on_error=policy)
    assert [next(run), next(run)] == [0, 2]
    run.close()
    run = inside.map(
        partial(fail_at, frozenset({2})), range(5), window=5, on_error=lambda failure: Retry(after=1e300), deadline=0.2
    )
    with pytest.raises(TimeoutError):
        list(run)


@pytest.mark.parametrize("executor", ["thread", "process", "serial", ThreadPoolExecutor, Threads()], ids=str)
def test_any_concurrency_works_and_costs_no_memory(executor):
    """Users write `sys.maxsize` for *as many as you like*."""
    assert list(ordered_map(double, range(3), concurrency=sys.maxsize, executor=executor)) == [0, 2, 4]
    assert asyncio.run(ordered_gather(coroutines.double, range(3), concurrency=sys.maxsize)) == [0, 2, 4]


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timeout", "deadline"])
def test_a_number_of_seconds_too_large_for_a_float_is_refused(name):
    with pytest.raises(ValueError, match=name):
        ordered_map(abs, [1], **{name: 10**400})


def test_a_pause_too_large_for_a_float_is_refused():
    with pytest.raises(ValueError, match="backoff"):
        retry(backoff=10**400)
