"""The store alone: who gets a worker, in any order of events, without a thread."""

import random
from time import perf_counter as clock
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inturn._core.threads import kept_stores
from inturn._model.workers import Block
from inturn._pools.store import TURN_S, Share, Store
from waiting import Background, absence

LONG_AGO = -1e9


@pytest.fixture(autouse=True)
def not_at_exit():
    """These stores are not those whose workers the exit of the interpreter ends."""
    before = set(kept_stores)
    yield
    kept_stores.intersection_update(before)


class Workers(Store):
    """A store of numbers."""

    def _end_idle(self):
        return True


class Run:
    """A run as its store sees it: a supervisor that was woken or not, and slots that are busy or idle."""

    def __init__(self, store, concurrency, wants):
        self.store = store
        self.wants = wants  # chunks that are still to be run
        supervisor = SimpleNamespace(wake=self._wake)
        self.crashes = []
        crash = self.crashes.append
        self.job = SimpleNamespace(stopped=False, concurrency=concurrency, supervisor=supervisor, crash=crash)
        self.awake = True
        self.busy = []
        self.idle = []
        self.dismissed = []
        self.share = Share(self.job, self.dismiss)

    def _wake(self):
        self.awake = True

    def dismiss(self):
        if not self.idle:
            return False
        self.dismissed.append(self.idle.pop())
        return True

    # ---- what its threads do ----

    def supervise(self):
        self.awake = False
        while self.wants > len(self.busy) and len(self.busy) < self.job.concurrency:
            if self.idle:
                self.busy.append(self.idle.pop())
            elif not self.store.lease(self.share):
                return
            else:
                worker = self.store.take(self.share)
                if worker is None:
                    worker = object()
                    self.store.add(worker)
                self.busy.append(worker)
        self.store.settle(self.share)

    def step(self, since=LONG_AGO):
        """A chunk ends; its slot runs another one, is idle, or leaves."""
        worker = self.busy.pop(0)
        self.wants -= 1
        if self.store.waiting and self.store.yields(self.share, since):
            self._leave(worker, leaving=True)
            self.awake = True
        elif self.wants > len(self.busy):
            self.busy.append(worker)
        elif self.store.waiting:
            self.store.leaves(self.share)
            self._leave(worker, leaving=True)
        else:
            self.idle.append(worker)

    def leave_if_dismissed(self):
        while self.dismissed:
            self._leave(self.dismissed.pop(), leaving=True)
            self.awake = True

    def _leave(self, worker, *, leaving):
        if not self.store.give_back(self.share, worker, leaving=leaving):
            self.store.remove(worker)

    def end(self):
        self.job.stopped = True
        self.wants = 0
        for worker in [*self.busy, *self.idle]:
            self._leave(worker, leaving=False)
        self.busy, self.idle = [], []
        self.leave_if_dismissed()
        self.store.end(self.share)


def check(store, runs):
    leased = sum(run.share.held for run in runs)
    assert store._leased() == leased
    for run in runs:
        slots = len(run.busy) + len(run.idle) + len(run.dismissed)
        assert run.share.held == slots + run.share.granted
    if store.waiting:
        assert leased >= store._bound
    assert len(store._idle) + sum(len(run.busy) + len(run.idle) + len(run.dismissed) for run in runs) == len(store._all)


@given(
    bound=st.integers(1, 4),
    runs=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 30)), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
)
def test_g35_every_run_gets_its_turn_and_all_leases_come_back(bound, runs, seed):
    chance = random.Random(seed)
    store = Workers(least=1, most=bound, block=Block())
    runs = [Run(store, concurrency, wants) for concurrency, wants in runs]
    steps = 0
    while any(run.wants for run in runs):
        choices = [(run, act) for run in runs for act in ("supervise", "leave", "step") if _can(run, act)]
        assert choices, "all runs wait for each other"
        run, act = chance.choice(choices)
        {"supervise": run.supervise, "leave": run.leave_if_dismissed, "step": run.step}[act]()
        check(store, runs)
        steps += 1
        assert steps < 5000
        assert store._leased() <= bound
    for run in runs:
        run.end()
        check(store, runs)
    assert not store.waiting
    assert store._leased() == 0
    assert not store._shares
    assert len(store._idle) == len(store._all) <= bound


def _can(run, act):
    if act == "supervise":
        return run.awake
    return bool(run.dismissed if act == "leave" else run.busy)


def settled(*runs):
    while any(run.awake or run.dismissed for run in runs):
        for run in runs:
            run.leave_if_dismissed()
            if run.awake:
                run.supervise()


def test_g35_a_run_with_many_slots_makes_room_for_one_with_few():
    store = Workers(least=1, most=4, block=Block())
    wide, narrow = Run(store, 16, 1000), Run(store, 1, 1000)
    settled(wide)
    assert (wide.share.held, narrow.share.held) == (4, 0)
    settled(narrow)
    wide.step(since=clock())  # not at once for one that holds one fewer, but for one that holds four fewer
    settled(wide, narrow)
    assert (wide.share.held, narrow.share.held) == (3, 1)
    wide.step()
    settled(wide, narrow)
    assert (wide.share.held, narrow.share.held) == (3, 1)


def test_g35_more_runs_than_workers_take_turns():
    store = Workers(least=1, most=2, block=Block())
    runs = [Run(store, 2, 10_000) for _ in range(5)]
    settled(*runs)
    chunks = dict.fromkeys(runs, 0)
    for _ in range(500):
        for run in [run for run in runs if run.busy]:
            chunks[run] += 1
            run.step()
            settled(*runs)
    assert min(chunks.values()) * 1.5 > max(chunks.values())


def test_g35_a_slot_keeps_its_worker_for_its_turn():
    store = Workers(least=1, most=1, block=Block())
    one, other = Run(store, 1, 100), Run(store, 1, 100)
    settled(one, other)
    one.step(since=clock())
    assert (one.share.held, other.share.held) == (1, 0)
    one.step(since=clock() - 2 * TURN_S)
    settled(one, other)
    assert (one.share.held, other.share.held) == (0, 1)


def test_g22_a_nested_run_gets_one_worker_beyond_the_bound():
    store = Workers(least=1, most=1, block=Block())
    outer, inner = Run(store, 1, 100), Run(store, 5, 100)
    inner.share.nested = True
    settled(outer, inner)
    assert (outer.share.held, inner.share.held) == (1, 1)
    third = Run(store, 1, 100)
    settled(third)
    inner.step()  # it does not give way: it would get the next one at once
    settled(outer, inner, third)
    assert inner.share.held == 1
    outer.step()
    settled(outer, inner, third)
    assert (outer.share.held, third.share.held) == (0, 1)
    inner.end()
    assert len(store._all) == 1  # the one beyond the bound has ended
    third.end()
    outer.end()
    assert len(store._all) == 1


def test_g35_a_slot_that_rests_does_not_count_and_goes_on_without_waiting():
    store = Workers(least=1, most=1, block=Block())
    one, other = Run(store, 1, 10), Run(store, 1, 10)
    settled(one, other)
    assert (one.share.held, other.share.held) == (1, 0)
    store.rest(one.share)
    settled(other)
    assert (one.share.held, other.share.held) == (0, 1)
    store.rest(one.share, over=True)
    assert store._leased() == 2
    one.end()
    settled(other)
    other.end()
    assert store._leased() == 0


def test_g35_a_store_is_gone_when_the_last_worker_is():
    store = Workers(least=2, most=None, block=Block())
    run = Run(store, 2, 10)
    settled(run)
    store.block.left = True
    assert not store.gone.is_open
    run.end()
    assert store.gone.is_open


def test_g35_the_end_of_a_run_takes_back_a_lease_that_is_just_being_granted():
    store = Workers(least=1, most=1, block=Block())
    first, second = Run(store, 1, 1), Run(store, 1, 1)
    first.supervise()
    second.supervise()
    with store.lock:
        del store.waiting[second.share]  # as `_serve` does, in another thread
        ending = Background(second.end)
        absence()
        second.share.held += 1
        second.share.granted += 1
    ending.result()
    first.end()
    check(store, [first, second])
    assert not store._shares


def test_g35_a_run_whose_first_next_was_held_up_gets_no_lease_behind_the_block():
    store = Workers(least=1, most=1, block=Block())
    run = Run(store, 1, 1)
    store.open(run.share)
    store.close(wait=False)
    run.supervise()
    assert [type(error) for error in run.crashes] == [RuntimeError]
    assert not run.busy
    assert not store._shares
