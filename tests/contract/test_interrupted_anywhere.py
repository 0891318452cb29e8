"""Guarantee 16: whatever a signal handler raises, and wherever in the library it lands, `next` raises it."""

import asyncio
import contextlib
import itertools
import pickle
import random
import signal
import sys
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from interruption import interruption
from inturn import ordered_aflat_map, ordered_amap, ordered_flat_map, ordered_map
from inturn._transport.pickling import pack_error, unpack_error
from waiting import handling

pytestmark = pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="sys.monitoring is there from Python 3.12 on")

PLACES = 100  # of some hundred, for each run and error


class SoftLimit(Exception):
    """What a handler raises; the others are such as the library expects of its own calls."""


errors = pytest.mark.parametrize("error", [SoftLimit, IndexError, RuntimeError, AttributeError])


def odd(i):
    if i % 3 == 0:
        raise ValueError(i)
    return i


def twice(i):
    yield i
    yield odd(i)


def places(calls):
    return sorted(random.Random(1).sample(range(1, calls + 1), min(PLACES, calls)))


def check(make, error):
    wanted = list(make())
    with interruption() as interrupted:
        with interrupted.armed(error):
            assert list(make()) == wanted
        for number in places(interrupted.calls):
            run = make()
            results = []
            raised = False
            try:
                with interrupted.armed(error, number):
                    for result in run:
                        results.append(result)
            except error:
                raised = True
            assert raised == bool(interrupted.landed), interrupted.landed
            assert results == wanted[: len(results)], interrupted.landed
            assert next(run, "over") == "over", interrupted.landed
            run.close()


@pytest.mark.drivers("a loop takes what lands in its callbacks", in_loop=False)
@errors
def test_g16_what_lands_anywhere_in_the_library_ends_the_run_and_nothing_is_skipped(inside, error):
    executor = inside.executor(2)
    check(lambda: inside.map(odd, range(8), window=4, concurrency=2, executor=executor, on_error="skip"), error)


@pytest.mark.parametrize("executor", ["thread", "serial"])
@errors
def test_g16_what_lands_anywhere_in_a_flat_map_ends_the_run_and_nothing_is_skipped(executor, error):
    def make():
        return ordered_flat_map(twice, range(5), window=3, concurrency=2, buffer=1, executor=executor, on_error="skip")

    check(make, error)


class Inline:
    """Makes the call within `submit`, and puts what it raises into the future."""

    def submit(self, fn):
        future = Future()
        try:
            future.set_result(fn())
        except BaseException as error:
            future.set_exception(error)
        return future


class Pickling:
    """Pickles within `submit`, in the thread of the consumer, as many clients of clusters do."""

    def __init__(self, threads):
        self.threads = threads

    def submit(self, fn):
        blob = pickle.dumps(fn)
        return self.threads.submit(lambda: pickle.loads(blob)())


@pytest.mark.parametrize("kind", ["inline", "pickling"])
@errors
def test_g16_what_lands_within_a_submit_ends_the_run_and_nothing_is_skipped(kind, error):
    with ThreadPoolExecutor(2) as threads:
        executor = Inline() if kind == "inline" else Pickling(threads)
        check(lambda: ordered_map(odd, range(8), window=4, concurrency=2, executor=executor, on_error="skip"), error)


@errors
def test_g16_what_lands_while_an_error_is_unpacked_is_raised(error):
    packed = pack_error(ValueError("of a call"))
    with interruption() as interrupted:
        for number in itertools.count(1):
            unpacked = None
            with contextlib.suppress(error), interrupted.armed(error, number):
                unpacked = unpack_error(packed)
            assert (unpacked is None) == bool(interrupted.landed), interrupted.landed
            if not interrupted.landed:
                break
    assert number > 5


def test_g16_an_error_of_a_handler_that_fn_raises_again_is_an_error_of_the_item():
    def handler(*_):
        raise SoftLimit

    with handling(handler), pytest.raises(SoftLimit) as caught:
        next(ordered_map(signal.raise_signal, [signal.SIGUSR1], executor="serial", on_error="skip"))

    def call(i):
        if i == 1:
            raise caught.value
        return i

    assert list(ordered_map(call, range(3), executor="serial", on_error="skip")) == [0, 2]


async def anumbers(count):
    for i in range(count):
        yield i
        await asyncio.sleep(0)


async def aodd(i):
    if i % 2:
        await asyncio.sleep(0)
    return odd(i)


async def atwice(i):
    yield i
    await asyncio.sleep(0)
    yield odd(i)


ASYNC = {
    "tasks": lambda: ordered_amap(aodd, range(8), window=4, concurrency=2, on_error="skip"),
    "one task": lambda: ordered_amap(aodd, range(8), concurrency=1, on_error="skip"),
    "async source": lambda: ordered_amap(aodd, anumbers(8), window=4, concurrency=2, on_error="skip"),
    "threads": lambda: ordered_amap(odd, range(8), window=4, concurrency=2, executor="thread", on_error="skip"),
    "flat": lambda: ordered_aflat_map(atwice, range(5), window=3, concurrency=2, buffer=1, on_error="skip"),
}


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")  # it has landed between making and awaiting one
@pytest.mark.parametrize("make", ASYNC.values(), ids=ASYNC)
@errors
def test_g16_what_lands_anywhere_in_an_async_run_is_told_and_nothing_is_skipped(make, error):
    """What lands in a callback of the loop goes to the loop's exception handler, as everything does there."""
    told, results, raised, wanted = [], [], [], []

    async def main(number=-1):
        told.clear(), results.clear(), raised.clear()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context.get("exception")))
        run = make()
        try:
            with interrupted.armed(error, number):
                async for result in run:
                    results.append(result)
        except error as caught:
            raised.append(type(caught))
            following = await anext(run, "over")  # it may go on if nothing had begun
            assert following in ("over", *wanted[len(results) : len(results) + 1]), interrupted.landed
        await run.aclose()

    with interruption() as interrupted:
        asyncio.run(main())
        wanted += results
        for number in places(interrupted.calls):
            asyncio.run(main(number))
            assert results == wanted[: len(results)], interrupted.landed
            assert raised or results == wanted, interrupted.landed
            assert raised or not interrupted.landed or error in map(type, told), interrupted.landed
