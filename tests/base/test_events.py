"""What threads wait for."""

import threading

import pytest

from inturn import ordered_map, retry
from inturn._base.events import LONG_S, Latch, ThreadEvent
from waiting import Background


def test_an_event_that_is_set_while_nobody_waits_is_remembered_once():
    event = ThreadEvent()
    event.set()
    event.set()
    assert event.wait(0)
    assert not event.wait(0)


def test_a_wait_ends_when_another_thread_sets_the_event():
    event = ThreadEvent()
    thread = threading.Thread(target=event.set)
    thread.start()
    assert event.wait(LONG_S * LONG_S)
    thread.join()


@pytest.mark.parametrize("timeout", [1e-9, 1e-7, 1e-6, 1e-5, 1e-4])
def test_a_short_wait_ends_though_the_event_was_set_before(timeout):
    """A timed `SimpleQueue.get` may wait for ever here."""
    event = ThreadEvent()
    for _ in range(200):
        event.set()
        assert event.wait()
        assert not event.wait(timeout)


def test_short_pauses_between_many_attempts_all_end():
    """Hung about once in fifty runs when the supervisor waited by a timed `SimpleQueue.get`."""
    for _ in range(5):
        attempts = []

        def call(item, attempts=attempts):
            attempts.append(item)
            if len(attempts) < 300:
                raise ValueError(item)
            return item

        policy = retry(attempts=300, backoff=0.0001, max_backoff=0.0001)
        assert list(ordered_map(call, [1], on_error=policy)) == [1]


def test_a_latch_is_opened_while_threads_begin_to_wait_for_it():
    """Without the GIL, copying a deque in several steps fails if another thread appends."""
    for _ in range(100):
        latch = Latch()
        waiting = [Background(latch.wait) for _ in range(4)]
        latch.open()
        for each in waiting:
            each.result()
