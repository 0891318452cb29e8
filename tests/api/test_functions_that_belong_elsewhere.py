"""Coroutine and generator functions given to the wrong one of the siblings: the error names the right one."""

import asyncio
import functools
import gc
import types
import warnings
from functools import partial

import pytest

from inturn import ordered_aflat_map, ordered_amap, ordered_flat_map, ordered_gather, ordered_map
from waiting import Source


async def _coroutine(x):
    return x


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
