"""The supervisor: the one thread that the consumer starts."""

import threading

import pytest

from inturn import ordered_map, retry
from inturn._base.events import LONG_S

# ---- the supervisor, the one thread that the consumer starts ------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"timeout": LONG_S}, {"live": True}, {"executor": "process"}, {"executor": "serial", "live": True}],
    ids=repr,
)
def test_g16_the_consumer_starts_no_thread_in_steps_that_can_be_interrupted(options, monkeypatch):
    """`Thread.start` takes several; only the supervisor does that, where no signal handler runs."""
    starters = set()
    start = threading.Thread.start

    def starts(thread):
        starters.add(threading.get_ident())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starts)
    with ordered_map(abs, range(100), on_error=retry(backoff=0), **options) as run:
        assert list(run) == list(range(100))
    assert starters
    assert threading.get_ident() not in starters


def test_g28_a_run_whose_supervisor_cannot_be_had_ends_with_that_error(monkeypatch):
    import _thread

    def none(*_):
        raise RuntimeError("can't start new thread")

    run = ordered_map(abs, range(10))
    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", none)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            next(run)
    assert list(run) == []
    run.close()
