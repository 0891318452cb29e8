"""What pickles, and what does not."""

import copy
import pickle
from functools import partial

import pytest

from functions_for_workers import Oops, fail_at
from inturn import SKIP, Failure, Processes, Report, Retry, Stats, Threads, WorkerDied, ordered_map, retry, sentinel
from waiting import shown

PROTOCOLS = pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))


def failing(**settings):
    return ordered_map(partial(fail_at, frozenset({1})), range(3), **settings)


@PROTOCOLS
def test_a_failure_pickles(protocol):
    failure = list(failing(on_error=retry(attempts=2, backoff=0, then="return")))[1]
    again = pickle.loads(pickle.dumps(failure, protocol))
    assert type(again) is type(failure)
    assert (again.index, again.item, again.attempt, again.elapsed, again.delivered) == (1, 1, 2, failure.elapsed, 0)
    assert type(again.error) is Oops
    assert again.error.args == ("no 1",)
    assert again.error.__notes__ == failure.error.__notes__


@PROTOCOLS
def test_a_report_pickles(protocol):
    report = Report(failing(on_error="return"))
    again = pickle.loads(pickle.dumps(report, protocol))
    assert (again.successful, again.ok, again.success_rate) == ([0, 4], False, report.success_rate)
    assert str(again) == str(report)


@PROTOCOLS
def test_stats_pickle(protocol):
    run = failing(on_error="skip")
    list(run)
    stats = run.stats
    again = pickle.loads(pickle.dumps(stats, protocol))
    assert type(again) is Stats
    assert again == stats
    assert again.delivered == 2


@PROTOCOLS
def test_skip_pickles_as_itself(protocol):
    assert pickle.loads(pickle.dumps(SKIP, protocol)) is SKIP
    assert copy.copy(SKIP) is SKIP
    assert copy.deepcopy([SKIP])[0] is SKIP


@PROTOCOLS
def test_retry_pickles(protocol):
    assert pickle.loads(pickle.dumps(Retry(after=2), protocol)).after == 2


@PROTOCOLS
@pytest.mark.parametrize("begun", [False, True])
def test_a_run_does_not_pickle(protocol, begun):
    run = failing()
    if begun:
        next(run)
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(run, protocol)
    run.close()


def test_a_run_cannot_be_copied():
    run = failing()
    with pytest.raises(TypeError):
        copy.copy(run)
    with pytest.raises(TypeError):
        copy.deepcopy(run)
    run.close()


@pytest.mark.parametrize("thing", [SKIP, Retry(after=1.5), retry(), sentinel(3)], ids=shown)
def test_what_policies_are_made_of_can_be_shown(thing):
    assert repr(thing)


@PROTOCOLS
def test_pickles_refer_to_public_names_only(protocol):
    """So that one of today can be read when the files of the library have moved."""
    run = ordered_map(abs, [1])
    list(run)
    things = [
        Failure(1, "item", ValueError("no"), attempt=2),
        Report([1, Failure(1, 2, ValueError("no"))]),
        run.stats,
        SKIP,
        Retry(after=1),
        WorkerDied(3, -9, 9),
        Threads(name="shout"),
        Processes(max_tasks_per_worker=3),
        retry(4, on=(OSError, KeyError), then="skip"),
        sentinel(None),
    ]
    for thing in things:
        packed = pickle.dumps(thing, protocol)
        assert b"inturn._" not in packed, thing
        assert repr(pickle.loads(packed)) == repr(thing)
    assert pickle.loads(pickle.dumps(SKIP, protocol)) is SKIP
    assert copy.deepcopy(SKIP) is SKIP
