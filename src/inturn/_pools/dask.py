"""Dask: what `submit`, cancelling and the loss of a worker mean there.

A `distributed.Future` is asked for its result in the client's event loop, which fetches the results of many together.
When that is done, or no longer wanted, it is released: then neither the client nor the scheduler keep anything of the
task, and a task that waits never starts. A call that runs in a worker's thread cannot be interrupted.

Dask by itself runs again what a dead worker had, three times at most (``distributed.scheduler.allowed-failures``);
then `KilledWorker` tells that it is lost.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from asyncio import _get_running_loop  # None where get_running_loop raises
from typing import Any

from inturn._base.events import ThreadEvent
from inturn._transport.remote import run_packed

from .cluster import ClusterPool
from .submission import Submission

__all__ = ["DaskExecutorPool", "DaskPool", "threads_of"]


def threads_of(client: Any) -> int:
    """The threads of all workers, as far as the client knows without asking anybody."""
    info = client.scheduler_info()
    workers = info.get("workers", {}).values()
    return int(info.get("total_threads") or sum(worker["nthreads"] for worker in workers))


class DaskExecutorPool(ClusterPool):
    """For what ``client.get_executor()`` returns: its `submit` passes a key on, and wraps the futures."""

    takes_along = True

    def send(self, load: bytes) -> Any:
        key = f"{self.name}-{uuid.uuid4().hex}"  # the dashboards group by the part before the last hyphen
        return self.executor.submit(run_packed, load, key=key, pure=False)

    def lost(self, error: BaseException) -> bool:
        return isinstance(error, sys.modules["distributed"].KilledWorker)


class DaskPool(DaskExecutorPool):
    """For a `distributed.Client`."""

    def open(self) -> None:
        here = _get_running_loop()
        blocks = here is not None and isinstance(self.job.wake, ThreadEvent)
        if blocks and here is self.executor.loop.asyncio_loop:
            raise RuntimeError("the event loop of this Dask client runs in this thread: use ordered_amap here")
        super().open()

    def send(self, load: bytes) -> Any:
        remote = super().send(load)
        future: Any = asyncio.run_coroutine_threadsafe(_result(remote), self.executor.loop.asyncio_loop)
        future.remote = remote
        return future

    def late(self, submission: Submission) -> None:
        """Take it out of the queue; a call that runs keeps its worker."""
        client, future = self.executor, submission.future  # None when it has landed, in any thread
        if future is not None and not future.done():
            asyncio.run_coroutine_threadsafe(_cancel_queued(client, future), client.loop.asyncio_loop)


async def _cancel_queued(client: Any, future: Any) -> None:
    if not any((await client.call_stack(keys=[future.remote.key])).values()):
        future.cancel()


async def _result(remote: Any) -> Any:
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


async def _fetch(remote: Any) -> Any:
    try:
        return await remote
    finally:
        remote.release()
