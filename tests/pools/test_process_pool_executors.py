"""A borrowed `ProcessPoolExecutor`: what it can promise (issue 3.6), and never a hang."""

import asyncio
import multiprocessing
import os
import queue
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import resource_sharer
from multiprocessing.reduction import ForkingPickler

import pytest

from functions_for_workers import double, same
from inturn import Processes, ordered_amap, ordered_map, retry
from things_hard_to_pickle import NoPickle, NoUnpickle, give, make, raising, throw
from waiting import SHORT, shown

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no POSIX signals"),
    pytest.mark.filterwarnings("ignore:.*may lead to deadlocks in the child:DeprecationWarning"),  # by the executor
]


@pytest.fixture(params=["fork", "spawn"])
def executor(request):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(request.param)) as executor:
        yield executor


@pytest.fixture
def forked():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as executor:
        yield executor


CHUNKSIZES = [None, 1, 3]


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g19_results_come_in_order_from_a_borrowed_process_pool(executor, chunksize):
    assert list(ordered_map(double, range(500), executor=executor, chunksize=chunksize)) == [2 * i for i in range(500)]


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g25_an_item_that_cannot_be_pickled_costs_itself(forked, chunksize):
    items = [0, 1, NoPickle(), 3, NoUnpickle(), 5, 6, 7]
    results = list(
        ordered_map(partial(give, None), items, executor=forked, chunksize=chunksize, concurrency=2, on_error="return")
    )
    assert [results[i] for i in (0, 1, 3, 5, 6, 7)] == [0, 1, 3, 5, 6, 7]
    assert repr(results[2].error) == "TypeError('not this one')"
    assert repr(results[4].error) == "LookupError('boom')"


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g25_a_result_that_cannot_be_pickled_costs_itself(forked, chunksize):
    results = list(ordered_map(make, range(8), executor=forked, chunksize=chunksize, concurrency=2, on_error="return"))
    assert [results[i] for i in (0, 1, 2, 4, 6, 7)] == [0] * 6
    assert repr(results[3].error) == "TypeError('not this one')"
    assert repr(results[5].error) == "LookupError('boom')"


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g25_an_error_that_cannot_travel_names_its_type_and_text(forked, chunksize):
    results = list(
        ordered_map(raising, range(8), executor=forked, chunksize=chunksize, concurrency=2, on_error="return")
    )
    assert repr(results[2].error) == "RuntimeError('Stubborn: this and that')"
    assert repr(results[4].error) == "RuntimeError('Unpicklable: lost')"
    assert type(results[6].error.__cause__) is KeyError


def test_g11_a_system_exit_of_fn_reaches_the_consumer(forked):
    with pytest.raises(SystemExit):
        list(ordered_map(partial(throw, SystemExit(4)), range(3), executor=forked, on_error="skip"))
    assert list(ordered_map(double, range(3), executor=forked)) == [0, 2, 4]


def test_g25_closures_travel_with_cloudpickle(executor):
    pytest.importorskip("cloudpickle")
    offset = 5
    assert list(ordered_map(lambda x: x + offset, range(4), executor=executor)) == [5, 6, 7, 8]


def test_g25_fn_that_cannot_be_pickled_is_told_the_cure(forked, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(TypeError, match=r"pip install 'inturn\[pickle\]'"):
        list(ordered_map(lambda x: x, range(3), executor=forked))
    assert list(ordered_map(double, range(3), executor=forked)) == [0, 2, 4]


def die_at(bad, i):
    if i == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return i


@pytest.mark.parametrize("chunksize", CHUNKSIZES)
def test_g25_a_pool_that_breaks_gives_clear_failures_and_never_a_hang(forked, chunksize):
    delivered = []
    with pytest.raises(BrokenProcessPool):
        delivered.extend(
            ordered_map(partial(die_at, 7), range(100), executor=forked, chunksize=chunksize, concurrency=2)
        )
    assert delivered == list(range(len(delivered)))
    assert len(delivered) <= 7


def test_g25_what_no_item_can_survive_ends_the_run_past_every_policy(forked):
    with pytest.raises(BrokenProcessPool):
        list(ordered_map(partial(die_at, 7), range(100), executor=forked, on_error="skip"))
    with pytest.raises(BrokenProcessPool):
        list(ordered_map(double, range(10), executor=forked, on_error="skip"))


def test_large_payloads_travel(forked):
    items = [os.urandom(300_000) for _ in range(8)]
    assert list(ordered_map(same, items, executor=forked)) == items


def test_g17_an_item_that_takes_too_long_is_given_up(forked):
    assert list(forked.map(same, range(4))) == [0, 1, 2, 3]  # here the time begins when a call is submitted
    results = list(ordered_map(partial(nap_at, 2), range(5), executor=forked, timeout=SHORT, on_error="return"))
    assert [type(each) for each in results].count(int) == 4
    assert isinstance(results[2].error, TimeoutError)


def nap_at(slow, i):
    time.sleep(2 * SHORT if i == slow else 0)
    return i


# 25: what no item can survive is no failure of an item


class Refuses:
    """A function that cannot be pickled; it counts how often that is tried."""

    tried = 0

    def __call__(self, i):
        return i

    def __reduce__(self):
        Refuses.tried += 1
        raise LookupError("not this function")


def consume(run):
    """What a run delivers, sync or async, and the error that ends it."""

    async def collect():
        return [each async for each in run]

    try:
        return asyncio.run(collect()) if hasattr(run, "__anext__") else list(run)
    except BaseException as error:
        return error


MAPS = pytest.mark.parametrize("make", [ordered_map, ordered_amap])
POLICIES = pytest.mark.parametrize("policy", ["skip", "return", retry(2, backoff=0, then="skip")], ids=shown)


@MAPS
@POLICIES
@pytest.mark.parametrize("items", [1, 3, 50])
def test_g25_fn_that_cannot_be_pickled_ends_the_run_past_every_policy(forked, make, policy, items):
    error = consume(make(Refuses(), range(items), executor=forked, on_error=policy))
    assert type(error) is TypeError
    assert "cannot be pickled (not this function)" in str(error)
    assert list(ordered_map(double, range(3), executor=forked)) == [0, 2, 4]


class Counted:
    """A function that counts in the parent how often it was pickled."""

    pickled = 0

    def __call__(self, i):
        return i

    def __reduce__(self):
        Counted.pickled += 1
        return Counted, ()


@MAPS
def test_g25_fn_is_pickled_once_for_a_run(forked, make):
    Counted.pickled = 0
    assert consume(make(Counted(), range(20), executor=forked, timeout=100)) == list(range(20))
    assert Counted.pickled == 1


class Unreadable:
    def __call__(self, i):
        return i

    def __reduce__(self):
        return int, ("nonsense",)


@MAPS
@POLICIES
def test_g25_fn_that_cannot_be_unpickled_ends_the_run_past_every_policy(forked, make, policy):
    error = consume(make(Unreadable(), range(9), executor=forked, on_error=policy))
    assert type(error) is ValueError
    assert "fn could not be unpickled in the worker" in error.__notes__
    assert list(ordered_map(double, range(3), executor=forked)) == [0, 2, 4]


@MAPS
@POLICIES
@pytest.mark.parametrize("items", [2, 50])
def test_g25_a_broken_executor_ends_the_run_past_every_policy(forked, make, policy, items):
    """Also when everything was in submission, so that nothing is left to be submitted."""
    error = consume(make(partial(die_at, 1), range(items), executor=forked, concurrency=2, on_error=policy))
    assert isinstance(error, BrokenProcessPool)
    assert isinstance(consume(make(double, range(5), executor=forked, on_error=policy)), BrokenProcessPool)


@MAPS
@POLICIES
def test_g25_an_executor_that_was_shut_down_ends_the_run_past_every_policy(forked, make, policy):
    forked.shutdown()
    error = consume(make(double, range(5), executor=forked, on_error=policy))
    assert type(error) is RuntimeError
    assert "shutdown" in str(error)


@MAPS
@POLICIES
def test_g25_an_executor_that_is_shut_down_and_cancels_its_calls_ends_the_run_past_every_policy(make, policy):
    """Also when everything was in submission, so that nothing is left to be submitted."""
    began, go = threading.Event(), threading.Event()

    def call(i):
        began.set()
        go.wait(30)
        return i

    def shut_down():
        began.wait(30)
        executor.shutdown(wait=False, cancel_futures=True)
        go.set()

    with ThreadPoolExecutor(1) as executor:
        closer = threading.Thread(target=shut_down)
        closer.start()
        error = consume(make(call, range(3), executor=executor, concurrency=3, on_error=policy))
        closer.join()
    assert type(error) is RuntimeError
    assert str(error) in {"the executor cancelled the call", "cannot schedule new futures after shutdown"}


class Full(ThreadPoolExecutor):
    """Takes two calls and no more."""

    taken = 0

    def submit(self, fn, /, *args, **kwargs):
        if self.taken == 2:
            raise queue.Full("no room")
        self.taken += 1
        return super().submit(fn, *args, **kwargs)


@MAPS
@POLICIES
def test_g25_an_executor_that_is_full_ends_the_run_past_every_policy(make, policy):
    with Full(2) as executor:
        assert type(consume(make(double, range(9), executor=executor, concurrency=9, on_error=policy))) is queue.Full


# 25: what the standard library's pool takes


def receive(thing):
    if isinstance(thing, socket.socket):
        return thing.recv(5)
    if isinstance(thing, (list, dict)):
        thing = (thing if isinstance(thing, list) else [*thing.values()])[0]
    if isinstance(thing, Registered):
        return thing.value
    return thing.recv()


class Registered:
    """Refuses to be pickled, but for the reducer that is registered."""

    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        raise TypeError("only as registered")


def reduce_registered(thing):
    return Registered, (thing.value,)


@pytest.fixture
def sharing():
    yield
    resource_sharer.stop()


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_g25_sockets_connections_and_registered_types_travel_as_items(forked, sharing, monkeypatch, whose):
    monkeypatch.setitem(ForkingPickler._extra_reducers, Registered, reduce_registered)  # `register`, and undone
    executor = forked if whose == "theirs" else Processes(start_method="fork")
    ours, theirs = socket.socketpair()
    receiving, sending = multiprocessing.Pipe(duplex=False)
    with ours, theirs, receiving, sending:
        ours.send(b"hello")
        sending.send("hello")
        items = [theirs, receiving, Registered("hello"), [Registered("hello")], {1: Registered("hello")}]
        results = list(ordered_map(receive, items, executor=executor, concurrency=1))
        assert results == [b"hello", *["hello"] * 4]


def generate(i):
    yield i


async def generate_later(i):
    yield i


async def answer_later(i):
    return i


class Plainly:
    """Does not show what kind of function it calls."""

    def __init__(self, fn):
        self.fn = fn

    def __call__(self, i):
        return self.fn(i)


@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.parametrize(
    ("fn", "cure"),
    [(generate, "ordered_flat_map"), (generate_later, "ordered_aflat_map"), (answer_later, "ordered_amap")],
)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_g25_a_result_that_is_a_stream_names_the_cure(forked, whose, fn, cure):
    executor = forked if whose == "theirs" else Processes(start_method="fork")
    (failure,) = ordered_map(Plainly(fn), [3], executor=executor, on_error="return")
    assert any(f"{cure} " in note for note in failure.error.__notes__)


class Stubborn(Exception):
    """Pickles with cloudpickle, and cannot be made again."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Locked(Exception):
    """Nothing can pickle it."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def throws(kind, i):
    raise kind("this", "that") if kind is Stubborn else kind("this")


@pytest.mark.parametrize("whose", ["ours", "theirs"])
@pytest.mark.parametrize("cloudpickle", [True, False])
@pytest.mark.parametrize(("kind", "text"), [(Stubborn, "Stubborn: this and that"), (Locked, "Locked: this")])
def test_g25_an_error_that_cannot_travel_arrives_named_with_cloudpickle_too(
    forked, monkeypatch, whose, cloudpickle, kind, text
):
    if not cloudpickle:
        monkeypatch.setitem(sys.modules, "cloudpickle", None)
    executor = forked if whose == "theirs" else Processes(start_method="fork")
    (failure,) = ordered_map(partial(throws, kind), [1], executor=executor, on_error="return")
    assert type(failure.error) is RuntimeError
    assert str(failure.error) == text


def local_error():
    class Here(Exception):
        pass

    return Here


def throws_local(kind, i):
    raise kind(i)


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_g25_an_error_of_a_class_that_no_module_has_arrives_as_itself(executor, whose):
    pytest.importorskip("cloudpickle")
    kind = local_error()
    workers = executor if whose == "theirs" else Processes(start_method="spawn")
    (failure,) = ordered_map(partial(throws_local, kind), [1], executor=workers, on_error="return")
    assert type(failure.error) is kind


class CountsInstances(OSError):
    made = 0

    def __init__(self, *args):
        super().__init__(*args)
        CountsInstances.made += 1
        self.extra = "kept"


class Loses(ThreadPoolExecutor):
    """Its futures fail by themselves, without having made the call."""

    def __init__(self, error):
        super().__init__(1)
        self.error = error

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(int)
        lost = Future()
        future.add_done_callback(lambda _: lost.set_exception(self.error))
        return lost


def test_g08_an_error_that_several_items_share_is_copied_without_running_code_of_its_class():
    error = CountsInstances(2, "gone")
    with Loses(error) as executor:
        failures = list(ordered_map(double, range(3), executor=executor, chunksize=3, on_error="return"))
    assert CountsInstances.made == 1
    assert [type(failure.error) for failure in failures] == [CountsInstances] * 3
    assert [(failure.error.errno, failure.error.extra, str(failure.error)) for failure in failures] == [
        (2, "kept", str(error))
    ] * 3
    assert [failure.error.__notes__ for failure in failures if hasattr(failure.error, "__notes__")] in (
        [],
        [[f"item {i}: {i}"] for i in range(3)],
    )
