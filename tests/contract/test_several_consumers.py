"""Guarantee 23: several runs, several consumers, and forks."""

import itertools
import sys
from functools import partial

import pytest

from functions_for_workers import double, fail_at, same
from inturn import ordered_flat_map, ordered_map
from inturn._base.atomic import pop_or
from inturn._core import flat_consumer
from programs import Script
from results import until_error
from waiting import Background, Gate, absence, spend, wait_until

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")


# 23: several runs, several consumers, forks


def test_g23_several_runs_at_once_from_several_threads_are_independent(inside):
    executor = inside.executor(3)

    def consume(k):
        run = inside.map(lambda i: (k, i), range(300), concurrency=3, window=20, executor=executor)
        return list(run) == [(k, i) for i in range(300)]

    assert all(thread.result() for thread in [Background(consume, k) for k in range(8)])


def test_g23_several_runs_may_be_consumed_in_turns(inside):
    executor = inside.executor(2)
    runs = [inside.map(same, range(k, k + 50), concurrency=2, executor=executor) for k in range(5)]
    assert list(zip(*runs, strict=True)) == [(i, i + 1, i + 2, i + 3, i + 4) for i in range(50)]


@pytest.mark.drivers("no other task has its turn while a call blocks the loop", blocks=False)
def test_g23_a_second_consumer_gets_a_clear_error(inside):
    head, reached = Gate(), Gate()

    def call(i):
        reached.open()
        head.wait()
        return i

    run = inside.map(call, range(5))
    consumer = Background(list, run)
    reached.wait()
    absence(0.02)
    with pytest.raises((RuntimeError, ValueError)) as caught:
        next(run)
    assert len(str(caught.value)) > 15
    assert not isinstance(caught.value.__context__, StopIteration)
    head.open()
    assert consumer.result() == [0, 1, 2, 3, 4]


def test_g23_a_run_may_move_from_one_thread_to_another(kinds):
    run = kinds.map(double, range(30), window=5)
    results = []
    for _ in range(30):
        results.append(Background(next, run).result())
    assert results == list(range(0, 60, 2))


@pytest.mark.parametrize("settings", [{"window": 10}, {"window": 100, "chunksize": 10}], ids=["singly", "chunks"])
def test_g23_many_consumers_at_once_get_errors_and_never_a_wrong_order(overlapping, settings):
    run = overlapping.map(same, range(500), **settings)

    def consume():
        results, errors = [], 0
        while True:
            try:
                results.append(next(run))
            except StopIteration:
                return results, errors
            except (RuntimeError, ValueError):
                errors += 1
                spend(0.0002)  # a thread that never waits would hold up all the others

    shares = [thread.result()[0] for thread in [Background(consume) for _ in range(4)]]
    assert all(share == sorted(share) for share in shares)
    assert sorted(itertools.chain(*shares)) == list(range(500))


def test_g23_a_next_that_is_held_up_before_it_begins_skips_nothing(monkeypatch):
    """Another thread is the consumer, takes a chunk and leaves, after this one has found nothing that is held."""
    run = ordered_map(same, range(8), chunksize=4, window=8, concurrency=1)
    begin, others = type(run)._next, []

    def held_up(self):
        monkeypatch.undo()
        others.append(Background(next, run).result())
        wait_until(lambda: run.stats.waiting == 7)
        return begin(self)

    monkeypatch.setattr(type(run), "_next", held_up)
    assert (next(run), others) == (1, [0])
    assert list(run) == list(range(2, 8))


@pytest.mark.parametrize("left", ["something", "nothing"])
def test_g23_an_element_that_another_thread_takes_from_under_the_consumer_ends_nothing(monkeypatch, left):
    """As by a `next` that was held up since it saw that the lane has elements."""
    run = ordered_flat_map(range, [1 if left == "nothing" else 3, 2], window=2, concurrency=1)
    others = []

    def after_another(otherwise, pop):
        monkeypatch.undo()
        others.append(pop())
        return pop_or(otherwise, pop)

    monkeypatch.setattr(flat_consumer, "pop_or", after_another)
    results = list(run)
    assert others == [0]
    assert results == ([0, 1] if left == "nothing" else [1, 2, 0, 1])


@pytest.mark.parametrize("where", ["peek", "deliver"])
@pytest.mark.parametrize("fails", [False, True])
def test_g23_the_last_element_so_far_that_another_thread_takes_is_not_the_end_of_the_item(monkeypatch, where, fails):
    """It is taken after the consumer has seen that there is one, and before it takes it, or finds its lane."""
    more, taken = Gate(), Gate()

    def source():
        yield 0
        if fails:
            raise OSError

    def produce(i):
        yield from (0, 1)
        more.wait()
        yield 2
        taken.wait()
        yield 3

    run = ordered_flat_map(produce, source(), window=2, concurrency=1)
    results = [next(run), next(run)]
    lane, others = run._run.window.peek(), []
    owner = run._run.window if where == "peek" else run._run
    plain = getattr(owner, where)

    def after_another():
        found = plain() if where == "peek" else None
        if lane.buffer and not others:
            others.append(lane.pop())
            taken.open()
        return found if where == "peek" else plain()

    monkeypatch.setattr(owner, where, after_another)
    more.open()
    rest, error = until_error(run)
    assert others == [2]
    assert results + rest == [0, 1, 3]
    assert type(error) is (OSError if fails else type(None))


def test_g23_next_from_inside_the_source_is_an_error(pulling):
    def source():
        yield 0
        yield next(run)

    run = pulling.map(double, source(), window=1)
    results, error = until_error(run)
    assert results == [0]
    assert isinstance(error, RuntimeError | ValueError)


def test_g23_next_from_inside_a_policy_is_an_error(inside):
    run = inside.map(partial(fail_at, frozenset({1})), range(5), on_error=lambda failure: next(run))
    results, error = until_error(run)
    assert results == [0]
    assert isinstance(error, RuntimeError | ValueError)


def test_g23_next_from_inside_fn_in_serial_is_an_error():
    run = ordered_map(lambda i: next(run), range(5), executor="serial")
    results, error = until_error(run)
    assert results == []
    assert isinstance(error, RuntimeError | ValueError)


FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # that this process has threads is the point
signal.alarm(20)

def call(i):
    if i == 0 and not "{executor}".endswith("'serial'"):
        full.wait(HANG_S)
    return 2 * i

full = threading.Event()
def source():
    for i in range(50):
        if i == 9:
            full.set()
        yield i
run = ordered_map(call, source(), window=10, concurrency=2, {executor})
results = [next(run)]
child = os.fork()
if not child:
    signal.alarm(5)
    try:
        {body}
    except BaseException as error:
        say("child", type(error).__name__, error)
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
say("status", status)
results += run
say("right", results == list(range(0, 100, 2)))
"""
FORKED = {
    "thread": "executor='thread'",
    "timeout": "executor='thread', timeout=60",
    "live": "executor='thread', live=True",
    "borrowed": "executor=ThreadPoolExecutor(2)",
    "callable": "executor=ThreadPoolExecutor",
    "serial": "executor='serial'",
}
WHAT_A_CHILD_MAY_DO = {
    "next": """
        for _ in range(2):
            try:
                next(run)
            except RuntimeError as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError("next worked")
""",
    "drop": "del run; gc.collect()",
    "next-and-drop": """
        try:
            next(run)
        except RuntimeError:
            pass
        del run
        gc.collect()
""",
    "close": "run.close()",
    "nothing": "pass",
    "own-run": "assert list(ordered_map(int, range(9))) == list(range(9))",
}


@posix
@pytest.mark.parametrize("executor", FORKED.values(), ids=FORKED)
@pytest.mark.parametrize("body", WHAT_A_CHILD_MAY_DO.values(), ids=WHAT_A_CHILD_MAY_DO)
def test_g23_in_a_forked_child_next_raises_and_nothing_disturbs_the_parent(executor, body):
    with Script(FORK.format(executor=executor, body=body.strip())) as process:
        process.end()
        assert process.err == ""
        assert process.lines == ["status 0", "right True"]


@posix
@pytest.mark.parametrize("executor", FORKED.values(), ids=FORKED)
def test_g23_a_forked_child_may_end_in_the_ordinary_way(executor):
    """With its exit hooks, and the run still there."""
    with Script(
        f"""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # that this process has threads is the point
signal.alarm(20)
run = ordered_map(lambda i: 2 * i, range(50), window=10, concurrency=2, {executor})
results = [next(run)]
child = os.fork()
if not child:
    signal.alarm(5)
    sys.exit(5)
_, status = os.waitpid(child, 0)
say("status", os.waitstatus_to_exitcode(status))
results += run
say("right", results == list(range(0, 100, 2)))
"""
    ) as process:
        process.end()
        assert process.err == ""
        assert process.lines == ["status 5", "right True"]
