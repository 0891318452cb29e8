"""Who has which worker: the *store* owns workers, and lends them to runs.

A worker is a thread, or a process. A store is *kept* if it belongs to a ``with`` block of `Threads`
or `Processes`: its workers outlive a run, and all runs of the block share them. Every other run has
a store of its own, whose workers end when it gives them back. That is the only difference.

A run takes part with a `Share`. Before its supervisor starts a slot, it asks for a *lease*: the
right to one worker. The slot has the lease as long as it exists, also while it is idle. A slot
leaves, and gives back its lease and its worker, at the end of its run; if it is idle and another
run waits; and between two chunks if it is another run's turn.

======== ================================ ==========================================================
a lease  condition                        left by
======== ================================ ==========================================================
free     the bound is not reached         `lease`; another run's `give_back`, which grants it
granted  it counts in ``share.granted``   the supervisor of that run: it starts a slot, or (`settle`)
                                          has no use for it any more
held     a slot has it                    `give_back`; `rest`
resting  its slot waits for its consumer  `rest`, when that is over
======== ================================ ==========================================================

Fairness: a free lease goes to the run that holds the fewest, of several such runs to the one that
has waited longest. A slot makes room between two chunks for a run that holds at least two fewer;
for a run that holds one fewer, when it has had its worker for `TURN_S`.

A run never waits for itself, directly or through other runs (guarantee 22). A run inside a call on
these workers (``nested``) always gets a first lease, beyond the bound if need be: that call only
waits meanwhile. A slot whose consumer has to act first (a lane that is full) does not count while
it rests, and goes on without waiting for a lease. An idle slot makes room at once. So more workers
than the bound may exist; they end when they are given back.

A share is in ``waiting`` only if the bound was reached when it asked, and then no slot is idle that
was not told to leave. Whatever changes this happens under ``lock``. Supervisors and slots take it,
never the consumer, a signal handler or a finaliser; no code of the user runs under it.
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from inturn._base.atomic import fence
from inturn._base.clock import clock
from inturn._base.events import Latch
from inturn._core.job import Job
from inturn._core.nesting import enclosing, inside
from inturn._core.threads import kept_stores, may_wait
from inturn._model.workers import Block, Workers

__all__ = ["Share", "Store", "store_of"]

TURN_S: Final = 0.02  # so long a slot keeps its worker while a run waits that has one worker fewer

_ENDED: Final = "the workers of this run have ended: the `with` block that kept them was left"

_numbers = itertools.count(1)

W = TypeVar("W")


class Share:
    """What a run has of a store."""

    def __init__(self, job: Job, dismiss: Callable[[], bool]) -> None:
        self.job = job
        self.dismiss = dismiss  # tells an idle slot to leave, False if there is none; it takes no lock
        self.number = next(_numbers)  # of the run, among all runs of this process
        self.nested = False  # whether the run is inside a call on workers of the store
        self.held = 0  # leases of its slots, and those that were granted; without those that rest
        self.granted = 0  # leases that no slot has taken yet
        self.resting = 0  # leases of slots that wait for the consumer
        self.leaving = 0  # slots with a lease that are about to leave

    def stay(self) -> int:
        """The leases that it will not give back soon."""
        return self.held - self.leaving


class Store(ABC, Generic[W]):
    """Workers, and who has them (guarantee 35); without a `block` it is the store of one run.

    At most `most` workers work at once; if that is None, `least`, or more if a run has a higher
    concurrency. Supervisors call `lease`, `settle` and `end`, slots the other methods with a share.
    """

    def __init__(self, *, least: int, most: int | None, block: Block | None) -> None:
        self.keeps = block is not None
        self.block = Block() if block is None else block
        self.started = 0  # for names
        self.lock = threading.Lock()
        self.waiting: dict[Share, None] = {}  # for a lease, the oldest first; anyone may look whether it is empty
        self.gone = Latch()  # nothing is left of a store that was closed
        self._bound = most or least
        self._grows = most is None
        self._shares: dict[Share, None] = {}
        self._idle: list[W] = []
        self._all: dict[W, None] = {}

    def open(self, share: Share) -> None:
        """The first ``next`` of a run (the consumer; it takes no lock)."""
        if self.keeps and self.block.left:
            raise RuntimeError(_ENDED)
        share.nested = any(getattr(each.pool, "store", None) is self for each in enclosing.get())

    def full(self) -> bool:
        """Whether all workers that there may be exist, so that none is about to be started."""
        return len(self._all) >= self._bound

    def lease(self, share: Share) -> bool:
        """Take a lease; False if there is none: the run's supervisor is woken when one is granted."""
        with self.lock:
            if share.granted:
                share.granted -= 1
                return True
            if share.job.stopped:
                return False
            self._shares[share] = None
            if self.keeps and self.block.left:  # after it is in `_shares`, where `close` looks
                share.job.crash(RuntimeError(_ENDED))
                self._shares.pop(share)
                return False
            if self._grows:
                self._bound = max(self._bound, share.job.concurrency)
            if self._leased() < self._bound or (share.nested and not share.held):
                share.held += 1
                return True
            self.waiting.setdefault(share)
            fence()  # a slot that is about to be idle looks whether a run waits
            if self._needs_room():
                for other in sorted(self._shares, key=Share.stay, reverse=True):
                    if other is not share and other.dismiss():
                        other.leaving += 1
                        break
            return False

    def settle(self, share: Share) -> None:
        """Leases that were granted and are no longer needed go to other runs."""
        if share.granted or share in self.waiting:
            with self.lock:
                self._settle(share)

    def _settle(self, share: Share) -> None:
        self.waiting.pop(share, None)
        share.held -= share.granted
        share.granted = 0
        self._serve()

    def end(self, share: Share) -> None:
        """The run was stopped, and its supervisor leaves."""
        with self.lock:
            self._settle(share)
            self._drop(share)

    def _leased(self) -> int:
        return sum(share.held for share in self._shares)

    def _needs_room(self) -> bool:
        """Whether more runs wait than slots are about to leave."""
        return sum(share.leaving for share in self._shares) < len(self.waiting)

    def _serve(self, *, passed_on: bool = False) -> None:
        """Grant what is free, or has been `passed_on` by a slot that has left for this."""
        while self.waiting and (passed_on or self._leased() < self._bound):
            share = min(self.waiting, key=Share.stay)
            del self.waiting[share]
            if not share.job.stopped:
                passed_on = False
                share.held += 1
                share.granted += 1
                share.job.supervisor.wake()

    def _drop(self, share: Share) -> None:
        if share.job.stopped and not share.held and not share.resting:
            self._shares.pop(share, None)
        self._look_whether_gone()

    def yields(self, share: Share, since: float) -> bool:
        """Whether a slot that has its lease `since` then has to make room for a run that waits."""
        with self.lock:
            mine = share.stay()
            if not self._needs_room() or (share.nested and mine <= 1):
                return False
            more = mine - min(map(Share.stay, self.waiting))
            if more < 1 or (more == 1 and clock() - since < TURN_S):
                return False
            share.leaving += 1
            return True

    def leaves(self, share: Share) -> None:
        """A slot leaves because it is idle and a run waits."""
        with self.lock:
            share.leaving += 1

    def take(self, share: Share) -> W | None:
        """An idle worker, for a slot that has a lease; None: start one, and `add` it."""
        with self.lock:
            return self._idle.pop(self._choice(share)) if self._idle else None

    def retract(self, worker: W) -> bool:
        """An idle worker ends by itself; False if a slot has just taken it."""
        with self.lock:
            if idle := worker in self._idle:
                self._idle.remove(worker)
            return idle

    def _choice(self, share: Share) -> int:
        return -1  # the one that has rested least has the warmest caches

    def add(self, worker: W) -> None:
        if self.keeps:
            kept_stores.add(self)
        self._all[worker] = None

    def remove(self, worker: W) -> None:
        with self.lock:
            self._all.pop(worker, None)
            self._look_whether_gone()

    def give_back(self, share: Share, worker: W | None, *, leaving: bool) -> bool:
        """A slot leaves: its lease is free. False if the worker is not kept: then its slot ends it."""
        with self.lock:
            kept = worker is not None and self._parked(worker, share)
            share.leaving -= leaving
            share.held -= 1
            self._serve(passed_on=leaving)
            self._drop(share)
            return kept

    def park(self, worker: W) -> bool:
        """A worker is idle whose lease is not of this store; whether it is kept."""
        with self.lock:
            return self._parked(worker)

    def _parked(self, worker: W, share: Share | None = None) -> bool:
        if not self.keeps or self.block.left or len(self._all) > self._bound:
            return False
        if share is not None and not self._cleaned(share, worker):
            return False
        self._idle.append(worker)
        return True

    def _cleaned(self, share: Share, worker: W) -> bool:
        """See to it that the worker has nothing of a run that is over; False if that is not possible."""
        return True

    def rest(self, share: Share, *, over: bool = False) -> None:
        """A slot begins to wait for its consumer, and does not count meanwhile; or that is `over`."""
        with self.lock:
            share.resting += -1 if over else 1
            share.held += 1 if over else -1
            self._serve()

    def close(self, *, wait: bool) -> None:
        """The block was left: end workers and runs. Without `wait`, from anywhere: it takes no lock."""
        self.block.left = True
        jobs = [share.job for share in list(self._shares)]
        for job in jobs:
            job.crash(RuntimeError(_ENDED))
            job.stop()
        begun = self._end_idle()
        if wait and may_wait(None) and all(not inside(job) and may_wait(job) for job in jobs):
            if not begun:
                self._end_here()
            self.gone.wait()

    def join(self) -> None:
        """After `close`, at the exit of the interpreter: end what is left, and wait for it."""
        self._end_here()
        self.gone.wait()

    @abstractmethod
    def _end_idle(self) -> bool:
        """Have idle workers end, waiting for nothing; False if the caller has to call `_end_here`."""

    def _end_here(self) -> None:
        with self.lock:
            self._look_whether_gone()

    def _look_whether_gone(self) -> None:
        if self.block.left and not self._all and not any(share.held or share.resting for share in list(self._shares)):
            self.block.stores.clear()
            kept_stores.discard(self)
            self.gone.open()


def store_of(workers: Workers, make: Callable[[Block | None], Any]) -> Any:
    """The store of the block in which the settings are used, or else a new one, for a single run."""
    block = workers._current()
    if block is None:
        return make(None)
    store = block.stores.get(None)
    if store is None:
        store = make(block)
        if not block.left:
            store = block.stores.setdefault(None, store)  # another thread may have made one meanwhile
    return store
