"""Signals: handlers of every kind that raise, wherever they land, and Ctrl-C in a block and at exit."""

import functools
import os
import signal
import traceback
import weakref

import pytest

from inturn import ordered_flat_map, ordered_map
from inturn._base.signals import landed_here
from programs import Script
from waiting import Gate, handling

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
pytestmark = posix


class SoftLimit(Exception):
    """What a handler raises: an `Exception`, as Celery's soft time limit is."""


def function(number, frame):
    raise SoftLimit


def anything(*args):
    raise SoftLimit


def named(where, number, frame):
    raise SoftLimit(where)


def calls_another(number, frame):
    function(number, None)


class Handler:
    def method(self, number, frame):
        raise SoftLimit

    def __call__(self, number, frame):
        raise SoftLimit


HANDLERS = {
    "function": function,
    "star-args": anything,
    "lambda": lambda number, frame: function(number, frame),
    "partial": functools.partial(named, "here"),
    "method": Handler().method,
    "object": Handler(),
    "calls another": calls_another,
}
every_handler = pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)


def signalling(items, at):
    """The items; a signal comes in the midst of a pull."""
    for index, item in enumerate(items):
        if index == at:
            signal.raise_signal(signal.SIGUSR1)
        yield item


class Items:
    """A source whose pulls are calls of a method."""

    def __init__(self, items, at):
        self.pull = signalling(items, at).__next__

    def __iter__(self):
        return self

    def __next__(self):
        return self.pull()


@every_handler
@pytest.mark.parametrize("source", [signalling, Items])
@pytest.mark.parametrize("function", [ordered_map, ordered_flat_map])
def test_g16_what_a_handler_raises_within_a_pull_is_raised_at_once(handler, source, function):
    """It is not taken for an error of the source, which would come after the head, and that waits for the end."""
    head = Gate()

    def call(i):
        head.wait()
        return [i]

    with handling(handler):
        run = function(call, source(range(9), 3), concurrency=2, window=9)
        with pytest.raises(SoftLimit):
            next(run)
        assert not head.is_open
    head.open()
    assert next(run, "over") == "over"
    run.close()


def test_g10_an_error_of_a_source_that_was_given_a_frame_is_the_sources():
    def source():
        yield 0
        raise SoftLimit

    run = ordered_map(abs, source())
    assert next(run) == 0
    with pytest.raises(SoftLimit):
        next(run)


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, IndexError, KeyError])
@pytest.mark.parametrize("function", [ordered_map, ordered_flat_map])
def test_g16_no_exception_of_a_handler_within_a_pull_ends_the_loop_in_silence(error, function):
    def handler(*_):
        raise error

    results = []
    with handling(handler), pytest.raises((error, RuntimeError)):
        for result in function(lambda i: [i], signalling(range(9), 3), concurrency=1, window=1):
            results.append(result)
    assert len(results) <= 3


class Popping(list):
    """Results that are held; a signal comes when one has been taken."""

    def pop(self):
        value = super().pop()
        signal.raise_signal(signal.SIGUSR1)
        return value


def test_g16_an_index_error_of_a_handler_in_the_fast_path_of_a_flat_map_loses_no_element_in_silence():
    def handler(*_):
        [].pop()

    run = ordered_flat_map(range, [10, 10], concurrency=1, window=1)
    assert next(run) == 0
    while not run._held.buffer:
        next(run)
    lane, pop = run._held, run._held.pop

    def interrupted():
        value = pop()
        signal.raise_signal(signal.SIGUSR1)
        return value

    lane.pop = interrupted
    with handling(handler), pytest.raises(IndexError):
        next(run)
    assert list(run) == []


@pytest.mark.parametrize("ours", [True, False])
def test_g16_ctrl_c_that_lands_in_the_library_is_no_error_of_an_item(ours):
    """Python's own handler has no frame, so the innermost one is what it interrupts."""
    names = {"__name__": "inturn.core" if ours else "program", "signal": signal}
    exec("def interrupted(): signal.raise_signal(signal.SIGINT)", names)
    with pytest.raises(KeyboardInterrupt) as caught:
        names["interrupted"]()
    error = caught.value
    assert landed_here(error.with_traceback(error.__traceback__.tb_next)) == ours  # without this test's own frame


@pytest.mark.parametrize("function", [ordered_map, ordered_flat_map])
def test_g12_telling_an_error_of_a_handler_from_one_of_fn_keeps_nothing_of_fn(function):
    kept = []

    class Thing:
        pass

    def call(i):
        thing = Thing()
        kept.append(weakref.ref(thing))
        raise ValueError(i)

    with pytest.raises(ValueError) as caught:
        next(function(call, [1], executor="serial"))
    traceback.clear_frames(caught.value.__traceback__)
    assert kept[0]() is None


@pytest.mark.parametrize("where", ["progress", "factory", "submit", "done"])
def test_g16_a_stray_stop_iteration_does_not_end_the_loop_in_silence(where):
    from concurrent.futures import ThreadPoolExecutor

    def stray(*_):
        raise StopIteration

    class Refuses(ThreadPoolExecutor):
        submit = stray

    with ThreadPoolExecutor(2) as executor:
        executor.submit(abs, 1)
        options = {
            "progress": {"progress": stray},
            "factory": {"executor": stray},
            "submit": {"executor": Refuses()},
            "done": {"on_error": stray},
        }[where]
        run = ordered_map(lambda x: 1 // x, [0] * 40, **options)
        with pytest.raises(RuntimeError):
            for _ in run:
                pass
        assert list(run) == []


CALLS = """
started = threading.Semaphore(0)
hold = threading.Event()
def call(i):
    started.release()
    hold.wait(30)
def run():
    with ordered_map(call, range(8), concurrency=2{options}) as run:
        threading.Thread(target=tell, daemon=True).start()
        for _ in run:
            pass
def tell():
    started.acquire(); started.acquire()
    say("ready")
"""


@pytest.mark.parametrize("options", ["", ", timeout=60", ", live=True"])
def test_g14_a_block_that_is_left_by_ctrl_c_does_not_wait_for_calls_in_threads(options):
    with Script(
        CALLS.format(options=options)
        + """
try:
    run()
except KeyboardInterrupt:
    say("caught", hold.is_set())
hold.set()
"""
    ) as script:
        script.wait_for("ready")
        script.interrupt()
        script.end()
        assert script.lines == ["caught False"]
        assert script.err == ""
        assert script.code == 0


def test_g15_a_second_ctrl_c_at_exit_ends_the_program_with_one_traceback_in_all():
    with Script(
        CALLS.format(options="")
        + """
import atexit
atexit.register(say, "waiting")  # after the library's own: so it is called before
run()
"""
    ) as script:
        script.wait_for("ready")
        script.interrupt()
        script.wait_for("waiting")
        script.interrupt()
        script.end()
        assert script.err.count("Traceback") == 1, script.err
        assert script.err.rstrip().endswith("KeyboardInterrupt")
        assert script.code == -signal.SIGINT
