"""The engine of `ordered_map` under every interleaving Hypothesis can think of, without a thread; its model is `map`."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inturn._engine.chunk import Chunk
from inturn._engine.window import NEVER, Now, Window, weight
from inturn._model.outcome import Err, Kind

ITEMS = 60


class Model(RuleBasedStateMachine):
    """Workers, the supervisor and the consumer take turns at random; what is delivered is what `map` delivers."""

    @initialize(
        concurrency=st.integers(1, 4),
        limit=st.one_of(st.none(), st.integers(1, 12)),
        chunksize=st.one_of(st.none(), st.integers(1, 5)),
        failing=st.sets(st.integers(0, ITEMS)),
        again=st.dictionaries(st.integers(0, ITEMS), st.integers(1, 3)),
        source_fails=st.booleans(),
    )
    def begin(
        self,
        concurrency: int,
        limit: int | None,
        chunksize: int | None,
        failing: set[int],
        again: dict[int, int],
        source_fails: bool,
    ) -> None:
        if limit is not None and chunksize is not None:
            limit = max(limit, chunksize)
        self.window = Window(concurrency, limit, chunksize)
        self.most = limit if limit is not None else max(4096, 2 * concurrency * (chunksize or 1))
        self.chunksize = chunksize
        self.failing = failing
        self.again = again
        self.source_fails = source_fails
        self.running: list[Chunk] = []
        self.pausing: list[Chunk] = []
        self.begun: list[tuple[int, int]] = []
        self.delivered: list[Any] = []
        self.attempts: dict[int, int] = {}

    # ---- the consumer ----

    @rule(count=st.integers(1, 8))
    def pull(self, count: int) -> None:
        window = self.window
        count = min(count, window.room())
        if count < 1:
            return
        items = list(range(window.pulled, min(ITEMS, window.pulled + count)))
        if len(items) == 1:
            window.add(items[0])
        else:
            window.extend(items)
        if len(items) < count:
            final = Err(OSError("the source"), kind=Kind.SOURCE) if self.source_fails else None
            window.finish(final)

    @rule()
    def deliver_one(self) -> None:
        window = self.window
        if window.now() is not Now.DELIVER:
            return
        at_end = window.taken == window.pulled
        outcome = window.peek()
        if type(outcome) is Err:
            self.delivered.append("source" if at_end else ("failed", outcome.item))
        else:
            self.delivered.append(outcome)
        if at_end:
            window.final = None
        else:
            window.drop()

    @rule()
    def deliver_many(self) -> None:
        if self.window.now() is Now.DELIVER:
            results = self.window.take_results()
            if results is not None:
                assert results
                while results:  # what is left of them leaves no room
                    self.delivered.append(results.pop())
                    assert self.window.room() <= self.window.limit - len(results)

    @rule()
    def policy_retries_the_head(self) -> None:
        window = self.window
        if window.now() is Now.DELIVER and window.taken < window.pulled:
            outcome = window.peek()
            if type(outcome) is Err and self.attempts.get(outcome.item, 0) < 6:
                self.pausing.append(window.run_again(outcome.item, outcome.attempt + 1))

    @rule(pace=st.sampled_from([1e-7, 1e-5, 1e-3, 1.0]))
    def time_passes(self, pace: float) -> None:
        self.window.measured(pace, 1)
        self.window.resize(None)

    # ---- the workers ----

    @rule()
    def claim(self) -> None:
        could = self.window.available() > 0
        chunk = self.window.claim()
        assert (chunk is not None) == could
        if chunk is not None:
            self.begun.append((chunk.index, chunk.size))
            if self.chunksize is not None and chunk.attempt == 1:
                behind_a_rest = chunk.index % self.chunksize or chunk.size < self.chunksize
                assert chunk.size == self.chunksize or self.window.exhausted or behind_a_rest
            self.running.append(chunk)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def run_one_item(self, data: st.DataObject) -> None:
        chunk = data.draw(st.sampled_from(self.running))
        for item in chunk.todo:
            self.run_item(chunk, item)
            return
        self.end(chunk)

    def run_item(self, chunk: Chunk, item: int) -> None:
        assert chunk.index + len(chunk.out) == item
        attempt = self.attempts[item] = self.attempts.get(item, 0) + 1
        if attempt <= self.again.get(item, 0):
            fresh = Chunk.again(item, item, chunk.attempt + 1)
            chunk.plain = False
            chunk.out.append(fresh)
            self.pausing.append(fresh)
        elif item in self.failing:
            chunk.plain = False
            chunk.out.append(Err(ValueError(item), item, attempt=chunk.attempt))
        else:
            chunk.out.append(item * 10)

    def end(self, chunk: Chunk) -> None:
        chunk.ended = True
        self.running.remove(chunk)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        self.window.take_back(data.draw(st.sampled_from(self.running)))

    @precondition(lambda self: self.pausing)
    @rule(data=st.data())
    def pause_ends(self, data: st.DataObject) -> None:
        chunk = data.draw(st.sampled_from(self.pausing))
        self.pausing.remove(chunk)
        self.window.again(chunk)

    # ---- what always holds ----

    def expected(self) -> list[Any]:
        values: list[Any] = [("failed", item) if item in self.failing else item * 10 for item in range(ITEMS)]
        return [*values, "source"] if self.source_fails else values

    @invariant()
    def g01_what_is_delivered_is_a_prefix_of_map(self) -> None:
        if hasattr(self, "window"):
            assert self.delivered == self.expected()[: len(self.delivered)]

    @invariant()
    def g03_the_window_is_never_exceeded(self) -> None:
        if hasattr(self, "window"):
            window = self.window
            assert window.pulled - window.taken + len(window.held) <= self.most
            assert 0 <= window.taken <= window.pulled
            assert window.limit <= self.most
            assert window.waiting() <= window.pulled - window.taken

    def teardown(self) -> None:
        """Whatever has happened so far, the run can be brought to its end, and nothing is lost."""
        if not hasattr(self, "window"):
            return
        window = self.window
        steps = 0
        while window.now() is not Now.DONE:
            steps += 1
            assert steps < 20 * ITEMS, "the run comes to no end"
            self.pull(3)
            for chunk in list(self.pausing):
                self.pausing.remove(chunk)
                window.again(chunk)
            self.claim()
            for chunk in list(self.running):
                for item in chunk.todo:
                    self.run_item(chunk, item)
                self.end(chunk)
            self.deliver_one()
        assert self.delivered == self.expected()
        assert window.pulled == window.taken == ITEMS


TestWindow = Model.TestCase
TestWindow.settings = settings(max_examples=200, stateful_step_count=80, deadline=None)


def test_g09_nothing_behind_a_failure_that_ends_the_run_can_be_claimed() -> None:
    window = Window(2, 20, None)
    window.extend(list(range(10)))
    first = window.claim()
    assert first is not None
    window.last_index = 0
    assert window.available() == 0
    assert window.claim() is None
    assert window.last_index == 0 != NEVER
    first.out.append(0)
    first.ended = True
    assert window.now() is Now.DELIVER


def test_what_runs_again_can_be_taken_back_as_well() -> None:
    """It stands in the place of an outcome, not in the list: found by the machine above, as a run without an end."""
    window = Window(1, None, None)
    window.extend(["a"])
    first = window.claim()
    assert first is not None
    fresh = Chunk.again(0, *first.todo, attempt=2)
    first.plain = False
    first.out.append(fresh)
    window.again(fresh)
    assert window.claim() is fresh
    assert window.take_back(fresh)
    assert not window.take_back(first)
    assert window.available() == 1
    assert window.claim() is fresh
    assert list(fresh.todo) == ["a"]


def test_g12_a_chunk_that_still_runs_keeps_no_result_that_was_delivered():
    window = Window(1, 4, 4)
    window.extend([0, 1, 2, 3])
    chunk = window.claim()
    chunk.out += ["zero", "one"]
    for delivered in (1, 2):
        assert window.now() is Now.DELIVER
        window.drop()
        assert chunk.out == [None, None if delivered == 2 else "one"]


def test_g12_clear_drops_everything_and_keeps_the_counts() -> None:
    window = Window(2, 20, None)
    window.extend([object() for _ in range(6)])
    chunk = window.claim()
    assert chunk is not None
    window.take_back(chunk)
    window.clear()
    assert window.claim() is None
    assert window.waiting() == 0
    assert (window.pulled, window.taken) == (6, 0)


@pytest.mark.parametrize("lands", [False, True], ids=["undisturbed", "an exception lands in it"])
def test_g16_clear_takes_back_what_counted_as_taken_and_was_not_delivered(lands: bool, monkeypatch: Any) -> None:
    def landing() -> None:
        raise InterruptedError

    window = Window(1, 8, 4)
    window.extend(list(range(8)))
    for k in range(2):
        chunk = window.claim()
        assert chunk is not None
        chunk.out.extend(range(4 * k, 4 * k + 4))
        chunk.ended = True
        assert window.now() is Now.DELIVER
        if lands and k:
            monkeypatch.setattr("inturn._engine.window.fence", landing)
            with pytest.raises(InterruptedError):
                window.take_results()
        else:
            results = window.take_results()
            assert results is not None
            for _ in range(1 if k else 4):
                results.pop()
    window.clear()
    assert (window.pulled, window.taken, len(window.held)) == (8, 4 if lands else 5, 0)


def test_g12_a_chunk_that_is_claimed_just_as_the_run_ends_is_kept_by_nobody() -> None:
    window = Window(1, 2, None)
    window.extend(["item"])
    window.clear()  # between two steps of `claim`
    chunk = Chunk(0, 1)
    assert window._link(chunk, window._main) == []
    assert window._main.tail is None


class Unmeasured:
    def __sizeof__(self) -> int:
        raise OSError


def test_g04_a_default_window_widens_for_tiny_items_and_narrows_for_slow_or_large_ones() -> None:
    window = Window(2, None, None)
    assert window.limit == 4
    window.measured(1e-6, 1)
    for _ in range(20):
        window.resize(None)
    assert window.limit == 4096
    for _ in range(2):
        window.measured(1.0, 1)
    for _ in range(20):
        window.resize(None)
    assert window.limit == 4
    for large in (bytes(2000), (1, bytes(2000)), ["x", bytes(2000)]):
        window = Window(2, None, None)
        window.measured(1e-6, 1)
        window.resize(large)
        assert window.limit == 4
    window = Window(2, None, None)
    window.extend([bytes(2000)] * 4)
    assert window.claim() is not None
    window.measured(1e-6, 1)
    window.resize(None)
    assert window.limit == 4


def test_g04_a_default_window_grows_until_it_holds_sixteen_chunks_for_each_worker() -> None:
    window = Window(2, None, None)
    window.aim_s, window.tiny = 0.006, 1 / 6
    window.measured(0.0009, 1)
    for _ in range(20):
        window.resize(None)
    assert 16 * 2 * 6 <= window.limit < 2 * 16 * 2 * 7  # it doubles


def test_g04_an_explicit_window_stays_as_it_is() -> None:
    window = Window(2, 10, None)
    window.measured(1e-6, 1)
    window.resize(None)
    assert window.limit == 10


def test_g26_two_items_of_a_millisecond_make_a_chunk_where_the_window_has_two_for_each_worker():
    for limit, size in [(None, 2), (4, 2), (3, 1), (2, 1)]:
        window = Window(2, limit, None)
        window.extend([0, 1])
        window.measured(0.00105, 1)
        chunk = window.claim()
        assert chunk is not None
        assert chunk.size == size


def test_g26_one_odd_item_does_not_change_the_size_of_chunks():
    window = Window(2, 4096, None)
    window.extend([None] * 4096)
    for seconds in (1e-4, 1e-4, 0.2, 1e-4, 1e-4):
        window.measured(seconds, 1)
        chunk = window.claim()
        assert chunk is not None
        assert chunk.size == 20


def test_g26_a_slow_first_item_is_forgotten_and_slow_items_are_noticed_with_the_second():
    window = Window(2, 4096, None)
    window.measured(0.016, 1)
    assert window.pace_s == 0.016
    paces = []
    for _ in range(5):
        window.measured(0.001, 1)
        paces.append(window.pace_s)
    assert paces == [0.008, 0.004, 0.002, 0.001, 0.001]
    window.measured(0.2, 1)
    window.measured(0.2, 1)
    assert window.pace_s == 0.2


def test_g26_items_whose_pair_would_take_up_the_time_slice_travel_alone():
    window = Window(2, None, None)
    window.extend([0, 1, 2, 3])
    window.measured(0.0014, 1)
    chunk = window.claim()
    assert chunk is not None
    assert chunk.size == 1


@pytest.mark.parametrize("limit", [None, 64])
@pytest.mark.parametrize(("item", "result"), [(bytes(1 << 16), None), (None, bytes(1 << 16)), (None, Unmeasured())])
def test_g26_heavy_items_and_results_travel_alone(limit: int | None, item: object, result: object) -> None:
    window = Window(32, limit, None)
    window.extend([item] * 64)
    first = window.claim()  # shows how heavy items are
    assert first is not None
    window.measured(1e-6, 1)
    window.resize(result)
    sizes = [window.claim().size for _ in range(3)]  # type: ignore[union-attr]
    assert (first.size, *sizes) == (1, 1, 1, 1)


def test_g26_a_batch_of_ten_kilobyte_items_has_six() -> None:
    window = Window(2, 64, None)
    window.extend([bytes(10_000)] * 64)
    assert window.claim() is not None
    window.measured(1e-6, 1)
    chunk = window.claim()
    assert chunk is not None
    assert chunk.size == 6


def test_g04_a_default_window_has_so_many_items_ahead_for_each_worker() -> None:
    assert Window(2, None, None, ahead=4).limit == 8
    assert Window(3000, None, None, ahead=4).limit == 6000  # never past max(4096, 2 * concurrency)
    assert Window(2, None, 5, ahead=4).limit == 20
    assert Window(2, 3, None, ahead=4).limit == 3


def test_g16_what_a_signal_handler_raises_while_an_item_is_weighed_is_raised():
    class Weighed:
        def __sizeof__(self):
            handler(14, sys._getframe())  # as CPython calls a handler: with the frame that it interrupts

    class Refuses:
        def __sizeof__(self):
            raise ValueError

    def handler(number, frame):
        raise ValueError

    with pytest.raises(ValueError):
        weight(Weighed())
    assert weight(Refuses()) == 1 << 16
