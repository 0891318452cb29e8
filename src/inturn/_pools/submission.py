"""One chunk on its way through an executor that the user has passed in.

The `Submission` itself is submitted. If the executor's workers share this process, they call it as it
is: it has the consumer's context, its outcomes can be read while it runs, and items that it has not
started can be taken back. If the executor pickles it, it becomes a call of `run_remote`, which works by
itself, and the future's result brings the outcomes.

It leaves `State.QUEUED` once. It is finished, and makes room for another, when its call and its future
have both ended, in any order (`ends`): a future may be cancelled by anybody. A call in another process
ends with its future. A call that its time limit gives up still runs, and makes no room (guarantee 17).
"""

from __future__ import annotations

import enum
from functools import partial
from typing import Any, Literal

from inturn._base.atomic import Once, fence
from inturn._base.events import Latch
from inturn._core.job import Job
from inturn._core.nesting import inside
from inturn._core.slot import Call, Slot
from inturn._core.threads import must_not_wait
from inturn._engine.chunk import Chunk
from inturn._model.outcome import Kind
from inturn._transport.pickling import Main, dumps_fn, has_cloudpickle
from inturn._transport.remote import ANY, main_file, pack_item, run_remote

__all__ = ["State", "Submission"]


class State(enum.Enum):
    QUEUED = "nobody has begun it"
    RUNNING = "its call runs in this process"
    REMOTE = "its items were sent to another process, in `away`"
    RECALLED = "taken back from the queue: the run runs it in a thread of its own, or not at all"
    WITHDRAWN = "nobody will run it: the run is over, or the executor has not made the call"


class Submission(Slot):
    def __init__(self, pool: Any, load: Chunk) -> None:
        super().__init__()
        self.pool = pool  # an `ExecutorPool`
        self.job: Job = pool.job
        self.load = load
        self.future: Any = None
        self.away: list[Any] | None = None  # the items that were sent to another process
        self.main = Main.SAME  # how they were sent
        self.unfit: BaseException | None = None  # why fn cannot be sent
        self.given_up = False
        self.left = Latch()  # opened when the call has ended, or was given up
        self._begun: dict[None, tuple[State]] = {}
        self.awaits: dict[str, bool] = {"call": True}  # whether a part has yet to end before it is finished
        self._finished = Once()

    def begin(self, state: State) -> bool:
        """Take it out of the queue: one atomic step, which succeeds once."""
        mine = (state,)
        return self._begun.setdefault(None, mine) is mine

    @property
    def state(self) -> State:
        (state,) = self._begun.get(None, (State.QUEUED,))
        return state

    def ends(self, part: Literal["call", "future"]) -> bool:
        """The call or the future has ended; True, once, if that was the last to end."""
        self.awaits[part] = False
        fence()
        return not (self.awaits["call"] or self.awaits.get("future")) and self._finished.take()

    def settle(self) -> bool:
        """Whether its items get their outcomes from what the future brings: they have none yet."""
        return not self.load.ended and (self.call is None or self.call.settle())

    def recall(self) -> bool:
        """Take it back from the executor's queue if it is still there."""
        if recalled := self.begin(State.RECALLED):
            self.cancel()
        return recalled

    def cancel(self) -> None:
        """Cancel its future, unless it has landed: `finish` lets go of the future, in any thread."""
        future = self.future
        if future is not None:
            future.cancel()

    def __call__(self) -> None:
        """The executor runs this, in our process."""
        if self.begin(State.RUNNING):
            self.run()
            if self.ends("call"):
                self.pool.finish(self)

    def bars(self, job: Job | None) -> bool:
        return job is self.job or not (self.chunk is not None or inside(self.job))

    @must_not_wait
    def run(self) -> None:
        job, chunk = self.job, self.load
        try:
            if not job.may_start():
                return
            self.sliced = job.timeout is None and self.pool.slice_s is not None and chunk.size > 1
            job.begun(self, chunk)
            if job.run(chunk, self):
                job.ended(self, chunk)
        except BaseException as error:  # a fault of ours
            job.crash(error)
        finally:
            self.left.open()

    def __reduce__(self) -> tuple[Any, ...]:  # the executor pickles it
        return partial, (run_remote, *self.pack())

    def pack(self) -> tuple[Any, ...]:
        """The load, as arguments of `run_remote`: it goes to another process."""
        pool, job, chunk = self.pool, self.job, self.load
        main = self.main = pool.main
        try:
            fn = pool.fn_blobs.get(main) or pool.fn_blobs.setdefault(main, dumps_fn(job.fn, main))
        except Exception as error:
            self.unfit = error.with_traceback(None)
            raise
        if self.begin(State.REMOTE):
            self.away = list(chunk.todo)
        items = self.away or []  # nothing, if it was recalled or withdrawn
        if self.chunk is None and items:
            job.begun(self, chunk)
            if job.trace is not None:
                job.trace.away(chunk)
            if job.timeout is not None:
                self.call = Call(items[0], self.since + job.timeout * (len(items) - 1))
                job.supervisor.watch()
        packed = [pack_item(item, main) for item in items]
        file = main_file() if main is Main.SAME and has_cloudpickle() else ANY
        return fn, packed, file, pool.slice_s

    def give_up(self) -> None:
        """Its time is over; the slot stays taken until the call ends (supervisor only)."""
        job, chunk, call = self.job, self.load, self.call
        assert call is not None
        assert job.timeout is not None
        self.given_up = True
        self.pool.late(self)  # first: when its failure is known, the run may end, and cancel it in a milder way
        job.abandoned += 1
        if self.away is None:
            self.pool.take_back(chunk)
        for item in [call.item] if self.away is None else self.away:
            error = TimeoutError(f"the call took longer than timeout={job.timeout:g} s")
            job.failed(chunk, item, error, job.timeout, Kind.FAILED)
        job.ended(self, chunk)
        call.item = None
        self.left.open()
