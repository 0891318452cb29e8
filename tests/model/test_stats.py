"""Seeing what happens: `stats`, `repr` and `progress`."""

import asyncio
import collections
import gc
import io
import itertools
import re
import subprocess
import sys
import threading
import time
from functools import partial
from unittest.mock import Mock, NonCallableMock

import pytest

from functions_for_workers import double, fail_at, pair, same
from inturn import SKIP, Stats, ordered_amap, ordered_flat_map, ordered_map, retry
from waiting import SHORT, Background, Gate, Source, Tally, Watch, absence, primed, shown, spend, wait_until

COUNTS = ("pulled", "running", "waiting", "delivered", "failed", "skipped", "retried", "abandoned")
TIMES = ("elapsed", "busy", "blocked_on_head", "blocked_on_source", "blocked_on_consumer")


def counts(run):
    stats = run.stats
    return {name: getattr(stats, name) for name in COUNTS if getattr(stats, name)}


def test_stats_are_zero_before_the_first_next(inside):
    run = inside.map(double, range(3))
    assert type(run.stats) is Stats
    assert counts(run) == {}
    assert all(getattr(run.stats, name) == 0 for name in TIMES)
    assert run.stats.total == 3


@pytest.mark.parametrize("window", [1, 5, 12, 30])
def test_stats_count_what_was_pulled_delivered_failed_and_skipped(driver, window):
    run = driver.map(partial(fail_at, frozenset({2, 7})), range(12), window=window, on_error="skip")
    assert len(list(run)) == 10
    assert counts(run) == {"pulled": 12, "delivered": 10, "failed": 2, "skipped": 2}


def test_stats_count_replaced_failures_as_delivered(driver):
    run = driver.map(partial(fail_at, frozenset({2, 7})), range(12), on_error="return")
    assert len(list(run)) == 12
    assert counts(run) == {"pulled": 12, "delivered": 12, "failed": 2}


def test_stats_count_own_answers(driver):
    run = driver.map(
        partial(fail_at, frozenset({2, 7})), range(12), on_error=lambda failure: SKIP if failure.index == 2 else 0
    )
    list(run)
    assert counts(run) == {"pulled": 12, "delivered": 11, "failed": 2, "skipped": 1}


def test_stats_count_the_failure_that_ended_the_run(driver):
    run = driver.map(partial(fail_at, frozenset({2})), range(3))
    with pytest.raises(Exception, match="no 2"):
        list(run)
    assert (run.stats.delivered, run.stats.failed) == (2, 1)


def test_stats_count_further_attempts_and_only_final_failures(inside):
    run = inside.map(partial(fail_at, frozenset({2, 7})), range(12), on_error=retry(attempts=4, backoff=0, then="skip"))
    list(run)
    assert counts(run) == {"pulled": 12, "delivered": 10, "failed": 2, "skipped": 2, "retried": 6}


def test_stats_tell_what_runs_and_what_waits_its_turn(overlapping):
    head, stuck, ended = Gate(), Gate(), Tally()

    def call(i):
        if i == 0:
            head.wait()
        elif i == 9:
            stuck.wait()
        return ended.add(i)

    run = overlapping.map(call, range(10), concurrency=2, window=10)
    consumer = Background(list, run)
    ended.wait(8)
    wait_until(lambda: run.stats.running == 2)
    wait_until(lambda: counts(run) == {"pulled": 10, "running": 2, "waiting": 8})
    head.open()
    wait_until(lambda: counts(run) == {"pulled": 10, "running": 1, "delivered": 9})
    stuck.open()
    assert consumer.result() == list(range(10))
    assert counts(run) == {"pulled": 10, "delivered": 10}


def test_stats_may_be_asked_for_from_any_thread_at_any_time(kinds):
    run = kinds.map(double, range(20_000), concurrency=3)
    stop, odd = Gate(), []

    def look():
        while not stop.is_open:
            stats = run.stats
            if (
                not 0 <= stats.delivered <= stats.pulled <= 20_000
                or stats.running > 3
                or not 0 <= stats.waiting <= 4096
            ):
                odd.append(stats)
            repr(run)
            spend(0.0005)  # a thread that never waits would hold up all the others

    lookers = [Background(look) for _ in range(2)]
    assert len(list(run)) == 20_000
    stop.open()
    for looker in lookers:
        looker.result()
    assert odd == []


def test_stats_may_be_asked_for_from_inside_a_call_a_policy_and_the_source(inside):
    seen = []

    def call(i):
        seen.append(run.stats)
        if i == 2:
            raise ValueError
        return i

    source = Source(range(5), lambda k: seen.append(run.stats))
    run = inside.map(call, source, on_error=lambda failure: seen.append(run.stats))
    list(run)
    assert len(seen) == 12
    assert all(type(stats) is Stats for stats in seen)


def test_stats_are_a_snapshot(driver):
    run = driver.map(double, range(5))
    next(run)
    before = run.stats
    list(run)
    assert before.delivered == 1
    assert run.stats.delivered == 5


def test_stats_stay_after_the_end(driver):
    run = driver.map(double, range(5))
    list(run)
    run.close()
    first = run.stats
    absence(0.02)
    assert counts(run) == {"pulled": 5, "delivered": 5}
    assert run.stats.elapsed == first.elapsed > 0


def test_stats_show_counts_then_times_in_milliseconds():
    values = dict.fromkeys(TIMES, 1 / 3) | {name: number for number, name in enumerate(COUNTS)} | {"total": None}
    stats = Stats(**values)
    assert repr(stats) == (
        "Stats(total=None, pulled=0, running=1, waiting=2, delivered=3, failed=4, skipped=5, retried=6, abandoned=7, "
        "elapsed=0.333, busy=0.333, blocked_on_head=0.333, blocked_on_source=0.333, blocked_on_consumer=0.333)"
    )
    assert stats.elapsed == 1 / 3
    assert stats == Stats(**values)
    assert stats != Stats(**values | {"busy": 0.333})


@pytest.mark.parametrize(
    ("source", "total"),
    [
        (range(7), 7),
        ([1, 2], 2),
        (iter(range(7)), 7),
        ((i for i in range(7)), None),
        (itertools.count(), None),
        ({}, 0),
    ],
    ids=shown,
)
def test_stats_know_the_total_as_far_as_the_source_does(source, total):
    assert ordered_map(double, source).stats.total == total


def test_stats_know_the_total_of_several_sources():
    assert ordered_map(pow, range(7), [1, 2, 3]).stats.total == 3


def test_stats_elapsed_counts_from_the_first_next(kinds):
    run = kinds.map(double, range(5))
    absence(0.1)
    begin = time.perf_counter()
    next(run)
    elapsed = run.stats.elapsed
    assert 0 < elapsed <= time.perf_counter() - begin
    with Watch() as later:
        absence(0.1)
    assert run.stats.elapsed - elapsed >= later.seconds * 0.99
    run.close()


def test_stats_tell_the_time_spent_waiting_for_the_head(apart):
    calls = Watch()

    def call(i):
        with calls:
            spend(SHORT / 2)

    run = apart.map(call, range(2), concurrency=1)
    with Watch() as all_of_it:
        list(run)
    stats = run.stats
    assert calls.seconds * 0.75 < stats.blocked_on_head <= all_of_it.seconds
    assert stats.blocked_on_source < stats.blocked_on_head / 2
    assert stats.blocked_on_consumer < stats.blocked_on_head / 2


def test_stats_tell_the_time_spent_waiting_for_the_source(apart):
    pulls = Watch()

    def on_pull(k):
        with pulls:
            spend(SHORT / 3)

    run = apart.map(double, Source(range(3), on_pull))
    with Watch() as all_of_it:
        list(run)
    stats = run.stats
    assert pulls.seconds * 0.75 < stats.blocked_on_source <= all_of_it.seconds
    assert stats.blocked_on_consumer < stats.blocked_on_source / 2


def test_stats_tell_the_time_spent_waiting_for_the_consumer(apart):
    run, _ = primed(apart, same, window=4)
    wait_until(lambda: run.stats.waiting == run.stats.pulled - run.stats.delivered)  # what is not begun is not running
    with Watch() as away:
        absence(SHORT / 2)
    next(run)
    stats = run.stats
    assert away.seconds * 0.75 < stats.blocked_on_consumer <= stats.elapsed
    run.close()


def test_stats_tell_how_busy_the_workers_were(apart):
    for count, window in ((8, 8), (3, 1)):
        calls = Watch()

        def call(i, calls=calls):
            with calls:
                spend(0.1)

        run = apart.map(call, range(count), concurrency=3, window=window)
        list(run)
        stats = run.stats
        spent = stats.busy * stats.elapsed * 3
        assert calls.seconds * 0.95 < spent < stats.elapsed * min(window, 3) * 1.05


def test_the_repr_of_a_run_shows_its_counts(driver):
    run = driver.map(double, range(7))
    assert re.match("<ordered_a?map of double: ", repr(run))
    next(run)
    next(run)
    assert re.search(r"\b2\b", repr(run))
    assert "delivered" in repr(run)
    list(run)
    assert re.search(r"\b7\b", repr(run))


# progress


def test_progress_calls_a_callable_at_most_ten_times_a_second_and_once_at_the_end(kinds):
    times, seen = [], []

    def show(stats):
        times.append(time.monotonic())
        seen.append(stats)

    began = time.monotonic()
    run = kinds.map(lambda i: spend(0.002), range(300), progress=show)
    for _ in run:
        pass
    assert len(seen) >= 2
    # Each is a tenth of a second later than the one before; looked at from the begin, since a look may come late itself.
    assert all(at - began >= 0.099 * number for number, at in enumerate(times[:-1]))
    assert all(type(stats) is Stats for stats in seen)
    assert [stats.delivered for stats in seen] == sorted(stats.delivered for stats in seen)
    assert seen[-1].delivered == 300
    assert sum(stats.delivered == 300 for stats in seen) <= 2
    run.close()
    assert seen[-1].delivered == 300
    assert len(times) == len(seen)


@pytest.mark.parametrize("how", ["end", "close", "error", "with"])
def test_progress_is_told_once_at_the_end_however_it_comes(inside, how):
    seen = []
    run = inside.map(partial(fail_at, frozenset({5} if how == "error" else ())), range(9), progress=seen.append)
    next(run)
    if how == "end":
        list(run)
    elif how == "close":
        run.close()
    elif how == "error":
        with pytest.raises(Exception, match="no 5"):
            list(run)
    else:
        with run:
            next(run)
    told = len(seen)
    assert 1 <= told <= 2 + 1
    last = {"end": 9, "close": 1, "error": 5, "with": 2}[how]
    assert seen[-1].delivered == last
    run.close()
    next(run, None)
    assert len(seen) == told


def test_progress_is_not_told_of_a_run_that_never_began():
    seen = []
    ordered_map(double, range(9), progress=seen.append).close()
    assert seen == [] or seen[-1].delivered == 0


def test_progress_is_told_once_at_the_end_of_a_run_that_is_dropped(inside):
    seen, ended = [], Tally()

    def show(stats):
        seen.append(stats)
        if stats.delivered == 2:
            ended.add(stats)

    run = inside.map(double, range(9), concurrency=2, window=3, progress=show)
    next(run)
    next(run)
    told = len(seen)
    del run
    gc.collect()
    ended.wait(1)
    absence(0.02)
    assert len(seen) <= told + 1
    assert [stats.delivered for stats in seen] == sorted(stats.delivered for stats in seen)
    assert seen[-1].pulled <= 2 + 3


def test_progress_of_a_flat_map_that_is_dropped_is_told_once_at_the_end():
    ended = Tally()
    run = ordered_flat_map(pair, range(9), progress=lambda stats: ended.add(stats.delivered))
    next(run)
    told = len(ended)
    del run
    ended.wait(told + 1)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_progress_of_an_async_run_that_is_dropped_is_told_by_its_loop():
    threads = []

    async def call(i):
        return i

    async def main():
        told = asyncio.Event()

        def show(stats):
            if stats.delivered == 1:
                threads.append(threading.get_ident())
                told.set()

        run = ordered_amap(call, range(9), concurrency=2, progress=show)
        await anext(run)
        told.clear()
        del run
        gc.collect()
        await asyncio.wait_for(told.wait(), 30)

    asyncio.run(main())
    assert set(threads) == {threading.get_ident()}


@pytest.mark.drivers("the loop makes the call, and runs within `del` here", in_loop=False)
def test_progress_of_a_run_that_is_dropped_within_a_lock_waits_for_nothing(kinds):
    """A finaliser may run anywhere, so within whatever the callable needs too."""
    lock, told = threading.Lock(), Tally()

    def show(stats):
        with lock:
            told.add(stats.delivered)

    run = kinds.map(double, range(9), progress=show)
    next(run)
    before = len(told)
    with lock:
        del run
        gc.collect()
        assert len(told) == before
    told.wait(before + 1)


def test_progress_that_raises_after_a_run_was_dropped_disturbs_nobody(monkeypatch):
    unraised = Tally()
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraised.add(args.exc_type))
    broken = []

    def show(stats):
        if broken:
            raise ValueError("no terminal")

    run = ordered_map(double, range(9), executor="serial", progress=show)
    next(run)
    broken.append(True)
    del run
    assert unraised.wait(1) == [ValueError]


def test_progress_true_closes_the_bar_of_a_run_that_is_dropped(monkeypatch):
    auto = pytest.importorskip("tqdm.auto")
    closed = Tally()

    class Bar(auto.tqdm):
        def close(self):
            if not self.disable:
                closed.add(self.n)
            super().close()

    monkeypatch.setattr(auto, "tqdm", Bar)
    run = ordered_map(double, itertools.count(), progress=True)
    next(run)
    next(run)
    del run
    assert closed.wait(1) == [2]


def test_progress_of_a_run_that_is_dropped_as_the_program_ends():
    code = """
import sys
from inturn import ordered_map
def show(stats):
    print(stats.delivered, flush=True)
for x in ordered_map(abs, range(9), executor=sys.argv[1], progress=show):
    if x == 4:
        break
"""
    for executor in ("thread", "serial"):
        out = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, executor],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert out.stdout.split()[-1] == "5"
        assert out.stderr == ""


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("at", ["first", "last"])
def test_g11_a_stop_iteration_of_a_progress_callable_does_not_end_the_loop_in_silence(inside, error, at):
    def show(stats):
        if stats.delivered == (1 if at == "first" else 40) or (at == "first" and stats.pulled):
            raise error

    with pytest.raises(RuntimeError, match=f"progress raised {error.__name__}") as caught:
        list(inside.map(double, range(40), progress=show))
    assert type(caught.value.__cause__) is error


@pytest.mark.parametrize("method", ["update", "refresh"])
def test_g11_a_stop_iteration_of_a_bar_does_not_end_the_loop_in_silence(inside, method):
    class Bar:
        def update(self, n):
            if method == "update":
                raise StopIteration

        def refresh(self):
            if method == "refresh":
                raise StopIteration

    with pytest.raises(RuntimeError, match="progress raised StopIteration"):
        list(inside.map(double, range(40), progress=Bar()))


def test_progress_that_has_raised_is_not_called_again(inside):
    asked, closed = [], []

    class Bar:
        def update(self, n):
            asked.append(n)
            raise ValueError("no terminal")

        def refresh(self):
            closed.append(len(asked))

    run = inside.map(double, range(9), progress=Bar())
    with pytest.raises(ValueError, match="no terminal") as caught:
        list(run)
    assert caught.value.__context__ is None
    assert (len(asked), closed) == (1, [1])


class CallableBar:
    def update(self, n):
        self.n = n

    def __call__(self, stats):
        raise AssertionError


class Delegating:
    """Hands everything on, as a proxy does."""

    def __init__(self):
        self._bar = CallableBar()

    def __getattr__(self, name):
        return getattr(self._bar, name)


@pytest.mark.parametrize("make", [CallableBar, Delegating, NonCallableMock], ids=lambda make: make.__name__)
def test_progress_updates_what_has_update(make):
    bar = make()
    list(ordered_map(double, range(3), executor="serial", progress=bar))
    if make is NonCallableMock:
        assert sum(call.args[0] for call in bar.update.call_args_list) == 3
    else:
        assert bar.n is not None


def test_progress_calls_what_can_be_called_though_it_has_any_attribute_one_asks_for():
    show = Mock(return_value=None)
    list(ordered_map(double, range(3), executor="serial", progress=show))
    assert show.call_args.args[0].delivered == 3
    assert not show.update.called


@pytest.mark.parametrize(
    "given", [{}, {"update": 1}, set(), collections.Counter(), None, 1, "bar", [], object()], ids=shown
)
def test_progress_that_cannot_be_meant_is_a_type_error_at_the_call(given):
    with pytest.raises(TypeError, match=r"progress must be a bool, a callable .* or an object with update\(n\)"):
        ordered_map(double, range(3), progress=given)


def test_progress_that_is_a_class_is_a_type_error_that_says_what_to_write():
    tqdm = pytest.importorskip("tqdm").tqdm
    with pytest.raises(TypeError, match=r"got tqdm: write progress=True .*progress=tqdm\(...\)"):
        ordered_map(double, range(3), progress=tqdm)
    with pytest.raises(TypeError, match="must not be a class"):
        ordered_map(double, range(3), progress=CallableBar)


def test_progress_shows_on_a_bar_that_is_given():
    tqdm = pytest.importorskip("tqdm").tqdm
    out = io.StringIO()
    with tqdm(total=12, file=out, mininterval=0) as bar:
        run = ordered_map(partial(fail_at, frozenset({3})), range(12), on_error="skip", progress=bar)
        assert len(list(run)) == 11
        assert bar.n == 12
    assert "12/12" in out.getvalue()


def test_progress_shows_on_anything_with_update():
    class Bar:
        count = 0

        def update(self, n):
            self.count += n

    bar = Bar()
    list(ordered_map(double, range(50), progress=bar))
    assert bar.count == 50


def test_progress_true_shows_a_bar(capsys):
    pytest.importorskip("tqdm")
    assert len(list(ordered_map(double, range(12), progress=True))) == 12
    shown = capsys.readouterr().err
    assert "12/12" in shown


def test_progress_true_without_total_shows_a_count(capsys):
    pytest.importorskip("tqdm")
    assert len(list(ordered_map(double, (i for i in range(12)), progress=True))) == 12
    assert "12" in capsys.readouterr().err


def test_progress_true_ends_its_bar_when_the_run_is_closed_or_fails(capsys):
    tqdm = pytest.importorskip("tqdm.auto").tqdm
    with ordered_map(double, itertools.count(), progress=True) as run:
        next(run)
    run = ordered_map(partial(fail_at, frozenset({5})), range(9), progress=True)
    with pytest.raises(Exception, match="no 5"):
        list(run)
    assert capsys.readouterr().err.endswith("\n")
    assert not [bar for bar in getattr(tqdm, "_instances", ()) if bar.n]


def test_progress_true_is_an_import_error_at_the_call_when_tqdm_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tqdm"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"pip install .*inturn\[progress\]"):
        ordered_map(double, range(3), progress=True)
