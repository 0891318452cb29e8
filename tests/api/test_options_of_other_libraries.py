"""Options that other libraries have under another name: the error says what to write here."""

import asyncio
import inspect
import multiprocessing.pool

import pytest

import inturn
from inturn import Processes, Threads, ordered_aflat_map, ordered_amap, ordered_flat_map, ordered_gather, ordered_map
from inturn._base import unexpected

FUNCTIONS = {
    function.__name__: function
    for function in (ordered_map, ordered_flat_map, ordered_amap, ordered_aflat_map, ordered_gather, inturn.retry)
}


def call(name, option):
    if name == "retry":
        return inturn.retry(**{option: 1})
    result = FUNCTIONS[name](abs, [1], **{option: 1})
    return asyncio.run(result) if name == "ordered_gather" else result


def refusal(name, option):
    with pytest.raises(TypeError) as caught:
        call(name, option)
    text = str(caught.value)
    assert text.startswith(f"{name}() got an unexpected keyword argument {option!r}")  # as Python says it
    return text


@pytest.mark.parametrize(
    ("option", "cure"),
    [
        ("max_workers", "concurrency="),  # concurrent.futures
        ("n_jobs", "concurrency="),  # joblib
        ("processes", 'executor="process", concurrency='),  # multiprocessing
        ("task_limit", "concurrency="),  # aiostream
        ("buffersize", "window="),
        ("chunk_size", "chunksize="),
        ("initializer", "executor=Processes(initializer=…)"),
        ("maxtasksperchild", "executor=Processes(max_tasks_per_worker=…)"),  # multiprocessing
        ("thread_name_prefix", "executor=Threads(name=…)"),
        ("retries", "on_error=retry(attempts=…)"),
        ("return_exceptions", 'on_error="return"'),  # asyncio
        ("rate_limit", "limit="),
        ("desc", "name="),  # tqdm
        ("total", "progress=tqdm(total=…)"),
        ("ordered", "in the order of the items"),
        ("on_eror", "on_error="),  # mistyped
        ("dead_line", "deadline="),
    ],
)
def test_the_error_for_an_option_of_another_library_says_what_to_write(option, cure):
    assert cure in refusal("ordered_map", option)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_takes_an_option_that_it_does_not_have(name):
    text = refusal(name, "something_else_entirely")
    assert text.endswith("'something_else_entirely'")  # and nothing is made up


@pytest.mark.parametrize("name", FUNCTIONS)
def test_only_options_that_the_function_has_are_proposed(name):
    options = inspect.signature(FUNCTIONS[name]).parameters
    for given in {*unexpected.RUN, *unexpected.RETRY} - set(options):
        proposed = refusal(name, given).partition("write ")[2].partition("=")[0]
        assert not proposed or proposed in options, given


@pytest.mark.parametrize(
    ("option", "cure"),
    [
        ("tries", "attempts="),
        ("max_attempts", "attempts="),
        ("delay", "backoff="),
        ("exceptions", "on="),
        ("atempts", "attempts="),
    ],
)
def test_retry_says_what_its_settings_are_called(option, cure):
    assert f"write {cure}" in refusal("retry", option)


def test_what_can_be_proposed_is_an_option_of_some_function():
    known = {name for function in FUNCTIONS.values() for name in inspect.signature(function).parameters}
    for table in (unexpected.RUN, unexpected.RETRY):
        assert {text.partition("=")[0] for text in table.values() if "=" in text.partition(" ")[0]} <= known


@pytest.mark.parametrize("kind", [Threads, Processes])
def test_a_number_of_workers_in_the_place_of_the_initializer_is_told_where_it_belongs(kind):
    with pytest.raises(
        TypeError, match=rf"initializer must be callable, got int: 4; write {kind.__name__}\(max_workers=4\)"
    ):
        kind(4)


async def _fetch(page):
    return page


def test_a_coroutine_in_the_place_of_the_function_is_told_from_it():
    coroutine = _fetch(1)
    try:
        with pytest.raises(TypeError, match=r"fn must be callable, got coroutine.*: pass the function and its items"):
            asyncio.run(ordered_gather(coroutine, coroutine))
    finally:
        coroutine.close()


class Pool(multiprocessing.pool.Pool):
    """One of processes that starts none."""

    def __init__(self):
        pass

    def __del__(self):
        pass

    def __repr__(self):
        return "Pool()"


def test_a_pool_of_multiprocessing_is_no_executor_and_the_error_says_what_is():
    with pytest.raises(TypeError, match=r'has no submit\(\): write executor="process"'):
        ordered_map(abs, [1], executor=Pool())
    with pytest.raises(TypeError, match=r'Pool, which has no submit\(\): write executor="process"'):
        next(ordered_map(abs, [1], executor=lambda workers: Pool()))
    pool = multiprocessing.pool.ThreadPool(1)
    try:
        with pytest.raises(TypeError, match=r'has no submit\(\): write executor="thread"'):
            ordered_map(abs, [1], executor=pool)
    finally:
        pool.terminate()
        pool.join()


@pytest.mark.parametrize("given", [None, 3])
def test_what_is_no_policy_is_answered_with_the_names_of_policies(given):
    with pytest.raises(TypeError, match="'raise', 'abort', 'skip', 'return'"):
        ordered_map(abs, [1], on_error=given)
