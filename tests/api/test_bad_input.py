"""Bad input: the answer comes at the call, names the argument, says what was received and what is allowed."""

import asyncio
import functools
import gc
import itertools
import math
import re
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
import tqdm

from async_runs_as_sync import in_loop
from functions_for_workers import add, double, fail_at, first
from inturn import (
    Processes,
    Retry,
    Threads,
    ordered_aflat_map,
    ordered_amap,
    ordered_flat_map,
    ordered_gather,
    ordered_map,
    retry,
)
from waiting import Source, shown


def refuses(kind, *words, source=None, **settings):
    """`ordered_map` with these settings raises at the call, with a message that has all these words."""
    source = source or Source(range(3))
    with pytest.raises(kind) as caught:
        ordered_map(double, source, **settings)
    message = str(caught.value)
    plain = message.replace('"', "'")
    for word in words:
        assert re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", plain), message
    assert type(caught.value) is kind
    assert source.pulls == 0


# TypeError


@pytest.mark.parametrize("fn", [None, 3, "double", object()], ids=shown)
def test_fn_that_is_not_callable_is_a_type_error(fn):
    with pytest.raises(TypeError, match=r"\bfn\b") as caught:
        ordered_map(fn, range(3))
    assert type(fn).__name__ in str(caught.value)


def test_no_iterable_is_a_type_error():
    with pytest.raises(TypeError, match="iterable"):
        ordered_map(double)


def test_no_fn_is_a_type_error():
    with pytest.raises(TypeError, match="fn"):
        ordered_map()


@pytest.mark.parametrize("source", [None, 3, 2.5, double, object()], ids=shown)
def test_something_that_is_not_iterable_is_a_type_error(source):
    with pytest.raises(TypeError, match="iterable") as caught:
        ordered_map(double, source)
    assert type(source).__name__ in str(caught.value)


def test_the_iterable_that_is_not_one_is_named():
    with pytest.raises(TypeError, match="iterable") as caught:
        ordered_map(pow, [1], 5, [2])
    assert "2" in str(caught.value)
    assert "int" in str(caught.value)


@pytest.mark.parametrize("name", ["concurrency", "window", "chunksize"])
@pytest.mark.parametrize("value", [True, False, 2.0, 0.5, "4", [], math.inf], ids=shown)
def test_anything_but_an_int_where_an_int_belongs_is_a_type_error(name, value):
    refuses(TypeError, name, type(value).__name__, **{name: value})


@pytest.mark.parametrize("name", ["timeout", "deadline"])
@pytest.mark.parametrize("value", ["1", [], object(), 1j], ids=type)
def test_anything_but_a_number_where_seconds_belong_is_a_type_error(name, value):
    refuses(TypeError, name, type(value).__name__, **{name: value})


@pytest.mark.parametrize("value", [3, None, 2.5, object()], ids=type)
def test_an_executor_that_cannot_be_one_is_a_type_error(value):
    refuses(TypeError, "executor", type(value).__name__, executor=value)


@pytest.mark.parametrize("value", [3, None, object()], ids=type)
def test_a_policy_that_cannot_be_one_is_a_type_error(value):
    refuses(TypeError, "on_error", type(value).__name__, on_error=value)


def test_a_progress_that_cannot_be_one_is_a_type_error():
    refuses(TypeError, "progress", "int", progress=3)


def test_a_misspelt_argument_is_a_type_error():
    refuses(TypeError, concurency=3)


async def _coroutine(x):
    return x


class _Async:
    async def __call__(self, x):
        return x

    async def method(self, x):
        return x


@pytest.mark.parametrize(
    "fn",
    [_coroutine, functools.partial(_coroutine), _Async(), _Async().method, functools.partial(_Async().method)],
    ids=["function", "partial", "callable", "method", "partial-method"],
)
def test_an_async_function_is_a_type_error_that_names_ordered_amap(fn):
    with pytest.raises(TypeError, match="ordered_amap"):
        ordered_map(fn, range(3))


def test_an_async_iterable_is_a_type_error():
    async def source():
        yield 1

    with pytest.raises(TypeError, match="iterable"):
        ordered_map(double, source())


# ValueError


@pytest.mark.parametrize("name", ["concurrency", "window", "chunksize"])
@pytest.mark.parametrize("value", [0, -1, -1000])
def test_a_count_below_one_is_a_value_error(name, value):
    refuses(ValueError, name, str(value), "1", **{name: value})


@pytest.mark.parametrize("name", ["timeout", "deadline"])
@pytest.mark.parametrize("value", [0, 0.0, -1, -0.5, math.inf, -math.inf, math.nan])
def test_seconds_that_are_not_above_zero_or_not_finite_are_a_value_error(name, value):
    refuses(ValueError, name, str(value), "0", **{name: value})


@pytest.mark.parametrize("name", ["threads", "THREAD", "", "pool"])
def test_an_unknown_executor_is_a_value_error_that_lists_the_names(name):
    refuses(ValueError, repr(name), "'thread'", "'serial'", "executor", executor=name)


@pytest.mark.parametrize("name", ["ignore", "RAISE", "", "retry"])
def test_an_unknown_policy_is_a_value_error_that_lists_the_names(name):
    refuses(ValueError, repr(name), "'raise'", "'skip'", "'return'", "on_error", on_error=name)


@pytest.mark.parametrize(("window", "chunksize"), [(1, 2), (7, 8), (3, 1000)])
def test_a_window_smaller_than_an_explicit_chunksize_is_a_value_error(window, chunksize):
    refuses(ValueError, "window", "chunksize", str(window), str(chunksize), window=window, chunksize=chunksize)


def test_a_timeout_in_serial_is_a_value_error():
    refuses(ValueError, "timeout", "'serial'", executor="serial", timeout=1)


def test_an_initializer_that_is_not_callable_is_a_type_error():
    with pytest.raises(TypeError, match="initializer"):
        Threads(initializer=3)


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


# functions that belong elsewhere


def _generator(x):
    yield x


async def _async_generator(x):
    yield x


class _Calls:
    def __init__(self, fn):
        self.fn = fn

    def method(self, x):
        yield x


GENERATORS = [_generator, partial(_generator), partial(partial(_generator)), _Calls(None).method]


@pytest.mark.parametrize(
    ("function", "fn", "settings", "instead"),
    [
        *((ordered_map, fn, {}, "use ordered_flat_map") for fn in GENERATORS),
        (ordered_map, _generator, {"executor": "process"}, "use ordered_flat_map"),
        (ordered_map, _async_generator, {}, "use ordered_aflat_map"),
        (ordered_flat_map, _coroutine, {}, "use ordered_aflat_map"),
        (ordered_flat_map, _async_generator, {}, "use ordered_aflat_map"),
        (ordered_amap, _async_generator, {}, "use ordered_aflat_map"),
        (ordered_amap, _async_generator, {"executor": "thread"}, "use ordered_aflat_map"),
        (ordered_amap, _generator, {}, 'use ordered_aflat_map, not ordered_amap, with executor="thread"'),
        (ordered_amap, _generator, {"executor": "process"}, "use ordered_aflat_map"),
        (ordered_amap, _coroutine, {"executor": "thread"}, "leave executor= out"),
        (ordered_aflat_map, _async_generator, {"executor": "thread"}, "leave executor= out"),
    ],
)
def test_a_function_that_belongs_elsewhere_is_a_type_error_that_names_where(function, fn, settings, instead):
    source = Source(range(3))
    with pytest.raises(TypeError, match=instead):
        function(fn, source, **settings)
    assert source.pulls == 0


def test_gather_refuses_generator_functions_too():
    for fn, instead in ((_generator, "ordered_flat_map"), (_async_generator, "ordered_aflat_map")):
        with pytest.raises(TypeError, match=instead):
            asyncio.run(ordered_gather(fn, [1]))


def test_a_generator_that_can_be_awaited_is_no_generator_function():
    @types.coroutine
    def old(x):
        yield from asyncio.sleep(0).__await__()
        return x

    assert asyncio.run(ordered_gather(old, [1, 2])) == [1, 2]


def plainly(fn):
    """A decorator that hides what the function is."""

    @functools.wraps(fn)
    def call(*args):
        return fn(*args)

    return call


@pytest.mark.parametrize("settings", [{"window": 1}, {"window": 1, "indexed": True}, {}, {"on_error": "skip"}], ids=str)
def test_g32_a_first_result_that_is_a_coroutine_ends_the_run_and_names_ordered_amap(inside, settings):
    settings = {"window": 8, "concurrency": 1, **settings}
    if inside.driver.in_loop and inside.driver.blocks:
        pytest.skip("tasks await what the function returns")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # further coroutines, of calls that had begun meanwhile
        run = inside.map(plainly(_coroutine), range(3), **settings)
        with pytest.raises(TypeError, match="coroutine.*use ordered_amap"):
            next(run)
        assert next(run, "over") == "over"
        del run
        gc.collect()


def test_a_later_result_may_be_a_coroutine():
    """A single one is what the function means to return."""
    first, second = ordered_map(lambda i: i or _coroutine(i), [1, 0])
    assert first == 1
    second.close()


def test_a_first_result_that_is_an_async_generator_ends_the_run_and_names_ordered_aflat_map(inside):
    if inside.driver.in_loop and inside.driver.blocks:
        pytest.skip("tasks want an awaitable")
    run = inside.map(plainly(_async_generator), range(3), concurrency=1)
    with pytest.raises(TypeError, match="use ordered_aflat_map"):
        next(run)


def test_an_element_function_that_returns_a_coroutine_is_told_of_ordered_aflat_map():
    with pytest.raises(TypeError, match="use ordered_aflat_map"):
        next(ordered_flat_map(plainly(_coroutine), range(3), concurrency=1, window=1))


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


# progress and executors that cannot be meant


def test_the_class_of_a_bar_is_a_type_error_that_names_the_cure():
    refuses(TypeError, "progress", "tqdm", "True", progress=tqdm.tqdm)


@pytest.mark.parametrize("kind", [Threads, Processes])
def test_settings_that_were_not_made_are_a_type_error_that_names_the_cure(kind):
    with pytest.raises(TypeError, match=rf"{kind.__name__}\(\)"):
        ordered_map(double, range(3), executor=kind)


def test_g2_a_wrong_argument_is_found_before_an_iterator_is_taken():
    class Counts:
        taken = 0

        def __iter__(self):
            Counts.taken += 1
            return iter(())

    for settings in ({"on_error": 3}, {"deadline": -1}, {"progress": 3}, {"strict": 1}, {"executor": "x"}):
        with pytest.raises((TypeError, ValueError)):
            ordered_map(double, Counts(), **settings)
    assert Counts.taken == 0
