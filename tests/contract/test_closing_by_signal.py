"""Guarantee 16: a run may be closed, or ended by an exception, from a signal handler."""

import concurrent.futures
import contextlib
import itertools
import random
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest

import drivers
import inturn
from functions_for_workers import double, same
from interruption import interruption
from inturn import OrderedAflatMap, OrderedAmap, OrderedFlatMap, OrderedMap, ordered_map
from inturn._base.events import ThreadEvent
from waiting import HANG_S, Background, Gate, Source, Tally, Watch, absence, handling, spend, wait_until

LIBRARY = str(inturn.__path__[0])
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


class SoftLimit(Exception):
    """What a signal handler raises."""


class Came:
    """An event that may come again in the midst of its coming, as signals do: no lock of Python's is held."""

    def __init__(self):
        self._alarm = ThreadEvent()
        self.is_set = False

    def set(self):
        self.is_set = True
        self._alarm.set()

    def wait(self, seconds):
        self._alarm.wait(seconds)


@contextlib.contextmanager
def on_signal(handler, *, spared=()):
    """The handler runs for the first signal that comes and finds nothing of ours within one of the spared files."""
    came = Came()

    def once(_, frame):
        if not (came.is_set or lands_in(frame, spared)):
            came.set()
            handler()

    with handling(once):
        yield came


def lands_in(frame, files):
    """Whether the library is calling something in these files."""
    found = False
    for each, _ in traceback.walk_stack(frame):
        name = each.f_code.co_filename
        if name.startswith(LIBRARY):
            return found
        found = found or name.startswith(files)
    return False


@contextlib.contextmanager
def signal_when(came, condition):
    """Sends the main thread a signal as soon as `condition` returns.

    Until it comes: Python does not notice one that arrives just before the thread begins to wait.
    """

    within = Came()

    def send():
        within.wait(HANG_S)
        condition()
        while not came.is_set:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            came.wait(0.05)

    sender = Background(send)
    within.set()
    try:
        yield
    finally:
        sender.result()  # else it might send another one, when nobody handles it any more


@posix
@pytest.mark.drivers("a loop has its own way for signals", in_loop=False)
def test_g16_close_from_a_signal_handler_ends_the_next_that_waits(overlapping):
    head = Gate()
    run = overlapping.map(lambda i: head.wait(), itertools.count(), window=4)

    def handler():
        head.open()  # close waits for running calls
        run.close()

    with on_signal(handler) as came, signal_when(came, lambda: wait_until(lambda: run.stats.running == 4)):
        assert next(run, "over") == "over"
    assert next(run, "over") == "over"


@posix
def test_g16_close_from_a_signal_handler_inside_a_pull_ends_the_run(inside):
    run = None

    def source():
        yield 0
        signal.raise_signal(signal.SIGUSR1)
        yield 1

    with on_signal(lambda: run.close()):
        run = inside.map(double, source(), window=1)
        assert next(run) == 0
        assert list(run) == []


@posix
@pytest.mark.drivers("a loop has its own way for signals", in_loop=False)
def test_g16_an_exception_of_a_signal_handler_ends_the_run(overlapping):
    head, started = Gate(), Tally()

    def call(i):
        started.add(i)
        head.wait()

    def handler():
        raise SoftLimit

    run = overlapping.map(call, itertools.count(), window=10, concurrency=2, on_error="skip")
    with on_signal(handler) as came, signal_when(came, lambda: started.wait(2)), pytest.raises(SoftLimit) as caught:
        next(run)
    assert caught.value.__context__ is None
    assert not head.is_open  # it did not wait
    head.open()
    assert next(run, "over") == "over"
    run.close()
    assert len(started) == 2


@posix
@pytest.mark.drivers("a loop has its own way for signals", in_loop=False)
@pytest.mark.parametrize("window", [6, None])
def test_g16_an_exception_of_a_signal_handler_may_land_anywhere_in_next(inside, window, monkeypatch):
    """At random moments of a busy loop; where it landed in the library the run has ended, and cleanly.

    Or it landed in front of the first `try`, where CPython may raise too: then nothing has been taken, nor is it lost.
    """
    spared = (concurrent.futures.__path__[0], drivers.__file__)  # it could leave a lock of an executor locked for ever
    dice = random.Random(1)
    landed = 0

    def handler():
        raise SoftLimit

    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: lost.append(args.exc_type))
    executor = inside.executor(2)
    grows = window is None and inside.driver.concurrent and "timeout" not in inside.driver.settings
    few = 2000 if grows else 200  # items: a default window grows at first
    undisturbed = []
    for _ in range(3):
        with Watch() as watch:
            list(inside.map(double, range(few), window=window, concurrency=2, executor=executor))
        undisturbed.append(watch.seconds)
    for _ in range(60):
        # The source has an end: what lands in a callback of a weak reference or of the garbage collector is lost.
        run = inside.map(double, range(50_000), window=window, concurrency=2, executor=executor)
        results = []
        within = False
        pause = dice.random() * min(undisturbed)
        with on_signal(handler, spared=spared) as came:
            try:
                with signal_when(came, lambda pause=pause: spend(pause)):
                    for result in run:
                        results.append(result)
            except SoftLimit as error:
                frames = traceback.extract_tb(error.__traceback__)
                within = any(frame.filename.startswith(LIBRARY) and frame.name == "__next__" for frame in frames)
        assert results == list(range(0, 2 * len(results), 2))
        following = next(run, "over")
        landed += within and following == "over"
        allowed = ("over", 2 * len(results))
        assert following in (allowed if within else (*allowed, 2 * len(results) + 2)), frames
        run.close()
        assert next(run, "over") == "over"
    assert landed > 10
    assert set(lost) <= {SoftLimit}


def codes_of_next():
    kinds = (OrderedMap, OrderedFlatMap, OrderedAmap, OrderedAflatMap)
    names = ("__next__", "__anext__", "_next", "_take")
    return [vars(kind)[name].__code__ for kind in kinds for name in names if name in vars(kind)]


@pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="sys.monitoring is there from Python 3.12 on")
def test_g16_an_exception_that_lands_behind_a_call_in_next_loses_nothing_or_ends_the_run(inside):
    """Without the GIL, Python 3.13 calls everything the slow way, and handlers may run behind each call."""
    with interruption(codes_of_next()) as interrupted:
        for number in itertools.count(1):
            run = inside.map(double, range(5), window=2)
            results = []
            try:
                with interrupted.armed(SoftLimit, number):
                    for result in run:
                        results.append(result)
            except SoftLimit:
                pass
            assert results == [0, 2, 4, 6, 8][: len(results)]
            if not interrupted.landed:
                break
            assert next(run, "over") in ("over", 2 * len(results)), interrupted.landed
            run.close()
    assert number > 11


class Interrupted(ThreadEvent):
    """Who sets it first is interrupted just before."""

    def set(self):
        if not hasattr(self, "interrupted"):
            self.interrupted = True
            raise SoftLimit
        super().set()


def test_g16_an_interrupt_while_the_feeder_is_woken_does_not_leave_it_asleep():
    run = ordered_map(same, itertools.count(), live=True, window=2)
    assert next(run) == 0
    feeder = run._feeder
    wait_until(lambda: run.stats.pulled == 3 and feeder._sleeping)
    before, feeder._event = feeder._event, Interrupted()
    before.set()  # it looks, and sleeps again, by the other event
    wait_until(lambda: run.stats.pulled == 3 and feeder._sleeping)
    with pytest.raises(SoftLimit):
        next(run)
    assert next(run, "over") == "over"
    run.close()


class Signalling:
    """An executor in the midst of whose third `submit` a signal comes: before it has taken the call, or after."""

    def __init__(self, executor, moment):
        self.executor, self.moment, self.count = executor, moment, 0

    def submit(self, fn, /, *args):
        self.count += 1
        if self.count == 3 and self.moment == "before":
            signal.raise_signal(signal.SIGUSR1)
        future = self.executor.submit(fn, *args)
        if self.count == 3 and self.moment == "done":
            wait_until(future.done)
        if self.count == 3 and self.moment != "before":
            signal.raise_signal(signal.SIGUSR1)
        return future


@posix
@pytest.mark.parametrize("moment", ["before", "after", "done"])
@pytest.mark.parametrize("answer", ["close", SoftLimit, KeyboardInterrupt], ids=["close", "error", "interrupt"])
def test_g16_a_signal_may_come_in_the_midst_of_a_submit(moment, answer):
    run = None

    def handler():
        if answer == "close":
            run.close()
        else:
            raise answer

    source = Source(itertools.count(), lambda k: absence(0.002))  # so that each item is submitted by the consumer
    with ThreadPoolExecutor(4) as executor, on_signal(handler) as came:
        run = ordered_map(double, source, executor=Signalling(executor, moment), concurrency=4, window=8, chunksize=1)
        results = []
        try:
            for result in run:
                results.append(result)
        except (SoftLimit, KeyboardInterrupt) as error:
            assert type(error) is answer
        assert came.is_set
        assert results == [0, 2, 4, 6, 8, 10][: len(results)]
        run.close()
        assert next(run, "over") == "over"
        assert executor.submit(double, 2).result() == 4


@posix
def test_g16_a_run_that_was_ended_by_a_signal_leaves_the_source_usable(pulling):
    def handler():
        raise SoftLimit

    class Interrupted:
        def __init__(self):
            self.items = iter(range(10))

        def __iter__(self):
            return self

        def __next__(self):
            item = next(self.items)
            if item == 3:
                signal.raise_signal(signal.SIGUSR1)
            return item

    source = Interrupted()
    with on_signal(handler):
        run = pulling.map(double, source, window=1)
        with pytest.raises(SoftLimit):
            list(run)
    assert next(run, "over") == "over"
    assert next(source) == 4
