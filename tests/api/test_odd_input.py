"""Input that is odd and good, or odd and refused: lengths, iterators, objects that answer yes to every question."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from unittest.mock import MagicMock, Mock

import pytest

from async_runs_as_sync import in_loop
from functions_for_workers import add, double, fail_at, first
from inturn import ordered_aflat_map, ordered_amap, ordered_flat_map, ordered_map


async def _coroutine(x):
    return x


# what is good input


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": 1},
        {"window": 1},
        {"chunksize": 1},
        {"concurrency": 1000},
        {"window": 10**9},
        {"concurrency": 5, "window": 2},
        {"window": 4, "chunksize": 4},
        {"chunksize": 1000},
        {"timeout": 1},
        {"timeout": 1e9},
        {"deadline": 0.5e9},
        {"timeout": 1e300, "deadline": 1e300},
        {"concurrency": None, "window": None, "chunksize": None, "timeout": None, "deadline": None},
        {"progress": False},
    ],
    ids=str,
)
def test_settings_at_the_edge_of_what_is_allowed_work(settings):
    assert list(ordered_map(double, range(10), **settings)) == list(range(0, 20, 2))


# strict


def zip_message(*iterables):
    with pytest.raises(ValueError) as caught:
        list(zip(*iterables, strict=True))
    return str(caught.value).removeprefix("zip() ")


@pytest.mark.parametrize("window", [1, 3, 30])
@pytest.mark.parametrize(
    "lengths", [(5, 4), (4, 5), (5, 5, 4), (5, 5, 6), (4, 5, 5), (0, 1), (1, 0), (5, 6, 5)], ids=str
)
def test_sources_of_different_length_are_a_value_error_in_turn_worded_as_zip_does(driver, window, lengths):
    run = driver.map(first, *map(range, lengths), strict=True, window=window, on_error="skip")
    results = []
    with pytest.raises(ValueError) as caught:
        for result in run:
            results.append(result)
    assert results == list(range(min(lengths)))
    assert str(caught.value).endswith(zip_message(*map(range, lengths)))
    assert next(run, "over") == "over"


def test_sources_of_the_same_length_are_fine_with_strict(driver):
    assert list(driver.map(add, range(9), range(9), strict=True)) == list(range(0, 18, 2))
    assert list(driver.map(double, range(9), strict=True)) == list(range(0, 18, 2))
    assert list(driver.map(add, [], [], strict=True)) == []


def test_sources_of_different_length_are_fine_without_strict(driver):
    assert list(driver.map(add, range(9), itertools.count())) == list(range(0, 18, 2))


# an executor already shut down


def test_an_executor_already_shut_down_is_not_an_error_at_the_call():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    run = ordered_map(double, range(3), executor=executor)
    with pytest.raises(RuntimeError):
        next(run)


# what answers yes to every question


class Remote:
    """Like `xmlrpc.client.ServerProxy("...").method`: it has every attribute, and each is one like itself."""

    def __getattr__(self, name):
        return Remote()

    def __call__(self, *args, **kwargs):
        return 2 * args[0] if args and isinstance(args[0], int) else Remote()


@pytest.mark.parametrize(
    "fn", [Mock(side_effect=double), MagicMock(side_effect=double), Remote(), Remote().add.at.once], ids=type
)
def test_an_fn_that_has_every_attribute_is_called_like_any_other(inside, fn):
    if inside.driver.blocks and isinstance(fn, Remote):
        pytest.skip("functools.wraps wants a name that is a text")
    run = inside.map(fn, range(5))
    assert inside.driver.in_loop or type(fn).__name__ in repr(run)
    assert list(run) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("executor", [Mock(), MagicMock(), lambda workers: MagicMock(), Remote()], ids=type)
@pytest.mark.parametrize("kind", ["ordered_map", "ordered_amap"])
def test_an_executor_that_has_every_attribute_is_a_type_error_in_turn(executor, kind):
    run = ordered_map(double, range(3), executor=executor)
    if kind == "ordered_amap":
        run = in_loop(double, range(3), executor=executor)
    with pytest.raises(TypeError, match=r"submit\(\).* must return a future"):
        next(run)
    run.close()


@pytest.mark.parametrize("progress", [Mock(), MagicMock(), Remote()], ids=type)
def test_a_progress_that_has_every_attribute_and_can_be_called_is_called(progress):
    assert list(ordered_map(double, range(3), progress=progress)) == [0, 2, 4]


def test_a_source_that_has_every_attribute_is_not_iterable():
    with pytest.raises(TypeError, match=r"must be iterable, got Mock"):
        ordered_map(double, Mock())


def test_a_policy_that_has_every_attribute_is_asked():
    assert list(ordered_map(partial(fail_at, frozenset({0})), range(2), on_error=Mock(return_value=7))) == [7, 2]


# lengths are hints


class Short(list):
    """It says that it has one item, whatever it has."""

    def __len__(self):
        return 1


def test_g19_an_explicit_concurrency_is_kept_whatever_the_sources_length_says(overlapping):
    """All calls have to be there at once for any of them to end."""
    together = threading.Barrier(4)

    def meet(i):
        together.wait(30)
        return i

    assert list(overlapping.map(meet, Short(range(4)), concurrency=4, window=8)) == [0, 1, 2, 3]


def test_a_length_that_is_wrong_changes_no_result(driver):
    assert list(driver.map(double, Short(range(20)))) == list(range(0, 40, 2))


# errors of the source's own


class Broken:
    def __iter__(self):
        raise TypeError("of its own")


class AsyncBroken:
    def __aiter__(self):
        raise TypeError("of its own")


class NoIterator:
    def __iter__(self):
        return 3


@pytest.mark.parametrize("function", [ordered_map, ordered_flat_map])
def test_an_error_within_iter_comes_as_it_is(function):
    with pytest.raises(TypeError, match=r"^of its own$"):
        function(double, Broken())
    with pytest.raises(TypeError, match=r"^of its own$"):
        function(double, [1], Broken())
    with pytest.raises(TypeError, match="iterator"):
        function(double, NoIterator())


@pytest.mark.parametrize("source", [Broken(), AsyncBroken()], ids=type)
@pytest.mark.parametrize("function", [ordered_amap, ordered_aflat_map])
def test_an_error_within_iter_or_aiter_comes_as_it_is(function, source):
    async def endless():
        yield 1

    for sources in ([source], [[1], source], [endless(), source]):
        with pytest.raises(TypeError, match=r"^of its own$"):
            function(_coroutine, *sources)


def test_a_source_that_is_neither_iterable_nor_async_iterable_is_named():
    async def endless():
        yield 1

    with pytest.raises(TypeError, match=r"source 2 must be iterable or async iterable, got int: 3"):
        ordered_amap(_coroutine, endless(), 3)
