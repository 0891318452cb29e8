"""Who has which worker: the *store* owns workers, and lends them to runs.

A worker is a thread, or a process. A store is *kept* if it belongs to a ``with`` block of `Threads`
or `Processes`: its workers outlive a run, and all runs of the block share them. Every other run has
a store of its own, whose workers end when it gives them back. That is the only difference.

A run takes part with a `Share`. Before its supervisor starts a slot, it asks for a *lease*: the right
to one worker. The slot has the lease as long as it exists, also while it is idle. A slot leaves, and
gives back its lease and its worker, at the end of its run; if it is idle and another run waits; and
between two chunks if it is another run's turn (`yields`).

======== =================================== =======================================================
a lease  condition                           left by
======== =================================== =======================================================
free     ``leased < bound``                  `lease`, or another run's `give_back`, which grants it
granted  it counts in ``share.granted``      the supervisor of that run, which starts a slot with it;
                                             `settle`, if it has no use for it any more
held     a slot has it                       `give_back`; `rest`
resting  its slot waits for its consumer     `resume`
======== =================================== =======================================================

Fairness: a free lease goes to the run that holds the fewest, of several such runs to the one that
has waited longest. A slot makes room between two chunks for a run that holds at least two fewer; for
a run that holds one fewer, when it has had its worker for `TURN_S`.

A run never waits for itself, directly or through other runs (guarantee 22):

- A run inside a call on these workers (``nested``) always gets a first lease, beyond the bound if
  need be: that call only waits meanwhile.
- A slot whose consumer has to act first (a lane that is full) does not count while it rests. When it
  goes on, it does not wait for a lease.
- An idle slot makes room at once.

So more than ``bound`` workers may exist for a while; those beyond it end when they are given back.

Invariants: ``leased`` is the sum of all ``held``, in which ``granted`` is included. A share is in
``waiting`` only if the bound was reached when it asked, and then no slot is idle that was not told
to leave. Whatever changes this happens under ``lock``. Supervisors and slots take it, never the
consumer, a signal handler or a finaliser; no code of the user runs under it.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from inturn._base.atomic import fence
from inturn._base.clock import clock
from inturn._base.events import Latch
from inturn._core.job import Job, enclosing, inside
from inturn._core.threads import kept_stores, may_wait
from inturn._model.workers import Block, Workers

__all__ = ["Share", "Store", "store_of"]

TURN_S: Final = 0.02
"""A slot keeps its worker for so long while a run waits that has only one worker fewer, in seconds."""

_ENDED: Final = "the workers of this run have ended: the `with` block that kept them was left"

_numbers = itertools.count(1)

W = TypeVar("W")


class Lends(Protocol):
    """A pool whose slots have leases."""

    job: Job

    def dismiss(self) -> bool:
        """Tell an idle slot to leave; False if there is none. It takes no lock."""
        ...


class Share:
    """What one run has of a store.

    Attributes:
        number: Of the run, among all runs of this process.
        nested: Whether the run is inside a call on workers of the store.
        held: Leases of its slots, and those that were granted; without those that rest.
        granted: Leases that no slot has taken yet.
        resting: Leases of slots that wait for the consumer.
        leaving: Of the slots with a lease, those that are about to leave.
        over: Whether the run is over, and its supervisor has left.
    """

    __slots__ = ("granted", "held", "leaving", "nested", "number", "over", "pool", "resting")

    def __init__(self, pool: Lends) -> None:
        self.pool = pool
        self.number = next(_numbers)
        self.nested = False
        self.held = 0
        self.granted = 0
        self.resting = 0
        self.leaving = 0
        self.over = False


class Store(Generic[W]):
    """Workers, and who has them.

    Guarantee 35.

    Args:
        least: So many workers may work at once; more if a run has a higher concurrency.
        most: The bound that no run changes, or None.
        block: The block that the store belongs to; None: it is the store of one run.

    Attributes:
        waiting: Shares that wait for a lease, in the order in which they began to. Anyone may look whether it is empty.
    """

    def __init__(self, *, least: int, most: int | None, block: Block | None) -> None:
        self.keeps = block is not None
        self.block = Block() if block is None else block
        self.lock = threading.Lock()
        self.waiting: dict[Share, None] = {}
        self.gone = Latch()  # nothing is left of a store that was closed
        self._bound = most or least
        self._grows = most is None
        self._leased = 0
        self._shares: dict[Share, None] = {}
        self._idle: list[W] = []
        self._all: dict[W, None] = {}

    @property
    def ended(self) -> bool:
        return self.block.left

    def open(self, share: Share) -> None:
        """The first ``next`` of a run (the consumer; it takes no lock)."""
        if self.keeps and self.ended:
            raise RuntimeError(_ENDED)
        share.nested = any(getattr(each.pool, "store", None) is self for each in enclosing.get())

    def full(self) -> bool:
        """Whether all workers that there may be exist, so that none is about to be started."""
        return len(self._all) >= self._bound

    # ---- supervisors -----------------------------------------------------------------------------

    def lease(self, share: Share) -> bool:
        """Take a lease; False if there is none: the run's supervisor is woken when one is granted."""
        with self.lock:
            job = share.pool.job
            if share.granted:
                share.granted -= 1
                return True
            if job.stopped or share.over:
                return False
            self._shares[share] = None
            if self._grows:
                self._bound = max(self._bound, job.concurrency)
            if self._leased < self._bound or (share.nested and not share.held):
                self._take(share)
                return True
            self.waiting.setdefault(share)
            fence()  # a slot that is about to be idle looks whether a run waits
            self._dismiss_one(share)
            return False

    def settle(self, share: Share) -> None:
        """Leases that were granted and are no longer needed go to other runs."""
        if share.granted or share in self.waiting:
            with self.lock:
                self.waiting.pop(share, None)
                while share.granted:
                    share.granted -= 1
                    self._free(share)
                self._serve()

    def end(self, share: Share) -> None:
        """The run is over, and its supervisor leaves: it takes no further lease."""
        self.settle(share)
        with self.lock:
            share.over = True
            self._drop(share)
            self._look_whether_gone()

    def _dismiss_one(self, share: Share) -> None:
        if sum(each.leaving for each in self._shares) < len(self.waiting):
            for other in sorted(self._shares, key=_has, reverse=True):
                if other is not share and other.pool.dismiss():
                    other.leaving += 1
                    return

    def _take(self, share: Share) -> None:
        self._leased += 1
        share.held += 1

    def _free(self, share: Share) -> None:
        self._leased -= 1
        share.held -= 1

    def _serve(self, *, passed_on: bool = False) -> None:
        """Grant what is free, or has been `passed_on` by a slot that has left for this."""
        while self.waiting and (passed_on or self._leased < self._bound):
            share = min(self.waiting, key=_has)
            del self.waiting[share]
            if not share.pool.job.stopped:
                passed_on = False
                self._take(share)
                share.granted += 1
                share.pool.job.supervisor.wake()

    def _drop(self, share: Share) -> None:
        if share.over and not share.held and not share.resting:
            self._shares.pop(share, None)

    # ---- slots -----------------------------------------------------------------------------------

    def yields(self, share: Share, since: float) -> bool:
        """Whether a slot that has its lease `since` then has to make room for a run that waits."""
        with self.lock:
            if not self.waiting or sum(each.leaving for each in self._shares) >= len(self.waiting):
                return False
            mine = _has(share)
            if share.nested and mine <= 1:
                return False
            more = mine - min(map(_has, self.waiting))
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
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            return True

    def _choice(self, share: Share) -> int:
        return -1  # the one that has rested least has the warmest caches

    def add(self, worker: W) -> None:
        """A worker is started."""
        if self.keeps:
            kept_stores.add(self)
        self._all[worker] = None

    def remove(self, worker: W) -> None:
        """A worker has ended, or is given up."""
        with self.lock:
            self._all.pop(worker, None)
            self._look_whether_gone()

    def give_back(self, share: Share, worker: W | None, *, leaving: bool) -> bool:
        """A slot leaves: its lease is free.

        Returns:
            Whether the worker is kept; if not, its slot ends it.
        """
        with self.lock:
            kept = worker is not None and self._parked(worker, share)
            share.leaving -= leaving
            self._free(share)
            self._serve(passed_on=leaving)
            self._drop(share)
            self._look_whether_gone()
            return kept

    def park(self, worker: W) -> bool:
        """A worker is idle whose lease is not of this store; whether it is kept."""
        with self.lock:
            return self._parked(worker, None)

    def _parked(self, worker: W, share: Share | None) -> bool:
        if not self.keeps or self.ended or len(self._all) > self._bound:
            return False
        if share is not None and not self._cleaned(share, worker):
            return False
        self._idle.append(worker)
        return True

    def _cleaned(self, share: Share, worker: W) -> bool:
        """See to it that the worker has nothing of a run that is over; False if that is not possible."""
        return True

    def rest(self, share: Share) -> None:
        """A slot waits for its consumer: it does not count meanwhile."""
        with self.lock:
            share.resting += 1
            self._free(share)
            self._serve()

    def resume(self, share: Share) -> None:
        with self.lock:
            share.resting -= 1
            self._take(share)

    # ---- the end ---------------------------------------------------------------------------------

    def close(self, *, wait: bool) -> None:
        """The block was left: end the workers, and the runs that are open.

        Without `wait` it may be called from anywhere: it takes no lock.
        """
        self.block.left = True
        jobs = [share.pool.job for share in list(self._shares)]
        for job in jobs:
            job.crash(RuntimeError(_ENDED))
            job.stop()
        begun = self._end_idle()
        if wait and not sys.is_finalizing() and all(not inside(job) and may_wait(job) for job in jobs):
            if not begun:
                self._end_here()
            self.gone.wait()

    def join(self) -> None:
        """After `close`, at the exit of the interpreter: end what is left, and wait for it."""
        self._end_here()
        self.gone.wait()

    def _end_idle(self) -> bool:
        """Have idle workers end, waiting for nothing; False if the caller has to call `_end_here`."""
        raise NotImplementedError

    def _end_here(self) -> None:
        """End idle workers, in this thread."""
        with self.lock:
            self._look_whether_gone()

    def _look_whether_gone(self) -> None:
        if self.ended and not self._all and not any(share.held or share.resting for share in self._shares):
            self.block.stores.clear()
            kept_stores.discard(self)
            self.gone.open()


S = TypeVar("S", bound=Store[Any])


def store_of(workers: Workers, make: Callable[[Block | None], S]) -> tuple[S, Workers | None]:
    """The store of the block in which the settings are used, or else a new one, for a single run.

    Returns:
        The store, and what a run has to refer to while it is open, so that its workers are not lost.
    """
    block = workers._current()
    if block is None:
        return make(None), None
    store: Any = block.stores.get(None)
    if store is None:
        store = make(block)
        if not block.left:
            store = block.stores.setdefault(None, store)  # another thread may have made one meanwhile
    return store, workers


def _has(share: Share) -> int:
    return share.held - share.leaving
