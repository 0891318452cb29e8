"""One chunk on its way through an executor that is not ours; its states are told in `_borrowed`."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from inturn._base.atomic import Once, fence
from inturn._base.events import Latch
from inturn._core.job import Call, Job, Slot, inside, run_chunk, run_watched
from inturn._core.threads import must_not_wait
from inturn._engine.chunk import Chunk
from inturn._engine.window import SLICE_S
from inturn._model.outcome import Kind
from inturn._transport.pickling import Main, dumps_fn, has_cloudpickle
from inturn._transport.remote import ANY, main_file, pack_item, run_remote

__all__ = ["Submission"]


class Pool(Protocol):
    """What a submission needs to know of its pool."""

    job: Job
    slices: bool
    main: Main
    fn_blobs: dict[Main, bytes]

    def take_back(self, chunk: Chunk) -> bool | None: ...
    def land(self, submission: Submission) -> None: ...


class Submission(Slot):
    """A chunk on its way through the executor, what is submitted for it, and the place of its call."""

    __slots__ = (
        "_aloft",
        "_ticket",
        "away",
        "done",
        "ended",
        "future",
        "given_up",
        "hooked",
        "left",
        "load",
        "main",
        "pool",
        "rescued",
        "unfit",
    )

    def __init__(self, pool: Pool, load: Chunk) -> None:
        super().__init__()
        self.pool = pool
        self.load = load
        self.rescued = False
        self.future: Any = None
        self.away: list[Any] | None = None  # the items that were sent to another process
        self.main = Main.SAME  # how they were sent
        self.unfit: BaseException | None = None  # why fn cannot be sent
        self.given_up = False
        self.left = Latch()  # nobody has to wait for the call any more: it has ended, or was given up
        self.hooked = False  # whether the future will call back
        self._ticket = Once()
        self.ended = False  # its call, which may never be made
        self.done = False  # its future
        self._aloft = Once()

    def board(self) -> bool:
        """Whoever is told True may run the load: the executor, or a rescuer."""
        return self._ticket.take()

    def recall(self) -> bool:
        """Take it from the executor's queue if it is still there; the future's end is nothing to us then."""
        if not self.board():
            return False
        self.rescued = True
        if self.future is not None:
            self.future.cancel()
        return True

    def lands(self) -> bool:
        """Whether its call and its future have both ended, in whatever order; True once."""
        fence()
        return self.ended and self.done and self._aloft.take()

    def __call__(self) -> None:
        """The executor runs this, in our process."""
        if self.board():
            self.run()
            if self.lands():
                self.pool.land(self)

    def bars(self, job: Job) -> bool:
        return job is self.pool.job or not (self.chunk is not None or inside(self.pool.job))

    @must_not_wait
    def run(self) -> None:
        job, chunk = self.pool.job, self.load
        try:
            if not job.may_start():
                return
            self.sliced = job.timeout is None and self.pool.slices and chunk.size > 1
            job.begun(self, chunk)
            if job.timeout is None:
                run_chunk(chunk, job)
            elif not run_watched(chunk, job, self):
                return
            job.ended(self, chunk)
        except BaseException as error:  # a fault of ours
            job.crash(error)
        finally:
            self.ended = True
            self.left.open()

    def __reduce__(self) -> tuple[Any, ...]:
        """The executor pickles this: the load travels."""
        pool, job, chunk = self.pool, self.pool.job, self.load
        main = self.main = pool.main
        try:
            fn = pool.fn_blobs.get(main) or pool.fn_blobs.setdefault(main, dumps_fn(job.fn, main))
        except Exception as error:
            self.unfit = error.with_traceback(None)
            raise
        self.ended = True  # here, where there is no call
        self.board()
        items = list(chunk.todo) if self.away is None else self.away
        self.away = items
        if self.chunk is None:
            job.begun(self, chunk)
            if job.timeout is not None:
                self.call = Call(items[0] if items else None, self.since + job.timeout * (len(items) - 1))
                job.supervisor.watch()
        packed = [pack_item(item, main) for item in items]
        file = main_file() if main is Main.SAME and has_cloudpickle() else ANY
        return partial, (run_remote, fn, packed, file, SLICE_S if pool.slices else None)

    def give_up(self) -> None:
        """Its time is over; the place stays taken until the call ends (supervisor only)."""
        job, chunk, call = self.pool.job, self.load, self.call
        assert call is not None
        assert job.timeout is not None
        self.given_up = True
        job.abandoned += 1
        if self.away is None:
            self.pool.take_back(chunk)
        for item in [call.item] if self.away is None else self.away:
            error = TimeoutError(f"the call took longer than timeout={job.timeout:g} s")
            job.failed(chunk, item, error, job.timeout, Kind.FAILED)
        job.ended(self, chunk)
        call.item = None
        self.left.open()
