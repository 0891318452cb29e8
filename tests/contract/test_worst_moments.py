"""What happens at the worst moment: closing in the midst of a start or of a collection, the bound, and nested runs."""

import concurrent.futures.thread
import contextvars
import gc
import math
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from inturn import ordered_map, retry
from inturn._core.threads import may_wait
from inturn._engine.window import NEVER, Window
from inturn._pools.executors import ExecutorPool
from inturn._pools.threads import ThreadPool
from programs import Script
from waiting import HANG_S, Background, Gate, Meter, Tally, absence, handling, wait_until

# ---- closing where nobody may wait ---------------------------------------------------------------


@pytest.mark.parametrize("how", ["with", "from"])
@pytest.mark.parametrize("options", ["", "live=True"])
def test_g15_a_generator_over_a_run_that_is_left_paused_does_not_block_exit(options, how):
    wrap = {
        "with": f"with ordered_map(call, counting(), {options}) as run:\n        yield from run",
        "from": f"yield from ordered_map(call, counting(), {options})",
    }[how]
    with Script(
        f"""
def call(i):
    return i or pulled.wait(HANG_S)  # the head is not ready before the third item has been pulled
def results():
    {wrap}
left = results()
next(left)
say("over")
"""
    ) as script:
        script.end()
        assert script.err == ""
        assert script.lines == ["over"]
        assert script.code == 0


def test_g15_a_daemon_that_consumes_at_exit_gets_an_error_and_no_short_list():
    with Script(
        """
said = threading.Event()
begun = threading.Semaphore(0)
def call(i):
    begun.release()
    said.wait(HANG_S)  # exit waits for the call, and so the daemon prints its line before it is frozen
    return i
def work():
    try:
        say(len(list(ordered_map(call, range(40), concurrency=2))))
    except RuntimeError as error:
        say(error)
    said.set()
threading.Thread(target=work, daemon=True).start()
assert begun.acquire(timeout=HANG_S)
"""
    ) as script:
        script.end()
        assert script.lines == ["the interpreter is shutting down"]


def test_g16_close_in_a_worker_outside_its_calls_does_not_wait_for_itself(monkeypatch):
    """As the garbage collector does, which runs anywhere, when it closes a generator around a run."""
    closed = Tally()
    claim = ThreadPool._claim

    def claims(pool, slot):
        chunk = claim(pool, slot)
        if threading.current_thread() is not threading.main_thread() and not len(closed):
            closed.add(may_wait(run._run.job))
            run.close()
        return chunk

    monkeypatch.setattr(ThreadPool, "_claim", claims)
    run = ordered_map(abs, iter(range(1000)), concurrency=2)
    assert len(list(run)) < 1000
    assert closed.seen == [False]


def test_g13_a_generator_over_a_run_in_a_reference_cycle_is_collected_wherever_it_may_be():
    with Script(
        """
class Reader:
    def __init__(self):
        self.stream = self.results()
    def results(self):
        with ordered_map(float, range(100000), concurrency=2, window=4000) as run:
            yield from run
end = time.perf_counter() + 1.5  # as often as it comes to it: what is looked for takes many moments
while time.perf_counter() < end:
    next(Reader().stream)
say("over")
"""
    ) as script:
        script.end()
        assert script.err == ""
        assert script.lines == ["over"]
        assert script.code == 0


@pytest.mark.parametrize("context", ["its own", "another"])
def test_g13_leaving_an_inner_run_waits_for_it_in_whatever_context_the_call_is(context):
    other = contextvars.copy_context()
    ended = []

    def slow(x):
        if x:
            begun.open()
            absence(0.2)
        else:
            begun.wait()
        ended.append(x)

    def call(_):
        with ordered_map(slow, [0, 1], concurrency=2) as inner:
            next(inner)
        return ended[:]

    begun = Gate()
    run = ordered_map(call if context == "its own" else lambda _: other.copy().run(call, _), [None])
    assert list(run) == [[0, 1]]


@pytest.mark.parametrize("executor", ["the same", "another"])
def test_g16_close_from_a_handler_that_lands_within_a_submit_whose_call_submits(monkeypatch, executor):
    """`ThreadPoolExecutor.submit` holds locks that the call needs."""
    hold, submits = Gate(), []
    item = concurrent.futures.thread._WorkItem

    def handler(*_):
        hold.open()
        absence(0.02)  # so that the call comes to its own submit
        run.close()

    def spy(*args):
        if threading.current_thread() is threading.main_thread():
            submits.append(None)
            if len(submits) == 2:
                signal.raise_signal(signal.SIGUSR1)
        return item(*args)

    monkeypatch.setattr(concurrent.futures.thread, "_WorkItem", spy)
    with handling(handler), ThreadPoolExecutor(4) as mine, ThreadPoolExecutor(1) as other:

        def call(x):
            if x == 0:
                hold.wait()
                return (mine if executor == "the same" else other).submit(str, 1).result(HANG_S)
            return x

        run = ordered_map(call, range(10), executor=mine, concurrency=2)
        assert list(run) == []
        assert len(submits) >= 2


def test_g28_close_while_a_thread_turns_out_not_to_be_had(monkeypatch):
    trying, go = Gate(), Gate()
    start = threading.Thread.start

    def starts(thread):
        if thread.name == "inturn-2":
            trying.open()
            go.wait()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    hold = Gate()
    run = ordered_map(lambda i: hold.wait() if i == 1 else i, iter(range(50)), concurrency=4)
    consumer = Background(lambda: list(run))
    trying.wait()
    closer = Background(run.close)
    wait_until(lambda: run._run.job.stopped)
    go.open()
    hold.open()
    closer.result()
    consumer.result()


def test_g16_a_run_that_is_closed_within_next_is_over_when_that_has_delivered():
    told = []

    def policy(failure):
        run.close()
        return "closed"

    def call(i):
        if i == 0:
            raise ValueError(i)
        return i

    run = ordered_map(call, range(4), concurrency=4, on_error=policy, progress=told.append)
    assert next(run) == "closed"
    elapsed = run.stats.elapsed
    assert told[-1].delivered == 1
    assert run.stats.elapsed == elapsed
    assert list(run) == []


def test_g16_an_index_error_of_a_handler_is_not_taken_for_the_end_of_a_batch():
    def handler(*_):
        [].pop()

    run = ordered_map(abs, range(100), chunksize=10, window=10, concurrency=1)
    assert next(run) == 0
    wait_until(lambda: run.stats.waiting == 0 or run.stats.running == 0)
    while not run._held:
        next(run)

    class Interrupted(list):
        def pop(self):
            value = super().pop()
            signal.raise_signal(signal.SIGUSR1)
            return value

    run._held = Interrupted(run._held)
    with handling(handler), pytest.raises(IndexError):
        next(run)
    assert list(run) == []


# ---- order, the bound, and what is kept ----------------------------------------------------------


def test_g01_the_last_item_of_a_live_source_that_comes_while_the_end_is_looked_for(monkeypatch):
    """The consumer is held up between its two looks, as without the GIL it may be."""
    looking, done = Gate(), Gate()
    armed = []

    class Held(Window):
        @property
        def exhausted(self):
            if armed and not looking.is_open and threading.current_thread() is threading.main_thread():
                looking.open()
                done.wait()
            return self.__dict__["exhausted"]

        @exhausted.setter
        def exhausted(self, value):
            self.__dict__["exhausted"] = value
            if value:
                done.open()

    def source():
        yield 0
        looking.wait()
        yield 1

    run = ordered_map(abs, source(), live=True)
    run._run.window.__class__ = Held
    assert next(run) == 0
    armed.append(None)
    assert list(run) == [1]


def test_g09_under_raise_nothing_is_pulled_once_a_failure_is_known(monkeypatch):
    monkeypatch.setattr("inturn._core.consumer.HANDFUL_S", math.inf)  # else the time alone would end the handful
    pulled, fail = [], Gate()

    def source():
        for i in range(100):
            pulled.append(i)
            if i == 5:
                fail.open()
                wait_until(lambda: run._run.window.last_index != NEVER)
            yield i

    def call(i):
        fail.wait()
        raise ValueError(i)

    run = ordered_map(call, source(), concurrency=1, window=100)
    with pytest.raises(ValueError, match="0"):
        next(run)
    assert pulled == list(range(6))


def test_g12_an_item_is_released_while_the_rest_of_its_chunk_runs():
    class Item:
        pass

    items = [Item() for _ in range(3)]
    alive = [weakref.ref(item) for item in items]
    number = {id(item): i for i, item in enumerate(items)}

    def call(item):
        if number[id(item)] < 2:
            return None
        gc.collect()
        return [each() is None for each in alive]

    source = (items.pop(0) for _ in range(3))  # a list's iterator would keep them
    assert list(ordered_map(call, source, chunksize=3, concurrency=1, window=3))[-1] == [True, True, False]


def test_g21_what_a_stopped_run_still_starts_has_its_context(monkeypatch):
    """Whoever stops is held up before what has been claimed is taken away."""
    seen, begun, stopping = [], Gate(), Gate()
    held = []

    def call(i):
        from inturn._core.nesting import inside

        seen.append(inside(job))
        return i

    run = ordered_map(call, range(2), concurrency=1, window=1)
    job = run._run.job
    slots, begins = job.pool.slots, job.begun

    def stop_is_held_up():
        if sys._getframe(1).f_code.co_name == "stop" and not held:
            held.append(None)
            stopping.open()
            wait_until(lambda: seen)
        return slots()

    def is_held_up(slot, chunk):
        begins(slot, chunk)
        begun.open()
        stopping.wait()

    monkeypatch.setattr(job.pool, "slots", stop_is_held_up)
    monkeypatch.setattr(job, "begun", is_held_up)
    consumer = Background(lambda: next(run, None))
    begun.wait()
    wait_until(lambda: job.sleeping)
    run.close()
    consumer.result()
    assert seen == [True]


def test_a_retry_without_backoff_never_pauses():
    policy = retry(attempts=5000, backoff=0, jitter=False)
    assert {policy.pause(attempt) for attempt in (1, 2, 1024, 1025, 4999)} == {0.0}


# ---- nested runs ---------------------------------------------------------------------------------


def test_g22_a_run_nested_in_one_executor_leaves_its_calls_to_another():
    """Though they wait there: its threads may have something of their own."""
    local = threading.local()

    def connect():
        local.connection = "mine"

    def query(x):
        absence(0.01)
        return local.connection

    with ThreadPoolExecutor(4) as outer, ThreadPoolExecutor(1, initializer=connect) as inner:

        def call(_):
            return list(ordered_map(query, range(3), executor=inner, concurrency=1))

        assert list(ordered_map(call, range(4), executor=outer, concurrency=4)) == [["mine"] * 3] * 4


def test_g19_a_nested_run_whose_head_pauses_keeps_to_its_concurrency():
    meter, failed = Meter(), []

    def call(x):
        with meter:
            if x == 0 and not failed:
                failed.append(x)
                raise OSError(x)
            time.sleep(0.05)  # so that calls would overlap if they were let
            return x

    with ThreadPoolExecutor(8) as executor:

        def outer(_):
            policy = retry(backoff=0.3, jitter=False)
            return list(ordered_map(call, range(12), executor=executor, concurrency=2, window=12, on_error=policy))

        assert list(ordered_map(outer, [0], executor=executor)) == [list(range(12))]
    assert meter.peak <= 2


def test_g22_a_nested_run_whose_head_pauses_without_room_waits_for_it_asleep(monkeypatch):
    """The head pauses, and the calls that take its room are in the queue: nothing is to be looked at meanwhile."""
    looks, failed, paused = [], [], threading.Event()
    look = ExecutorPool._look_after_head
    monkeypatch.setattr(ExecutorPool, "_look_after_head", lambda pool: looks.append(None) or look(pool))

    def call(x):
        if x == 0 and not failed:
            failed.append(x)
            raise OSError(x)
        return x

    with ThreadPoolExecutor(2) as executor:

        def outer(blocks):
            if blocks:
                return paused.wait(60)
            try:
                policy = retry(backoff=0.3, jitter=False)
                return list(ordered_map(call, range(6), executor=executor, concurrency=2, on_error=policy))
            finally:
                paused.set()

        assert list(ordered_map(outer, [False, True], executor=executor)) == [list(range(6)), True]
    assert len(looks) < 50


def test_g28_a_nested_run_ends_with_the_lack_of_a_thread_for_its_head(monkeypatch):
    start = threading.Thread.start

    def starts(thread):
        if thread.name == "inturn-rescue":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    with ThreadPoolExecutor(1) as executor:

        def call(x):
            with ordered_map(abs, [x, x], executor=executor) as inner:
                return sum(inner)

        with pytest.raises(RuntimeError, match="new thread"):
            list(ordered_map(call, [1], executor=executor))
