"""What the tests wait with: doors, lists and counters that announce a change, so that no test sleeps to force an order.

No verdict depends on how fast the machine is. A test decides by events and by their order; where time itself is tested, by a
ratio of two durations of the same run, by a lower bound (a machine may be slow, but no clock is), or with a factor of ten to
spare. Whatever waits gives up after `HANG_S` seconds with an error that says what it waited for.
"""

import contextlib
import gc
import itertools
import re
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from inturn._base.atomic import GIL

HANG_S = 60.0  # a wait as long as this is a hang: never reached by a test that passes, however slow the machine
HOUR = 3600.0  # seconds: a pause or a call that no test may wait for; one that does meets its own time limit
SHORT = 0.75  # seconds: a time limit that is to expire; what it must not meet returns at once, or after a sixth of it
GRACE_S = 0.5  # of guarantees 13 and 17: what running calls in processes are given before they are killed
TENFOLD = 10  # what may be later than the contract says, since the machine may be slow: the room of every upper bound


class Gate:
    """A door that calls wait at. Every gate is opened when its test is over, whatever happened."""

    _all: list["Gate"] = []

    def __init__(self) -> None:
        self._event = threading.Event()
        Gate._all.append(self)

    def wait(self) -> None:
        assert self._event.wait(HANG_S), "nobody opened the gate"

    def open(self) -> None:
        self._event.set()

    @property
    def is_open(self) -> bool:
        return self._event.is_set()

    @classmethod
    def open_all(cls) -> None:
        for gate in cls._all:
            gate.open()
        cls._all.clear()


class Tally:
    """A list that calls write into and a test can wait for."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._changed = threading.Condition()

    def add(self, value: Any) -> Any:
        with self._changed:
            self.seen.append(value)
            self._changed.notify_all()
        return value

    def wait(self, count: int) -> list[Any]:
        """Until `count` values are in; returns what is in then."""
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self.seen) >= count, HANG_S)
            assert enough, f"{len(self.seen)} of {count} came: {self.seen[:50]}"
            return list(self.seen)

    def __len__(self) -> int:
        return len(self.seen)


class Meter:
    """How many are inside at once: now, and at most."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.peak = max(self.peak, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


class Background(threading.Thread):
    """A call in a thread of its own, whose result, or error, can be asked for."""

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self._call: tuple[Any, ...] | None = (fn, *args)
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        assert self._call is not None
        (fn, *args), self._call = self._call, None
        try:
            self._value = fn(*args)
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.join(HANG_S)
        assert not self.is_alive(), "the call in the background does not end"
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        return self._value


class Source:
    """An iterator that records each pull: when, from which thread, with how many items held.

    `held` counts what is pulled and not delivered at the moment a pull begins, the pull itself included; it is right
    as long as the consumer counts up `delivered`, which `watch` does. `on_pull(k)` runs inside the pull of item k.
    """

    def __init__(self, items: Iterable[Any], on_pull: Callable[[int], object] | None = None) -> None:
        self._items = iter(items)
        self._on_pull = on_pull
        self.begun = Tally()
        self.asked = self.delivered = 0
        self.held: list[int] = []
        self.held_or_asked: list[int] = []  # for a feeder, which may pull before the consumer has counted
        self.threads: set[int] = set()

    @property
    def pulls(self) -> int:
        return len(self.begun)

    def __iter__(self) -> "Source":
        return self

    def __next__(self) -> Any:
        k = self.pulls
        self.begun.add(k)
        self.held.append(k + 1 - self.delivered)
        self.held_or_asked.append(k + 1 - self.asked)
        self.threads.add(threading.get_ident())
        if self._on_pull is not None:
            self._on_pull(k)
        return next(self._items)

    def watch(self, run: Iterator[Any]) -> Iterator[Any]:
        while True:
            self.asked += 1
            try:
                result = next(run)
            except StopIteration:
                return
            self.delivered += 1
            yield result


class Thing:
    """An object whose end can be waited for."""

    def __init__(self, name: object = None) -> None:
        self.name = name


class Farewell(Gate):
    """A gate that opens when an object goes.

    Without the GIL an object that another thread has released goes when the thread that made it runs again, or when the
    garbage collector asks all threads. So this thread stays awake, and asks the collector.
    """

    def wait(self) -> None:
        looks = itertools.count(1)

        def gone() -> bool:
            if not GIL and next(looks) % 20 == 0:
                gc.collect()
            return self.is_open

        wait_until(gone, "the last reference is lost")


def farewell(thing: object) -> Gate:
    """A gate that opens when `thing` is no longer referenced by anybody."""
    gate = Farewell()
    gate._reference = weakref.ref(thing, lambda _: gate.open())  # type: ignore[attr-defined]
    return gate


def spend(seconds: float) -> None:
    """Take time: for calls and pulls whose duration itself is the point."""
    time.sleep(seconds)


def absence(seconds: float = 0.1) -> None:
    """Leave time for something that must not happen: what does not happen announces nothing to wait for."""
    time.sleep(seconds)


def shown(thing: object) -> str:
    """The name of a parameter: the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def wait_until(condition: Callable[[], object], what: str = "") -> None:
    """For states that nothing announces, such as a count in `stats` or the end of a thread."""
    give_up = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < give_up, f"never came true: {what or condition}"
        time.sleep(0.001)  # between two looks


def wait_until_told_to_end(run: Any) -> None:
    """What `close` does before it waits; nothing announces it."""
    inner = getattr(run._run, "_run", run._run)  # an async run, behind the interface of a synchronous one
    wait_until(lambda: inner.job.stopped, "the run is told to end")


@contextlib.contextmanager
def handling(handler: Callable[[int, Any], object]) -> Iterator[None]:
    """SIGUSR1 is answered so meanwhile."""
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


class Watch:
    """How long something took: `with Watch() as watch: ...`, then `watch.seconds`. It may run more than once, and adds up.

    To be compared with another duration of the same run, or with what the library says of the same time.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._begun = threading.local()

    def __enter__(self) -> "Watch":
        self._begun.at = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        took = time.perf_counter() - self._begun.at
        with self._lock:
            self.seconds += took


def assert_waiting_costs_nothing(seconds: float = 0.4) -> None:
    """This process sleeps meanwhile: it is hardly ever woken, and uses no CPU.

    The wakeups are an event, counted by the system, and as many on any machine; polling every hundredth of a second is forty
    of them. A busy loop is not woken; on a machine with four more of them it still gets a fifth of a core.
    """
    absence(0.05)  # what has just been waited for may have to be finished
    woken, began, used = _wakeups(), time.monotonic(), time.process_time()
    absence(seconds)
    share = (time.process_time() - used) / (time.monotonic() - began)
    woken = _wakeups() - woken
    assert woken <= 10, f"woken {woken} times"
    assert share < 0.01 * TENFOLD, f"uses {share:.0%} of a core"


def _wakeups() -> int:
    """How often a thread of this process has gone to sleep."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def primed(runner: Any, call: Callable[[int], Any], window: int = 10, **settings: Any) -> tuple[Any, Source]:
    """A run over 0, 1, 2, … whose first result has been delivered, and whose window was full at that moment."""
    import itertools

    full = Gate()
    source = Source(itertools.count(), lambda k: full.open() if k >= window - 1 else None)

    def call_after_the_window_is_full(i: int) -> Any:
        if i == 0:
            full.wait()
        return call(i)

    run = runner.map(call_after_the_window_is_full, source, window=window, **settings)
    next(run)
    source.delivered += 1
    return run, source
