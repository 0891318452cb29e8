"""The clock that everything waits by, where a tool has stopped the time: freezegun does it as `frozen` does."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from functions_for_workers import Oops, double
from inturn import Limiter, ordered_flat_map, ordered_map, retry
from waiting import HOUR, SHORT, Gate, Tally


@pytest.fixture
def frozen(monkeypatch):
    clocks = [time.time, time.monotonic, time.perf_counter]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "inturn":
            for attribute, value in list(vars(module).items()):
                if any(value is each for each in clocks):
                    monkeypatch.setattr(module, attribute, lambda: 1e9)
    for each in clocks:
        monkeypatch.setattr(time, each.__name__, lambda: 1e9)


def fails_once(tally, x):
    if len(tally) == 0:
        tally.add(x)
        raise Oops
    return 2 * x


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("executor", ["thread", "serial", ThreadPoolExecutor])
def test_pauses_and_limits_are_over_though_the_time_stands_still(executor):
    policy = retry(backoff=0.01)
    assert list(ordered_map(partial(fails_once, Tally()), range(3), executor=executor, on_error=policy)) == [0, 2, 4]
    assert list(ordered_map(double, range(3), executor=executor, limit=Limiter(100))) == [0, 2, 4]


@pytest.mark.usefixtures("frozen")
def test_time_limits_are_over_though_the_time_stands_still():
    stuck = Gate()
    call = partial(lambda gate, x: gate.wait() if x == 1 else x, stuck)
    assert list(ordered_map(call, range(3), timeout=SHORT, on_error="skip")) == [0, 2]
    with pytest.raises(TimeoutError, match="deadline"):
        list(ordered_map(call, range(3), deadline=SHORT))
    elements = partial(lambda gate, x: [gate.wait()] if x == 1 else [x], stuck)
    assert list(ordered_flat_map(elements, range(3), timeout=SHORT, on_error="skip")) == [0, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="no POSIX processes")
def test_worker_processes_are_killed_though_the_time_stands_still(request):
    list(ordered_map(double, range(3), executor="process"))  # its modules are imported
    request.getfixturevalue("frozen")
    calls = [(0.0, 0), (HOUR, 1), (0.0, 2)]
    assert list(ordered_map(sleep_then, calls, executor="process", timeout=SHORT, on_error="skip")) == [0, 2]


def sleep_then(call):
    seconds, value = call
    time.sleep(seconds)
    return value
