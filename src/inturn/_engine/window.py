"""The engine of `ordered_map`: what is held, in which order, and what to do now.

Sans-IO: nothing here starts a call, waits, or reads a clock, so a test can drive every interleaving
without a thread, and threads, processes, executors and asyncio use the same object.

The window is a linked list of nodes, oldest first, that ends in the *main backlog*::

    cursor -> Chunk -> Chunk -> Backlog -> Chunk -> ... -> main Backlog
              running  ended    taken back              pulled, not claimed

- A `Backlog` holds items that nobody has started, in order.
- A worker *claims* a `Chunk`, a few items from the front of the oldest backlog. So an item never
  waits for batch-mates that are still to be pulled.
- While a chunk runs, ``out`` grows and ``todo`` shrinks. What it has not started can be *taken
  back*: it becomes a backlog right behind its chunk. At the end, ``len(out) == size``.
- An item that runs again is a chunk of one that stands in the place of its outcome.

The consumer (one thread at a time) calls `now`, `peek`, `drop`, `run_again`, `take_results`,
`resize`, `clear` and, unless a feeder thread does, `add`, `extend` and `finish`. Workers call
`claim`, `pass_on`, `take_back` and `give_back`, one worker at a time. Anyone calls `again`,
`available` and `waiting`.

Invariants: ``pulled - taken <= limit`` at every moment; each item is in exactly one backlog, one
``todo``, one call, or has one outcome.
"""

from __future__ import annotations

import bisect
import enum
import sys
from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, Final

from inturn._base.atomic import fence, pop_or, remainder_of, taking
from inturn._base.signals import found_nothing, raised_by_handler
from inturn._model.outcome import Err, Failure

from .chunk import Backlog, Chunk

__all__ = ["NEVER", "SLICE_S", "Now", "Window"]

SLICE_S: Final = 0.005  # the time slice: then what a chunk has not started is taken back
NEVER: Final = sys.maxsize  # the value of `Window.last_index` while no failure ends the run
_AIM_S: Final = 0.002  # a batch is to take so long: less than the time slice, so that it is rarely taken back
_TINY: Final = 1 / 20  # items that take less than this part of the aim may widen a default window
_BATCHES: Final = 16  # that a default window has for each worker, before it stops growing
_MOST: Final = 4096  # items; a default window never grows beyond
_SMALL_BYTES: Final = 1 << 10  # of an item or a result; larger ones do not widen a default window
_BATCH_BYTES: Final = 1 << 16  # so many travel together at most, judged by the last item and result; or else one item


def weight(thing: Any) -> int:
    """Its bytes, as far as a quick look tells; the first elements of a sequence count."""
    try:
        size = sys.getsizeof(thing)
        if type(thing) is tuple or type(thing) is list:
            size += sum(map(sys.getsizeof, thing[:8]))
    except Exception as error:  # an object may refuse to be measured
        if raised_by_handler(error):
            raise
        return _BATCH_BYTES
    return size


class Now(enum.Enum):
    DELIVER = "the head is complete"
    PULL = "there is room, and the head is not complete"
    WAIT = "the window is full, or the source at its end, and the head is not complete"
    DONE = "all is delivered and the source is at its end"


class Window:
    """The items that are pulled and not yet delivered."""

    _releases_outcomes = True  # whether `drop` and `clear` may take them from chunks that run

    def __init__(
        self, concurrency: int, limit: int | None, chunksize: int | None, *, batch: bool = True, ahead: int = 2
    ) -> None:
        start = Chunk(0, 0)
        start.ended = True
        by_default = 2 * concurrency * chunksize if chunksize else min(ahead * concurrency, max(_MOST, 2 * concurrency))
        self._base = by_default if limit is None else limit
        self._most = self._base if limit is not None or not batch else max(_MOST, self._base)
        self._share = max(1, min(2, self._base // concurrency))  # items that a worker may take even if few are there
        self.chunksize = chunksize
        self._batch = batch
        self._cursor: Chunk | Backlog = start
        self._position = 0
        self._main = start.next = Backlog(0, (), start)
        self._remainders: list[Backlog] = []
        self._again: deque[Chunk] = deque()
        self.limit = self._base
        self.pulled = 0
        self.taken = 0
        self.exhausted = False
        self.final: Err | None = None
        self.held: list[Any] = []  # results that count as taken, and are not yet delivered; the newest first
        self.straight = True  # whether the origin of each item is its index (38)
        self.last_index = NEVER  # nothing of a higher index is started
        self._failures: list[int] = []  # the indices of those that end the run
        self.passing: Callable[[Any], Failure | None] | None = None  # tells the failures that pass (36)
        self.pace_s: float | None = None  # seconds an item takes, as far as is known
        self.aim_s = _AIM_S  # seconds a batch is to take; longer where sending it costs more
        self.tiny = _TINY
        self._concurrency = concurrency
        self._paces: tuple[float, ...] = ()  # of the last three chunks
        self._item_bytes = 0  # of the item that was looked at last
        self._result_bytes = 0

    def room(self) -> int:
        """How many items may be pulled now (guarantee 3)."""
        taken = self.taken  # first: a result is in `held` before it counts as taken
        fence()
        return 0 if self.exhausted else self.limit - (self.pulled - taken) - len(self.held)

    def last_delivered(self) -> int:
        """The index of the item that was delivered last; another thread may get that of an earlier one."""
        taken = self.taken  # first: see `room`
        fence()
        return taken - len(self.held) - 1

    def add(self, item: Any) -> int:
        """Add an item that was pulled; returns how many more chunks may be claimed."""
        self.pulled += 1  # first: once it is in the backlog, it may be run and complete before our next step
        self._main.items.append(item)
        if self.chunksize is None or self.passing is not None:
            return 1
        return self.pulled % self.chunksize == 0

    def extend(self, items: list[Any]) -> int:
        """Add items that were pulled; returns how many more chunks may be claimed."""
        before = self.pulled
        self.pulled += len(items)
        self._main.items.extend(items)
        if self.chunksize is None or self.passing is not None:
            return min(len(items), self.available())
        return self.pulled // self.chunksize - before // self.chunksize

    def finish(self, final: Err | None = None) -> int:
        """The source is at its end, or has failed; returns 1 if that completes a chunk."""
        self.final = final
        self.exhausted = True
        if self.chunksize is None:
            return 0
        return self.passing is not None or self.pulled % self.chunksize > 0

    def available(self) -> int:
        """About how many chunks could be claimed now; 0 just when `claim` would find none."""
        if self._again:
            return len(self._again)
        rests = self._remainders[:]  # workers take from it meanwhile
        if rests and rests[0].index <= self.last_index:
            return len(rests)
        ready = len(self._main.items) if self._main.index <= self.last_index else 0
        if self.chunksize is not None:
            if self.exhausted:
                return -(-ready // self.chunksize)
            return ready // self.chunksize or self.passing_at(0) is not None
        return max(1, ready // self._size()) if ready else 0

    def passing_at(self, position: int) -> Failure | None:
        """The failure that passes at this position of the main backlog, if there is one."""
        if self.passing is None:
            return None
        items = self._main.items
        return self.passing(pop_or((), lambda: items[position]))  # an empty tuple is no failure

    def pass_on(self) -> Chunk | None:
        """Complete the failures that stand first in the main backlog (guarantee 36).

        No worker has to run them. Returns the chunk of them, or None. What was taken back has none.
        """
        backlog = self._main
        if self._remainders or backlog.index > self.last_index:
            return None
        failures: list[Failure] = []
        while (failure := self.passing_at(len(failures))) is not None:
            failures.append(failure)
        if not failures:
            return None
        chunk = Chunk(backlog.index, len(failures))
        chunk.out = self._outcomes_of(chunk.index, failures)
        chunk.ended = True
        self._link(chunk, backlog)
        return chunk

    def _outcomes_of(self, index: int, failures: list[Any]) -> list[Any]:
        return failures

    def _link(self, chunk: Chunk, backlog: Backlog) -> list[Any]:
        """Put the chunk before the backlog, and take its items from there."""
        # Linked before the items leave the backlog: whoever finds the backlog empty finds the chunk before it.
        chunk.next = backlog
        tail = backlog.tail
        if tail is not None:  # else cleared meanwhile: the run is over
            tail.next = chunk
            backlog.tail = chunk
        backlog.index += chunk.size
        items: list[Any] = []
        try:
            items.extend(map(deque.popleft, repeat(backlog.items, chunk.size)))
        except IndexError as error:  # cleared meanwhile: the run is over
            if not found_nothing(error):
                raise
        return items

    def _size(self) -> int:
        if self.chunksize is not None:
            return self.chunksize
        if not self._batch or not self.pace_s or self.pace_s > self.aim_s:
            return 1
        light = _BATCH_BYTES // max(self._item_bytes, self._result_bytes, 1)
        return max(1, round(min(self.aim_s / self.pace_s, light, _MOST)))

    def claim(self, most: int = NEVER) -> Chunk | None:
        """Take the oldest chunk to run, of no index above `most`, if there is one (guarantee 5)."""
        for _ in range(len(self._again)):
            chunk: Chunk | None = pop_or(None, self._again.popleft)  # `clear` may have emptied it
            if chunk is None:
                break
            if chunk.index > most:
                self._again.append(chunk)
            elif chunk.index <= self.last_index:
                return chunk
        backlog = self._remainders[0] if self._remainders else self._main
        there = len(backlog.items)
        size = self._size()
        if self.chunksize is None:
            size = min(size, max(self._share, there // 2))
        elif there < size and backlog is self._main and not self.exhausted:
            return None
        size = min(size, there)
        if self.passing is not None and backlog is self._main:
            size = next((each for each in range(size) if self.passing_at(each) is not None), size)
        if not size or backlog.index > min(self.last_index, most):
            return None
        chunk = Chunk(backlog.index, size)
        items = self._link(chunk, backlog)
        chunk.todo = taking(items, keep=self.chunksize is None)
        if items and self._batch:
            self._item_bytes = weight(items[0])
        if backlog is not self._main and not backlog.items:
            self._remainders.pop(0)
            backlog.tail = None  # no cycle: what is delivered is freed by counting references
        return chunk

    def take_back(self, chunk: Chunk) -> bool:
        """Make a backlog of what the chunk has not started (guarantee 26)."""
        rest = remainder_of(chunk.todo)
        if not rest:
            return False
        if not hasattr(chunk, "next"):  # it runs again, in the place of an outcome
            chunk.todo = iter(rest)
            self._again.appendleft(chunk)
            return True
        backlog = Backlog(chunk.index + chunk.size - len(rest), rest, chunk)
        behind = backlog.next = chunk.next
        if isinstance(behind, Backlog) and behind.tail is not None:
            behind.tail = backlog
        chunk.next = backlog
        bisect.insort(self._remainders, backlog, key=lambda each: each.index)
        chunk.size -= len(rest)  # last: until then the consumer does not walk past the chunk
        return True

    def give_back(self, chunk: Chunk, items: list[Any]) -> None:
        """The last items of a chunk, which its worker had taken and has not started: as `take_back`."""
        chunk.todo = iter(items)
        self.take_back(chunk)

    def again(self, chunk: Chunk) -> None:
        """An item that stands in the window is ready to run again."""
        self._again.append(chunk)

    def ends_at(self, index: int) -> None:
        """This failure ends the run in its turn, unless an earlier one does; in any thread."""
        self._failures.append(index)
        while self.last_index > (first := min(self._failures)):
            self.last_index = first

    def measured(self, seconds: float, items: int) -> None:
        """Learn from the seconds that so many items of a chunk took.

        The pace is the median of the last three, so an odd item does not count; it halves at most.
        """
        if items:
            self._paces = paces = (*self._paces[-2:], seconds / items)
            pace = sorted(paces)[(len(paces) - 1) // 2]
            self.pace_s = pace if self.pace_s is None else max(pace, self.pace_s / 2)

    def now(self) -> Now:
        exhausted = self.exhausted  # first: a feeder may add the last item just now
        if self.taken == self.pulled:
            if not exhausted:
                return Now.PULL
            return Now.DONE if self.final is None else Now.DELIVER
        if self._ready():
            return Now.DELIVER
        return Now.PULL if self.room() > 0 and self.last_index == NEVER else Now.WAIT

    def _ready(self) -> bool:
        """Whether there is something to deliver, or to decide, at the head."""
        return self._outcome() is not None

    def _outcome(self) -> tuple[Any] | None:
        """The head's outcome, in a tuple, if it is complete; moves the cursor to the head's chunk."""
        while True:
            node = self._cursor
            if isinstance(node, Chunk):
                if self._position < len(node.out):
                    outcome = node.out[self._position]
                    while type(outcome) is Chunk:  # it runs again, perhaps for the third time
                        if not outcome.out:
                            return None
                        outcome = outcome.out[0]
                    return (outcome,)
                if self._position < node.size:
                    return None
            behind = node.next
            claimable = behind is self._main or (isinstance(behind, Backlog) and behind.items)
            if behind is not node.next:
                continue  # a chunk was linked meanwhile
            if claimable:
                return None
            self._cursor = behind
            self._position = 0

    def peek(self) -> Any:
        """The head's outcome; only after `now` said DELIVER (guarantee 1)."""
        outcome = self._outcome() if self.taken < self.pulled else None
        return self.final if outcome is None else outcome[0]

    def drop(self) -> None:
        """The head has been delivered or left out (guarantee 12)."""
        if self._releases_outcomes:
            self._put(None)
        self._position += 1
        self.taken += 1

    def run_again(self, item: Any, attempt: int) -> Chunk:
        """Run the head again: returns a chunk of one in the place of its outcome; give it to `again`."""
        fresh = Chunk.again(self.taken, item, attempt)
        self._put(fresh)
        return fresh

    def _put(self, outcome: Chunk | None) -> None:
        """Replace the head's outcome: frames that an error keeps may hold chunks, no outcomes."""
        chunk = self._cursor
        assert isinstance(chunk, Chunk)
        old = chunk.out[self._position]
        chunk.out[self._position] = outcome
        _empty(old)

    def take_results(self) -> list[Any] | None:
        """All results of the head's chunk, the newest first, if it is complete and free of errors.

        They count as taken, but leave no room as long as they are in `held`.
        """
        chunk = self._cursor
        if not (isinstance(chunk, Chunk) and chunk.ended and chunk.plain and self._position == 0):
            return None
        results = chunk.out
        if not results or len(results) < chunk.size:
            return None
        chunk.out = []
        chunk.size = 0
        self.held = results
        fence()
        self.taken += len(results)
        results.reverse()
        return results

    def resize(self, result: Any) -> None:
        """Widen a default window while items and results are tiny; else narrow it (guarantee 4)."""
        if self._batch:
            self._result_bytes = weight(result)
        pace = 1.0 if self.pace_s is None else self.pace_s
        tiny = pace < self.aim_s * self.tiny
        if tiny and max(self._item_bytes, self._result_bytes) <= _SMALL_BYTES:
            if self.limit * pace < _BATCHES * self.aim_s * self._concurrency:
                self.limit = min(self._most, self.limit * 2)
        elif self.limit > self._base:
            self.limit = max(self._base, self.limit // 2)

    def clear(self) -> None:
        """The run is over: let go of everything in the window; the counts tell what was delivered."""
        head = self._cursor
        if isinstance(head, Chunk) and self.taken > head.index:  # else an exception came before they counted as taken
            self.taken -= len(self.held)  # they never will be delivered
        self.held = []
        for chunk, _ in self._chunks():
            if self._releases_outcomes:  # see `_put`
                outcomes, chunk.out = chunk.out, []
                for each in outcomes:
                    _empty(each)
        self._cursor = self._main
        self._position = 0
        for backlog in [*self._remainders, self._main]:
            backlog.items.clear()
            backlog.tail = None
        self._again.clear()
        self.final = None

    def waiting(self) -> int:
        """How many items in the window are complete."""
        count = 0
        for chunk, position in self._chunks():
            out = chunk.out
            count += max(0, len(out) - position)
            if not chunk.plain:
                count -= sum(type(each) is Chunk and not each.out for each in out[position:])
        return count

    def _chunks(self) -> Iterator[tuple[Chunk, int]]:
        """Each chunk in the window, and how many of its outcomes have been delivered."""
        node, position = self._cursor, self._position
        while node is not self._main:
            if isinstance(node, Chunk):
                yield node, position
            node, position = node.next, 0


def _empty(outcome: Any) -> None:
    """Where the item ran again, the outcome is a chunk that holds the next one."""
    while type(outcome) is Chunk:
        outcomes, outcome.out = outcome.out, []
        outcome = outcomes[0] if outcomes else None
