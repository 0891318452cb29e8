"""`progress`: callables and bars, told at most ten times a second, and once at the end."""

import asyncio
import collections
import gc
import io
import itertools
import subprocess
import sys
import threading
import time
from functools import partial
from unittest.mock import Mock, NonCallableMock

import pytest

from functions_for_workers import double, fail_at, pair
from inturn import Stats, ordered_amap, ordered_flat_map, ordered_map
from waiting import Tally, absence, shown, spend

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
    assert 1 <= told <= 2 + 10 * run.stats.elapsed
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
def test_invalid_progress_is_a_type_error_at_the_call(given):
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
