"""The engine of `ordered_flat_map` under every interleaving; the model is ``chain.from_iterable(map(fn, xs))``.

No thread and no clock: a rule of the machine is a step that a worker, the supervisor or the consumer may take at any moment.
"""

from itertools import chain

import hypothesis.strategies as st
import pytest
from hypothesis import assume
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inturn._engine.chunk import Chunk
from inturn._engine.lanes import NO_LANE, Lane, LaneWindow, Phase
from inturn._engine.window import Now
from inturn._model.outcome import Err


class CountingEvent:
    """An event that counts how often it was set."""

    def __init__(self) -> None:
        self.times_set = 0

    def set(self) -> None:
        self.times_set += 1


class Machine(RuleBasedStateMachine):
    """Slots, a source and a consumer around one `LaneWindow`."""

    @initialize(concurrency=st.integers(1, 3), limit=st.none() | st.integers(1, 5), buffer=st.integers(1, 3))
    def begin(self, concurrency: int, limit: int | None, buffer: int) -> None:
        self.window = LaneWindow(concurrency, limit, None, batch=False, buffer=buffer, event=CountingEvent)
        self.limit = 2 * concurrency if limit is None else limit
        self.buffer = buffer
        self.concurrency = concurrency
        self.slots: list[Chunk] = []  # what each slot that is taken runs
        self.given_up: list[Chunk] = []
        self.made: list[list[object]] = []  # by item, what was made, and what took the place of the remainder
        self.out: list[object] = []
        self.over = False
        self.raised = False

    # ---- the source ------------------------------------------------------------------------------

    @precondition(lambda self: self.window.room() > 0 and not self.over)
    @rule()
    def pull(self) -> None:
        self.made.append([])
        self.window.add(len(self.made) - 1)

    @precondition(lambda self: not self.window.exhausted)
    @rule(error=st.booleans())
    def exhaust(self, error: bool) -> None:
        self.window.finish(Err(ValueError("source")) if error else None)

    # ---- the slots ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.slots) < self.concurrency)
    @rule()
    def claim(self) -> None:
        claimable = self.window.available()
        chunk = self.window.claim()
        assert (chunk is not None) == bool(claimable)
        if chunk is not None:
            lane = chunk.out[0]
            assert lane.index == chunk.index
            assert all(lane.index not in (each.index, None) for each in self.slots)
            self.slots.append(chunk)

    def lane(self, data: st.DataObject, *phases: Phase) -> tuple[Chunk, Lane]:
        chunks = [each for each in self.slots if each.out[0].phase in phases]
        assume(chunks)
        chunk = data.draw(st.sampled_from(chunks))
        return chunk, chunk.out[0]

    @rule(data=st.data())
    def produce(self, data: st.DataObject) -> None:
        _, lane = self.lane(data, Phase.OPEN)
        if lane.full():
            lane.producer_waits.append(None)
            return
        lane.producer_waits.clear()
        element = (lane.index, lane.made)
        lane.made += 1
        lane.append(element)
        self.made[lane.index].append(element)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        chunk, lane = self.lane(data, Phase.OPEN)
        lane.finish()
        self.slots.remove(chunk)

    @rule(data=st.data(), undecided=st.booleans())
    def fail(self, data: st.DataObject, undecided: bool) -> None:
        chunk, lane = self.lane(data, Phase.OPEN)
        lane.fail(Err(KeyError(lane.index)), undecided=undecided)
        if lane.made or not undecided:
            assert lane.phase is Phase.ENDED
            self.slots.remove(chunk)
        else:
            assert lane.phase is Phase.UNDECIDED  # its slot is kept

    @rule(data=st.data())
    def retry_early(self, data: st.DataObject) -> None:
        _, lane = self.lane(data, Phase.OPEN)
        assume(not lane.made)
        lane.pause(0.0)

    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        _, lane = self.lane(data, Phase.PAUSING)
        lane.reopen()

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """A call is given up: a slot of its own takes up the item where it was, if it is not at its end."""
        chunk, lane = self.lane(data, Phase.PAUSING, Phase.UNDECIDED)
        self.slots.remove(chunk)
        self.window.again(chunk)
        assert self.window.claim() is chunk
        self.slots.append(chunk)
        assert chunk.out == [lane]

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A slot whose item was decided upon is woken and becomes free."""
        chunk, _ = self.lane(data, Phase.ENDED)
        self.slots.remove(chunk)

    # ---- the consumer ----------------------------------------------------------------------------

    @precondition(lambda self: not self.over and self.window.now() is Now.DELIVER)
    @rule(policy=st.sampled_from(["raise", "skip", "value", "retry"]))
    def deliver(self, policy: str) -> None:
        self._deliver(policy)

    def _deliver(self, policy: str) -> None:
        window = self.window
        lane = window.peek()
        if isinstance(lane, Err):
            assert window.taken == window.pulled
            assert window.exhausted
            self.over = True
            return
        assert isinstance(lane, Lane)
        assert lane.index == window.taken
        over = lane.phase in (Phase.ENDED, Phase.UNDECIDED)
        try:
            element = lane.pop()
        except IndexError:
            assert over
        else:
            self.out.append(element)
            self._relieve(lane)
            return
        if lane.error is None:
            assert lane.phase is Phase.ENDED
            window.drop()
        elif policy == "retry" and lane.phase is Phase.UNDECIDED:
            assert not lane.made
            lane.pause(0.0)
        elif policy in ("retry", "raise"):
            self.over = self.raised = True
        else:
            value = ("instead of", lane.index)
            if policy == "value":
                self.made[lane.index].append(value)
                self.out.append(value)
            window.drop()
            lane.leave()
            assert lane.phase is Phase.ENDED

    def _relieve(self, lane: Lane) -> None:
        waiting, before = bool(lane.producer_waits), lane.event.times_set  # type: ignore[attr-defined]
        lane.relieve()
        woken = lane.event.times_set - before  # type: ignore[attr-defined]
        assert woken <= waiting
        if waiting and not lane.buffer:
            assert woken, "an empty lane whose producer sleeps"

    # ---- always ----------------------------------------------------------------------------------

    @invariant()
    def delivered_as_by_the_model(self) -> None:
        if not hasattr(self, "window"):
            return
        model = list(chain.from_iterable(self.made))
        assert self.out == model[: len(self.out)]
        head = self.window.taken
        assert len(self.out) >= sum(map(len, self.made[:head]))
        assert len(self.out) <= sum(map(len, self.made[: head + 1]))

    @invariant()
    def bounded(self) -> None:
        if not hasattr(self, "window"):
            return
        assert self.window.pulled - self.window.taken <= self.limit
        assert len(self.slots) <= self.concurrency
        assert all(len(lane.buffer) <= self.buffer for lane in self.window._lanes())
        assert 0 <= self.window.waiting() <= self.limit

    @invariant()
    def the_head_can_always_make_progress(self) -> None:
        """Never deadlocks: whatever the slots do, somebody can take the step that the head waits for."""
        if not hasattr(self, "window") or self.over:
            return
        window = self.window
        now = window.now()
        if now is not Now.WAIT:
            return
        if window.taken == window.pulled:
            raise AssertionError("waits for nothing")
        holding = [each for each in self.slots if each.index == window.taken]
        if holding:
            (lane,) = holding[0].out
            assert lane.phase is Phase.PAUSING or (lane.phase is Phase.OPEN and not lane.full())
        else:
            assert len(self.slots) < self.concurrency or any(each.out[0].phase is Phase.ENDED for each in self.slots), (
                "no slot for the head"
            )
            assert window.available()

    @precondition(lambda self: not self.over)
    @rule()
    def finish_everything(self) -> None:
        """From wherever it stands, the run can be brought to its end."""
        if not self.window.exhausted:
            self.window.finish()
        for _ in range(10_000):
            now = self.window.now()
            if self.over or now is Now.DONE:
                break
            if now is Now.DELIVER:
                self._deliver("skip")
                continue
            self.slots = [each for each in self.slots if each.out[0].phase is not Phase.ENDED]
            while len(self.slots) < self.concurrency and (chunk := self.window.claim()) is not None:
                self.slots.append(chunk)
            for chunk in list(self.slots):
                (lane,) = chunk.out
                if lane.phase is Phase.PAUSING:
                    lane.reopen()
                elif lane.phase is Phase.OPEN:
                    lane.finish()
        else:
            raise AssertionError("it does not end")
        if not self.over:
            assert self.out == list(chain.from_iterable(self.made))
        self.over = True

    def teardown(self) -> None:
        if hasattr(self, "window"):
            lanes = self.window._lanes()
            self.window.clear()
            assert not any(lane.buffer for lane in lanes)
            assert self.window._lanes() == []


TestMachine = Machine.TestCase


def test_a_lane_that_has_made_an_element_never_is_undecided() -> None:
    lane = Lane(0, 4, CountingEvent())
    lane.made += 1
    lane.append("a")
    lane.fail(Err(ValueError()), undecided=True)
    assert lane.phase is Phase.ENDED
    with pytest.raises(AssertionError):
        lane.pause(0.0)


def test_no_element_ever_comes_from_no_lane() -> None:
    assert not NO_LANE.ready()
    with pytest.raises(IndexError):
        NO_LANE.pop()


@pytest.mark.parametrize(("size", "most"), [(1, 0), (2, 1), (8, 7), (64, 56), (1024, 1016)])
def test_a_producer_that_waits_is_woken_for_a_gulp(size: int, most: int) -> None:
    """Small buffers: as soon as there is room; large ones: when there is room for eight."""
    event = CountingEvent()
    lane = Lane(0, size, event)
    lane.buffer.extend(range(size))
    lane.producer_waits.append(None)
    while not event.times_set:
        lane.pop()
        lane.relieve()
    assert len(lane.buffer) == most
