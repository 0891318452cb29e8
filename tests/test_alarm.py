"""What threads wait for."""

import threading
from queue import Empty

import pytest

from inturn import ordered_map, retry
from inturn._alarm import LONG_S, Alarm


def test_a_ring_that_comes_while_nobody_waits_is_remembered_once():
    alarm = Alarm()
    alarm.put()
    alarm.put()
    alarm.get(timeout=0)
    with pytest.raises(Empty):
        alarm.get(timeout=0)


def test_a_wait_ends_with_the_ring_of_another_thread():
    alarm = Alarm()
    thread = threading.Thread(target=alarm.put)
    thread.start()
    alarm.get(timeout=LONG_S * LONG_S)
    thread.join()


@pytest.mark.parametrize("timeout", [1e-9, 1e-7, 1e-6, 1e-5, 1e-4])
def test_a_short_wait_ends_though_it_has_rung_before(timeout):
    """A timed `SimpleQueue.get` may wait for ever here."""
    alarm = Alarm()
    for _ in range(200):
        alarm.put()
        alarm.get()
        with pytest.raises(Empty):
            alarm.get(timeout=timeout)


def test_short_pauses_between_many_attempts_all_end():
    """Hung about once in fifty runs when the warden waited by a timed `SimpleQueue.get`."""
    for _ in range(5):
        attempts = []

        def call(item, attempts=attempts):
            attempts.append(item)
            if len(attempts) < 300:
                raise ValueError(item)
            return item

        policy = retry(attempts=300, backoff=0.0001, max_backoff=0.0001)
        assert list(ordered_map(call, [1], on_error=policy)) == [1]
