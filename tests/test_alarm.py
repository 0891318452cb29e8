"""What threads wait for."""

import signal
import threading
from queue import Empty

import pytest

from calls import Oops, fail_at
from helpers import handling
from inturn import ordered_map, retry
from inturn._base.alarm import LONG_S, Alarm
from inturn._core.run_thread import RunThread, start


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


class Shaken(threading.Thread):
    """Its start answers an interrupt as `threading` may: with an error of its own."""

    def __init__(self, interrupt):
        super().__init__(target=lambda: None)
        self.interrupt = interrupt

    def start(self):
        super().start()
        try:
            self.interrupt()
        finally:
            raise RuntimeError("release unlocked lock")


def interrupted():
    raise KeyboardInterrupt


def stopped(*_):
    raise Oops


def nothing():
    pass


def test_g14_an_interrupt_in_the_start_of_a_thread_is_raised_as_it_is():
    with pytest.raises(KeyboardInterrupt) as caught:
        start(Shaken(interrupted))
    assert caught.value.__context__ is None


def test_g16_an_error_of_a_handler_in_the_start_of_a_thread_is_raised_as_it_is():
    with handling(stopped), pytest.raises(Oops):
        start(Shaken(lambda: signal.raise_signal(signal.SIGUSR1)))


@pytest.mark.parametrize("interrupt", [nothing, lambda: fail_at({0}, 0)], ids=["alone", "after an error of its own"])
def test_g28_a_lack_of_threads_is_a_lack_of_threads(interrupt):
    with pytest.raises(RuntimeError, match="unlocked"):
        start(Shaken(interrupt))


def test_g28_a_lack_of_threads_while_an_interrupt_is_handled_is_a_lack_of_threads():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with pytest.raises(RuntimeError, match="unlocked"):
            start(Shaken(nothing))
