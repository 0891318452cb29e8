"""Fixtures of all tests: the drivers, and a check that a test leaves nothing behind."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from typing import Any

import hypothesis
import pytest

import clusters
from drivers import DRIVERS, Driver, Runner
from waiting import HANG_S, Gate

hypothesis.settings.register_profile(
    "default",
    max_examples=60,
    deadline=None,  # an example's time is the machine's, not the property's
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("thorough", hypothesis.settings.get_profile("default"), max_examples=2000)
hypothesis.settings.register_profile(  # for tests that are known to fail, see tests/mutations
    "unshrunk", hypothesis.settings.get_profile("default"), phases=[hypothesis.Phase.generate], max_examples=200
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

with contextlib.suppress(ImportError):
    import tqdm

    tqdm.tqdm.monitor_interval = 0  # or else its first bar starts a thread that stays

# Some environments forbid byte code. Then each worker of pytest-xdist, and each of the thousand programs and worker
# processes that the tests start, would compile the library, and pytest each module of the tests, anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would the programs that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _fixture(name: str, **wanted: bool):
    drivers = [d for d in DRIVERS if all(getattr(d, key) == value for key, value in wanted.items())]

    @pytest.fixture(name=name, params=[pytest.param(d, marks=d.marks, id=d.name) for d in drivers])
    def fixture(request: pytest.FixtureRequest) -> Iterator[Runner]:
        runner = Runner(request.param)
        yield runner
        runner.end()

    return fixture


driver = _fixture("driver")
inside = _fixture("inside", in_process=True)
overlapping = _fixture("overlapping", in_process=True, concurrent=True)
own = _fixture("own", in_process=True, concurrent=True, owned=True)
refilling = _fixture("refilling", in_process=True, concurrent=True, refills=True)
apart = _fixture("apart", in_process=True, concurrent=True, apart=True)
kinds = _fixture("kinds", in_process=True, apart=True)
pulling = _fixture("pulling", in_process=True, live=False)


@pytest.fixture
def threads() -> Iterator[Runner]:
    """The default driver alone, for tests that do not depend on the driver."""
    runner = Runner(DRIVERS[0])
    yield runner
    runner.end()


@pytest.fixture(scope="session", autouse=True)
def servers() -> None:
    """Start what `multiprocessing` keeps until the program ends, so that it is no leftover of a single test."""
    if sys.platform != "win32":
        resource_tracker.ensure_running()
        forkserver.ensure_running()


def pytest_sessionfinish() -> None:
    faulthandler.cancel_dump_traceback_later()
    clusters.end()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """With ``-n auto``: most tests wait for threads, for processes or for a time limit, so a core has room for four."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # whoever set it knows better
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4 * cores, 16)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whoever has nothing left to do takes over half of what another has left: so none is last for long."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


FULLY_TESTED = {"thread", "borrowed", "serial"}


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_stderr] = os.dup(2)  # a test's own is captured
    config.stash[_kept_until] = 0.0
    config.addinivalue_line("markers", "waits: for a time limit, so one combination has to do for most drivers")
    config.addinivalue_line("markers", "long: takes seconds, and is run first, so that nothing waits for it at the end")
    config.addinivalue_line("markers", "cluster: needs a cluster of Dask or Ray, or loky, and is run at the end")
    config.addinivalue_line("markers", "drivers(reason, **capabilities): not for drivers that have others")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why tests were skipped, a line for each reason; and that some were deselected, which pytest does not say with -n."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.getreports("skipped"))
    for reason, times in reasons.most_common():
        terminalreporter.write_line(f"{times} {reason.replace('Skipped', 'skipped')}")
    if os.environ.get("INTURN_TESTS") != "all":
        terminalreporter.write_line(
            "inturn: executors that share most of their code ran a sample of each test's settings; "
            "INTURN_TESTS=all runs every combination"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what a driver cannot do, and most combinations that test the same thing again.

    The product of drivers, windows, chunk sizes and policies is large. Drivers that share all code but their workers run a
    few spread-out combinations each, and not the same ones. Of a test that waits for a time limit, each driver but the first
    runs one. INTURN_TESTS=all runs all.
    """
    groups: dict[tuple[str, Driver], list[pytest.Item]] = {}
    left_out: set[pytest.Item] = set()
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        for driver in [value for value in params.values() if isinstance(value, Driver)]:
            if not _fits(driver, item, params):
                left_out.add(item)
            elif driver is not DRIVERS[0] and (driver.name not in FULLY_TESTED or _waits(item)):
                groups.setdefault((item.nodeid.partition("[")[0], driver), []).append(item)
    if os.environ.get("INTURN_TESTS") != "all":
        for (_, driver), group in groups.items():
            most = 1 if _waits(group[0]) else driver.most
            if len(group) > most:
                first = DRIVERS.index(driver)
                kept = {(first + number * len(group) // most) % len(group) for number in range(most)}
                left_out.update(item for number, item in enumerate(group) if number not in kept)
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]
    cluster, long, others = [], [], []
    for item in items:
        names = {mark.name for mark in item.iter_markers()}
        (cluster if "cluster" in names else long if "long" in names else others).append(item)
    items[:] = _long_ones_first(long, others) + cluster


def _long_ones_first(long: list[pytest.Item], others: list[pytest.Item]) -> list[pytest.Item]:
    """For pytest-xdist: the list is divided equally among its workers, and each takes its part from the front."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    size = (len(long) + len(others)) // workers
    rest = iter(others)
    parts: list[pytest.Item] = []
    for worker in range(workers):
        first = long[worker::workers]
        parts += [*first, *itertools.islice(rest, max(0, size - len(first)))]
    return [*parts, *rest]


def _waits(item: pytest.Item) -> bool:
    return item.get_closest_marker("waits") is not None


def _needs_cluster(item: pytest.Item) -> bool:
    return item.get_closest_marker("cluster") is not None


def _fits(driver: Driver, item: pytest.Item, params: dict[str, Any]) -> bool:
    settings = params.get("settings")
    asked = {**params, **(settings if isinstance(settings, dict) else {})}
    return not any(asked.get(option) for option in driver.lacks) and all(
        getattr(driver, name) == value for mark in item.iter_markers("drivers") for name, value in mark.kwargs.items()
    )


def pytest_collection_finish() -> None:
    gc.freeze()  # thousands of tests: none of these objects has to be looked at by a garbage collection in one of them


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    _last_resort(item)


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """pytest stops the clock after a failure, for debugging. Start it again: the teardown may hang too."""
    if isinstance(node, pytest.Item):
        node.config.stash[_kept_until] = 0.0
        _last_resort(node)


def _last_resort(item: pytest.Item) -> None:
    """End the process, and show the stack of every thread, if a test still hangs after its time limit.

    Once a minute the clock is set anew, not for each test: that is a thread that has to end, and another that has to start.
    """
    mark = item.get_closest_marker("timeout")
    until = time.monotonic() + (mark.args[0] if mark else float(item.config.getini("timeout"))) + 30
    if not until <= item.config.stash[_kept_until] <= until + 60:
        item.config.stash[_kept_until] = until + 60
        seconds = until + 60 - time.monotonic()
        faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[_stderr])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if call.when == "call":
        item.stash[_failed] = report.failed
    return report


_failed = pytest.StashKey[bool]()
_stderr = pytest.StashKey[int]()
_kept_until = pytest.StashKey[float]()  # when the last resort comes


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """No thread, child process or descriptor may outlive its test."""
    if _needs_cluster(request.node):
        yield
        return
    before = _belongings()
    yield
    Gate.open_all()
    if request.node.stash.get(_failed, True):
        return  # its traceback holds on to whatever was there
    left = _left(before)
    if left:
        gc.collect()
        deadline = time.monotonic() + HANG_S
        for thread in threading.enumerate():
            if thread in left:
                thread.join(max(0.0, deadline - time.monotonic()))
        looks = round(HANG_S / 0.005)  # counted, since a machine that stands still for seconds gives nobody time to go
        while (left := _left(before)) and looks > 0:
            time.sleep(0.005)  # what ends outside of Python announces nothing to wait for
            looks -= 1
    assert not left, f"left behind: {left}\n{_stacks()}"


def _stacks() -> str:
    """The stacks of all threads, also of those that `threading` does not know."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        return file.read()


def _left(before: set[object]) -> set[object]:
    return _belongings() - before


def _belongings() -> set[object]:
    """Threads, also those that `threading` has not made, child processes and open descriptors."""
    # An interrupt within `Thread.start` can leave one on the list that never ran, or has ended: CPython's `threading`.
    things: set[object] = {thread for thread in threading.enumerate() if thread.is_alive()}
    things.update(multiprocessing.active_children())
    if sys.platform == "linux":
        things.update(f"native thread {name}" for name in _native_threads())
        # the descriptor of this very listing is among them, and closed by now
        things.update(
            f"descriptor {fd}" for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")
        )
        with contextlib.suppress(FileNotFoundError), open(f"/proc/self/task/{os.getpid()}/children") as children:
            things.update(f"child {pid}" for pid in children.read().split())  # not every kernel has it
    return things


def _native_threads() -> list[str]:
    """Read until two listings agree: the kernel's list of threads ends early at a thread that is just exiting."""
    names: list[str] = []
    while names != (names := os.listdir("/proc/self/task")):
        pass
    return names
