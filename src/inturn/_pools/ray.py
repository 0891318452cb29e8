"""Ray: what `submit`, cancelling and the loss of a worker mean there.

A worker process of Ray runs one task at a time, and ``max_retries=0`` leaves it to inturn what runs again. A late call
is ended with its worker, which Ray replaces. Nothing is kept of a task but its `ObjectRef`, until it has ended.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from threading import get_ident
from typing import Any

from inturn._transport.by_name import PROTOCOL
from inturn._transport.remote import run_packed

from .cluster import Cluster
from .submission import Submission

__all__ = ["Ray", "cpus_of"]


def cpus_of(ray: Any) -> int:
    return int(ray.cluster_resources().get("CPU", 0))


class Task:
    """A future of Ray, with a `cancel` that reaches the cluster."""

    __slots__ = ("__weakref__", "_future", "_ray", "_ref")

    def __init__(self, ray: Any, ref: Any) -> None:
        self._ray = ray
        self._ref = ref
        self._future = ref.future()

    def done(self) -> bool:
        return bool(self._future.done())

    def cancelled(self) -> bool:
        return False  # its error tells

    def exception(self) -> BaseException | None:
        error: BaseException | None = self._future.exception()
        return error

    def result(self) -> Any:
        return self._future.result()

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        self._future.add_done_callback(lambda _: fn(self))

    def cancel(self, *, force: bool = False) -> None:
        """A task that waits never starts; one that runs is interrupted, or ended with its worker (`force`).

        Ray (2.60) aborts the whole program if one thread cancels a task while Ray's own thread is handling the
        task's reply. So its own thread does the cancelling: it is the one that calls the callbacks of futures.
        """

        def cancel(_: object) -> None:
            if get_ident() == here:  # the future was done at once
                self.cancel(force=force)
            else:
                self._cancel(force)

        if self.done() or not self._ray.is_initialized():
            return
        if self._ray.util.client.ray.is_connected():  # "ray://": a process of the cluster does it, and we wait for that
            self._cancel(force)
        else:
            here = get_ident()
            self._ray.put(None).future().add_done_callback(cancel)

    def _cancel(self, force: bool) -> None:
        if not self.done() and self._ray.is_initialized():
            self._ray.cancel(self._ref, force=force)


class Ray(Cluster):
    """The module `ray`, initialised."""

    tells_of_its_end = False  # after `ray.shutdown`, futures stay as they are

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._remote: Any = None

    def open(self, name: str, *, blocks: bool) -> None:
        if not self._ray.is_initialized():
            raise RuntimeError("Ray is not initialised: call ray.init() first")
        self._remote = self._ray.remote(num_cpus=1, max_retries=0)(run_packed).options(name=name)

    def submit(self, submission: Submission) -> Any:
        return Task(self._ray, self._remote.remote(pickle.dumps(submission.pack(), PROTOCOL)))

    def is_there(self) -> bool:
        return bool(self._ray.is_initialized())

    def late(self, future: Any) -> None:
        future.cancel(force=True)

    def lost(self, error: BaseException) -> bool:
        errors = self._ray.exceptions
        return isinstance(
            error,
            (
                errors.WorkerCrashedError,
                errors.NodeDiedError,
                errors.LocalRayletDiedError,
                errors.OutOfMemoryError,
                errors.ObjectLostError,
            ),
        )
