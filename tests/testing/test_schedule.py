"""`inturn.testing.Schedule`: any completion order, any fault, in virtual time, without threads."""

import asyncio
import gc
import itertools
import subprocess
import sys
import threading
import time
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

import inturn.testing
from functions_for_workers import Oops
from inturn import Failure, Retry, WorkerDied, ordered_aflat_map, ordered_map, retry
from inturn.testing import Dies, Fails, Hangs, Schedule, faults, schedules
from waiting import HOUR


def what(schedule, kind):
    """The items to which this happened, in turn."""
    return [event.index for event in schedule.events if event.what == kind]


# ---- orders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_calls_end_and_take_effect_in_the_order_of_the_list(order):
    schedule, effects = Schedule(order), []
    assert list(ordered_map(lambda i: effects.append(i) or i, range(4), executor=schedule)) == [0, 1, 2, 3]
    assert effects == what(schedule, "ended") == list(order)
    assert what(schedule, "pulled") == what(schedule, "started") == what(schedule, "delivered") == [0, 1, 2, 3]


def test_without_an_order_calls_end_in_plain_order():
    schedule = Schedule()
    assert list(ordered_map(abs, range(30), executor=schedule)) == list(range(30))
    assert what(schedule, "ended") == list(range(30))


def test_the_items_that_a_list_does_not_name_come_last_and_only_what_is_under_way_can_end():
    schedule = Schedule([9, 5, 1])
    assert list(ordered_map(abs, range(7), executor=schedule, concurrency=3)) == list(range(7))
    assert what(schedule, "ended") == [1, 0, 2, 5, 3, 4, 6]


def test_a_function_is_given_what_is_under_way_and_names_the_next():
    asked = []

    def latest(indices):
        asked.append(indices)
        return indices[-1]

    schedule = Schedule(latest)
    assert list(ordered_map(abs, range(4), executor=schedule, concurrency=2, window=3)) == [0, 1, 2, 3]
    assert asked == [[0, 1], [0, 2], [0], [3]]
    assert what(schedule, "ended") == [1, 2, 0, 3]


def test_a_function_that_names_something_else_ends_the_run_with_an_error():
    run = ordered_map(abs, range(4), executor=Schedule(lambda indices: 7), concurrency=2)
    with pytest.raises(ValueError, match=r"order chose 7, which is not among the items under way: \[0, 1\]"):
        next(run)
    assert list(run) == []


@given(schedules(items=12, faults=faults(12, errors=[Oops, OSError], attempts=2, dies=True, hangs=True)))
def test_the_repr_is_the_code_that_makes_it_again_and_the_events_are_the_same(schedule):
    def events(each):
        run = ordered_map(
            abs, range(12), executor=each, concurrency=4, timeout=5, on_error=retry(backoff=1, jitter=False)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "sleep", None)
            assert list(run) == list(range(12))
        return each.events

    again = eval(repr(schedule))
    assert repr(again) == repr(schedule)
    assert events(again) == events(schedule)


@given(st.integers(0, 10**6))
def test_a_seed_chooses_the_same_way_each_time(seed):
    def ended():
        schedule = Schedule(seed=seed)
        assert list(ordered_map(abs, range(20), executor=schedule)) == list(range(20))
        return what(schedule, "ended")

    assert ended() == ended()


def test_two_seeds_choose_differently():
    ended = set()
    for seed in range(20):
        schedule = Schedule(seed=seed)
        assert list(ordered_map(abs, range(8), executor=schedule)) == list(range(8))
        ended.add(tuple(what(schedule, "ended")))
    assert len(ended) > 10


def test_runs_that_share_a_schedule_each_follow_it_from_the_start():
    schedule = Schedule([1, 0])
    inner = ordered_map(abs, range(2), executor=schedule)
    assert list(ordered_map(abs, inner, executor=schedule)) == [0, 1]
    for run in (0, 1):
        assert [event.index for event in schedule.events if event.what == "ended" and event.run == run] == [1, 0]


def test_runs_nest():
    schedule = Schedule([2, 1, 0])

    def call(i):
        return list(ordered_map(lambda j: (i, j), range(3), executor=schedule))

    assert list(ordered_map(call, range(3), executor=schedule)) == [[(i, j) for j in range(3)] for i in range(3)]


# ---- faults --------------------------------------------------------------------------------------


def test_an_item_fails_at_the_attempt_that_is_named():
    schedule = Schedule(faults=[Fails(1, Oops), Fails(1, OSError("again"), attempt=2), Fails(2, attempt=None)])
    calls = []
    run = ordered_map(
        lambda i: calls.append(i) or i, range(4), executor=schedule, on_error=retry(backoff=0, then="return")
    )
    results = list(run)
    assert [type(each) for each in results] == [int, int, Failure, int]
    assert (results[2].attempt, type(results[2].error)) == (3, RuntimeError)
    assert sorted(calls) == [0, 1, 3]
    assert what(schedule, "failed").count(1) == 2


def test_a_worker_dies():
    schedule = Schedule(faults=[Dies(1)])
    with pytest.raises(WorkerDied, match="item 1") as info:
        list(ordered_map(abs, range(4), executor=schedule))
    assert info.value.index == 1
    assert what(schedule, "delivered") == [0]


def test_g17_a_call_that_hangs_meets_its_timeout_in_virtual_time():
    schedule = Schedule(faults=[Hangs(1)])
    run = ordered_map(abs, range(4), executor=schedule, timeout=HOUR, on_error="return")
    results = list(run)
    assert [type(each) for each in results] == [int, Failure, int, int]
    assert str(results[1].error) == f"the call took longer than timeout={HOUR:g} s"
    assert schedule.now == run.stats.elapsed == results[1].elapsed == HOUR
    assert run.stats.abandoned == 1


def test_g09_pauses_before_a_retry_overlap_in_virtual_time():
    schedule = Schedule(faults=[Fails(index, Oops) for index in range(4)])
    run = ordered_map(abs, range(6), executor=schedule, on_error=retry(backoff=HOUR, jitter=False, max_backoff=HOUR))
    assert list(run) == list(range(6))
    assert schedule.now == HOUR
    assert run.stats.retried == 4


def test_g18_a_deadline_is_met_in_virtual_time():
    schedule = Schedule(faults=[Hangs(2)])
    run = ordered_map(abs, range(4), executor=schedule, deadline=HOUR)
    assert [next(run), next(run)] == [0, 1]
    with pytest.raises(TimeoutError, match="deadline"):
        next(run)
    assert schedule.now == HOUR


def test_a_run_that_would_wait_for_ever_ends_with_an_error_that_says_so():
    schedule = Schedule(faults=[Hangs(1)])
    run = ordered_map(abs, range(3), executor=schedule)
    assert next(run) == 0
    with pytest.raises(RuntimeError, match=r"next would wait for ever: item 1 hangs, and there is no time limit\n"):
        next(run)


def test_closing_a_run_whose_call_hangs_ends_with_an_error_that_says_so():
    run = ordered_map(abs, range(3), executor=Schedule(faults=[Hangs(1)]))
    assert next(run) == 0
    with pytest.raises(RuntimeError, match="close would wait for ever: item 1 hangs"):
        run.close()
    run = ordered_map(abs, range(3), executor=Schedule(faults=[Hangs(1)]))
    with pytest.raises(Oops), run:  # the error of the test's own is the one that is to be seen
        raise Oops(next(run))


def test_close_waits_for_a_time_limit_in_virtual_time():
    schedule = Schedule(faults=[Hangs(1)])
    with ordered_map(abs, range(3), executor=schedule, timeout=HOUR) as run:
        assert next(run) == 0
    assert schedule.now == HOUR


# ---- as with other executors ---------------------------------------------------------------------


@given(schedules(8, faults=faults(8, hangs=True, dies=True)), st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_g03_the_bounds_hold_at_every_event(schedule, concurrency, window, live):
    run = ordered_map(
        abs,
        iter(range(10)),
        executor=schedule,
        concurrency=concurrency,
        window=window,
        timeout=1,
        on_error="return",
        live=live,
    )
    assert len(list(run)) == 10
    held = under_way = 0
    for event in schedule.events:
        held += (event.what == "pulled") - (event.what == "delivered")
        under_way += (event.what == "started") - (event.what in {"ended", "failed", "given up"})
        assert held <= window
        assert under_way <= concurrency


def test_g05_a_slow_head_holds_up_delivery_and_not_work():
    schedule = Schedule([1, 2, 3, 4, 5])
    run = ordered_map(abs, itertools.count(), executor=schedule, concurrency=2, window=6)
    assert next(run) == 0
    assert what(schedule, "ended")[:6] == [1, 2, 3, 4, 5, 0]
    run.close()


def test_g13_what_is_under_way_at_the_end_is_made_and_what_has_not_started_never_starts():
    calls, schedule = [], Schedule()
    with ordered_map(
        lambda i: calls.append(i) or i, itertools.count(), executor=schedule, concurrency=3, window=9
    ) as run:
        assert next(run) == 0
    assert calls == [0, 1, 2, 3]
    assert run.stats.pulled == 9
    assert what(schedule, "closed") == [1, 2, 3]


def test_g26_an_explicit_chunk_is_one_after_the_other():
    schedule = Schedule([4, 0])
    assert list(ordered_map(abs, range(7), executor=schedule, concurrency=2, chunksize=2)) == list(range(7))
    assert what(schedule, "started") == [0, 2, 1, 4, 5, 3, 6]


def test_g06_a_live_source_is_pulled_without_a_thread():
    threads = set()

    def source():
        for i in range(6):
            threads.add(threading.get_ident())
            yield i

    before = threading.active_count()
    run = ordered_map(abs, source(), executor=Schedule([3]), live=True, window=2)
    assert next(run) == 0
    assert threading.active_count() == before
    assert list(run) == [1, 2, 3, 4, 5]
    assert threads == {threading.get_ident()}


def test_g06_an_error_of_a_live_source_comes_in_its_turn_and_an_interrupt_at_once():
    def source(error):
        yield from range(3)
        raise error

    for error in (Oops(), KeyboardInterrupt()):
        run = ordered_map(abs, source(error), executor=Schedule(), live=True)
        results = []
        with pytest.raises(type(error)):
            results.extend(run)
        assert next(run, None) is None


def test_progress_is_told():
    told = []
    run = ordered_map(abs, range(5), executor=Schedule([4, 3]), progress=told.append)
    assert list(run) == list(range(5))
    assert told[-1].delivered == 5


def test_g21_each_call_has_a_context_of_its_own():
    import contextvars

    name = contextvars.ContextVar("name", default="none")

    def call(i):
        before = name.get()
        name.set(f"item {i}")
        return before

    name.set("consumer")
    assert list(ordered_map(call, range(4), executor=Schedule([2, 1]))) == ["consumer"] * 4


def test_a_policy_that_retries_in_turn():
    schedule = Schedule([2], faults=[Fails(1, Oops, attempt=None)])
    policy = lambda failure: Retry(after=10) if failure.attempt < 3 else "gone"
    assert list(ordered_map(abs, range(3), executor=schedule, on_error=policy)) == [0, "gone", 2]
    assert schedule.now == 20


# ---- failing tests -------------------------------------------------------------------------------


def test_a_property_that_fails_shows_the_schedule_and_its_timeline():
    @given(schedules())
    def broken(schedule):
        effects = []
        list(ordered_map(effects.append, range(6), executor=schedule))
        assert effects == sorted(effects)

    with pytest.raises(AssertionError) as info:
        broken()
    shown = "\n".join(info.value.__notes__)
    assert "schedule=Schedule(order=[1])" in shown
    assert "item 0 p.....s------ed\n  item 1  p.....s----e~~d\n" in shown


def test_a_property_that_fails_whatever_the_schedule_shrinks_to_the_plain_order_and_no_fault():
    @given(schedules(faults=faults(dies=True, hangs=True)))
    def broken(schedule):
        raise Oops

    with pytest.raises(Oops) as info:
        broken()
    assert "schedule=Schedule()" in "\n".join(info.value.__notes__)


def test_the_timeline_of_a_long_run_shows_its_end():
    schedule = Schedule()
    assert list(ordered_map(abs, range(100), executor=schedule)) == list(range(100))
    lines = schedule.timeline().splitlines()
    assert lines[1] == "  (the last 100 of 400 events)"
    assert "item 99" in lines[-2]
    assert max(map(len, lines)) < 120


def test_a_timeline_says_when_time_passes():
    schedule = Schedule(faults=[Hangs(0)])
    assert list(ordered_map(abs, range(2), executor=schedule, timeout=5, on_error="skip")) == [1]
    assert "the time is 5 s before event 6" in schedule.timeline()


# ---- arguments and imports -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Schedule([0], seed=1), ValueError, "give either order or seed"),
        (lambda: Schedule([-1]), ValueError, "at least 0, got -1"),
        (lambda: Schedule(["x"]), TypeError, "each index in order must be an int"),
        (lambda: Schedule(seed=1.5), TypeError, "seed must be an int"),
        (lambda: Schedule(faults=[OSError]), TypeError, "faults must be Fails, Dies or Hangs"),
        (lambda: Fails(1, "broken"), TypeError, "error must be an exception"),
        (lambda: Fails(-1), ValueError, "index must be at least 0"),
        (lambda: Dies(1, attempt=0), ValueError, "attempt must be at least 1"),
        (lambda: faults(errors=()), ValueError, "at least one error"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_the_kit_has_no_name_by_accident():
    for name in inturn.testing.__all__:
        assert getattr(inturn.testing, name).__module__ == "inturn.testing"
    assert set(inturn.testing.__all__) <= set(dir(inturn.testing))
    with pytest.raises(AttributeError, match="nothing"):
        inturn.testing.nothing


def _python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_kit_needs_hypothesis_for_the_strategies_only():
    assert "inturn.testing" not in _python("import sys, inturn; print(*sys.modules)").split()
    assert not {"hypothesis", "asyncio"} & set(_python("import sys, inturn.testing; print(*sys.modules)").split())
    code = """
import sys
sys.modules["hypothesis"] = None
from inturn.testing import Schedule
try:
    from inturn.testing import schedules
except ImportError as error:
    print(error)
"""
    assert "pip install 'inturn[testing]'" in _python(code)


def test_g12_a_delivered_element_of_an_async_flat_map_is_not_kept():
    class Element:
        pass

    async def elements(_):
        for _ in range(3):
            await asyncio.sleep(0)
            yield Element()

    async def main():
        delivered = []
        async with ordered_aflat_map(elements, range(2), concurrency=1, buffer=1) as run:
            async for element in run:
                delivered.append(weakref.ref(element))
                del element
                gc.collect()
                assert not any(each() for each in delivered)

    Schedule().run(main())
