"""`Report`: successes and failures of a run that delivers failures."""

import asyncio
import traceback
from functools import partial

import pytest

import functions_for_workers as calls
from functions_for_workers import Oops, fail_at
from inturn import Report, ordered_amap, ordered_flat_map, ordered_gather, ordered_map


def iterated(*args, **settings):
    return iter(list(ordered_map(*args, **settings)))


def report(bad, count=10, **settings):
    return Report(ordered_map(partial(fail_at, frozenset(bad)), range(count), on_error="return", **settings))


@pytest.mark.parametrize("settings", [{}, {"indexed": True}], ids=["plain", "indexed"])
def test_a_report_tells_successes_from_failures(settings):
    it = report({2, 5, 6}, **settings)
    assert it.successful == [2 * i for i in range(10) if i not in {2, 5, 6}]
    assert [failure.index for failure in it.failed] == [2, 5, 6]
    assert it.success_rate == pytest.approx(0.7)
    assert it.ok is False


def test_a_report_of_a_run_without_failures_is_ok():
    it = report(())
    assert (it.ok, it.success_rate, it.failed) == (True, 1.0, [])
    it.raise_if_failed()


def test_a_report_of_an_empty_run_is_ok():
    it = report((), 0)
    assert (it.ok, it.success_rate, it.successful, it.failed) == (True, 1.0, [], [])
    it.raise_if_failed()


def test_a_report_of_a_run_where_everything_failed():
    it = report(range(10))
    assert (it.ok, it.success_rate, it.successful) == (False, 0.0, [])


@pytest.mark.parametrize("settings", [{}, {"indexed": True}], ids=["plain", "indexed"])
def test_a_report_takes_a_list(settings):
    results = list(ordered_map(partial(fail_at, frozenset({2})), range(4), on_error="return", **settings))
    it = Report(results)
    assert [failure.index for failure in it.failed] == [2]
    assert len(it.successful) == 3


class AnswersYes(list):
    """A list, such as a column of a table, that has whatever attribute one asks for."""

    def __getattr__(self, name):
        return True


def test_a_report_asks_only_runs_whether_results_are_indexed():
    assert Report(AnswersYes([1, 2])).successful == [1, 2]
    assert Report(AnswersYes(["ab", "cd"])).successful == ["ab", "cd"]


@pytest.mark.parametrize("make", [ordered_map, ordered_flat_map, iterated])
def test_a_report_takes_any_iterable_of_indexed_results(make):
    def call(i):
        return [1 // i]

    assert len(Report(make(call, [1, 0, 1], on_error="return", indexed=True)).successful) == 2
    assert len(Report(make(call, [1, 1], on_error="return", indexed=True)).successful) == 2


def test_a_report_takes_the_list_of_ordered_gather():
    async def call(i):
        return 1 // i

    it = Report(asyncio.run(ordered_gather(call, [1, 0, 1], on_error="return")))
    assert it.successful == [1, 1]
    assert [failure.index for failure in it.failed] == [1]


def test_a_report_is_one_line_for_each_failure():
    def call(item):
        raise ValueError("first line\nsecond line")

    text = str(Report(ordered_map(call, [calls.Table()], on_error="return")))
    assert len(text.splitlines()) == 2
    assert "first line second line" in text


def test_a_report_takes_results_that_are_pairs():
    """They look like those of `indexed=True`, and are not."""
    it = Report(ordered_map(lambda i: (i, -i), range(3), on_error="return"))
    assert it.successful == [(0, 0), (1, -1), (2, -2)]
    it = Report(ordered_map(lambda i: (i, -i), range(3), on_error="return", indexed=True))
    assert it.successful == [(0, 0), (1, -1), (2, -2)]


def test_a_report_raises_all_failures_as_a_group():
    it = report({2, 5})
    with pytest.raises(ExceptionGroup) as caught:
        it.raise_if_failed()
    assert [str(error) for error in caught.value.exceptions] == ["no 2", "no 5"]
    assert all(type(error) is Oops for error in caught.value.exceptions)
    shown = "".join(traceback.format_exception(caught.value))
    assert "item 2: " in shown
    assert "item 5: " in shown
    assert "fail_at" in shown


def test_a_report_reads_well():
    text = str(report({2, 5}))
    assert "8" in text
    assert "10" in text
    assert "80" in text
    assert "no 2" in text
    assert "Oops" in text
    assert len(str(report(range(1000), 1000)).splitlines()) < 50


def test_a_report_reads_well_without_failures():
    text = str(report(()))
    assert "10" in text
    assert "100" in text


def test_results_that_have_an_attribute_of_that_name_are_no_run():
    class Results(list):
        indexed = "by date"

    assert Report(Results([1, 2])).successful == [1, 2]


def test_an_async_run_is_refused_with_what_to_write():
    with pytest.raises(TypeError, match=r"got OrderedAmap, which is async: write Report\(\[result async for result"):
        Report(ordered_amap(divmod, [1], [2], executor="thread"))
