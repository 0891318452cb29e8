"""Bad input: the answer comes at the call, names the argument, says what was received and what is allowed."""

import functools
import math
import re

import pytest
import tqdm

from functions_for_workers import double
from inturn import Processes, Threads, ordered_map
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


# invalid progress and executors


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


@pytest.mark.parametrize("settings", [Threads, Processes])
def test_the_class_of_settings_is_no_executor(settings):
    with pytest.raises(TypeError, match="executor must be"):
        ordered_map(abs, [1], executor=settings)
