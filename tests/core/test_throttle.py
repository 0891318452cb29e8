"""The place of a run in the queue of its limiter."""

from inturn import Limiter
from inturn._base.clock import clock
from inturn._core.throttle import Throttle
from waiting import HOUR


def test_g34_a_worker_that_asks_just_as_the_run_ends_leaves_nothing_in_the_queue():
    """It has seen that the run goes on; then the run ends, and leaves the queue; then the worker asks."""
    limiter = Limiter(1)
    limiter.pause(HOUR)
    throttle = Throttle(limiter)
    throttle.close(clock)
    assert throttle.ask(clock, start=True) is not None
    assert not limiter._books.queue
