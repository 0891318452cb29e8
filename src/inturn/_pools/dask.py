"""Dask: what `submit`, cancelling and the loss of a worker mean there.

A `distributed.Future` is asked for its result in the event loop of the client, where results of many futures are
gathered together. When that is done, or no longer wanted, it is released: then neither the client nor the scheduler
keep anything of the task, and a task that waits never starts. A call that runs in a worker's thread cannot be
interrupted; nobody hears of its result.

Dask by itself runs again what a dead worker had, three times at most (``distributed.scheduler.allowed-failures``);
then `KilledWorker` tells that it is lost.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import uuid
from itertools import count
from typing import Any

from inturn._transport.by_name import PROTOCOL
from inturn._transport.remote import run_packed

from .cluster import Cluster
from .submission import Submission

__all__ = ["DaskClient", "DaskExecutor", "threads_of"]


def threads_of(client: Any) -> int:
    """The threads of all workers, as far as the client knows without asking anybody."""
    info = client.scheduler_info()
    total = info.get("total_threads")
    return int(total) if total else sum(worker["nthreads"] for worker in info.get("workers", {}).values())


class DaskExecutor(Cluster):
    """What ``client.get_executor()`` returns: its `submit` passes a key on, and wraps the futures."""

    takes_along = True

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self._numbers = count()
        self._name = ""

    def open(self, name: str, *, blocks: bool) -> None:
        # The part before the last hyphen is what the dashboards group by.
        self._name = f"{name}-{uuid.uuid4().hex}"

    def submit(self, submission: Submission) -> Any:
        load = pickle.dumps(submission.pack(), PROTOCOL)
        return self._submit(load, f"{self._name}{next(self._numbers)}")

    def _submit(self, load: bytes, key: str) -> Any:
        return self._executor.submit(run_packed, load, key=key, pure=False)

    def late(self, future: Any) -> None:
        pass  # nobody tells whether it runs already

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, sys.modules["distributed"].KilledWorker)


class DaskClient(DaskExecutor):
    """A `distributed.Client`."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._remote: dict[Any, Any] = {}  # a future of ours, and Dask's

    def open(self, name: str, *, blocks: bool) -> None:
        super().open(name, blocks=blocks)
        try:
            here: Any = asyncio.get_running_loop()
        except RuntimeError:
            return
        if blocks and here is self._executor.loop.asyncio_loop:
            raise RuntimeError("the event loop of this Dask client runs in this thread: use ordered_amap here")

    def _submit(self, load: bytes, key: str) -> Any:
        remote = super()._submit(load, key)
        future = asyncio.run_coroutine_threadsafe(self._result(remote), self._executor.loop.asyncio_loop)
        self._remote[future] = remote
        future.add_done_callback(self._remote.pop)
        return future

    async def _result(self, remote: Any) -> Any:
        """Wait until the task has ended, which may be given up, and fetch its result, which may not.

        Results are fetched together, for all who want one: to cancel that would fail the calls of other runs, and
        of all later ones (the client waits for what was cancelled for ever).
        """
        try:
            await remote.exception()
        except BaseException:
            remote.release()
            raise
        return await asyncio.shield(_fetch(remote))

    def late(self, future: Any) -> None:
        """Take it out of the queue; a call that runs keeps its worker, and its permit."""
        remote = self._remote.get(future)
        if remote is not None:
            asyncio.run_coroutine_threadsafe(self._cancel_queued(remote, future), self._executor.loop.asyncio_loop)

    async def _cancel_queued(self, remote: Any, future: Any) -> None:
        if not any((await self._executor.call_stack(keys=[remote.key])).values()):
            future.cancel()


async def _fetch(remote: Any) -> Any:
    try:
        return await remote
    finally:
        remote.release()
