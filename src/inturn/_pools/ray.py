"""Ray: what `submit`, cancelling and the loss of a worker mean there.

A worker process of Ray runs one task at a time, and ``max_retries=0`` leaves it to inturn what runs again. A late call
is ended with its worker, which Ray replaces. Nothing is kept of a task but its `ObjectRef`, until it has ended.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any, Final

from inturn._core.consumer import sooner
from inturn._model.outcome import Kind
from inturn._transport.remote import run_packed

from .cluster import ClusterPool
from .submission import Submission

__all__ = ["RayPool"]

_LOOK_S: Final = 1.0  # after `ray.shutdown`, futures stay as they are: the supervisor looks so often


class Task:
    """A future of Ray, with a `cancel` that reaches the cluster."""

    def __init__(self, ray: Any, ref: Any) -> None:
        self._ray = ray
        self._ref = ref
        self._future = ref.future()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._future, name)

    def cancel(self, *, force: bool = False) -> None:
        """A task that waits never starts; one that runs is interrupted, or ended with its worker (`force`).

        Ray (2.60) aborts the whole program if one thread cancels a task while Ray's own thread is handling the
        task's reply. So its own thread does the cancelling: it is the one that calls the callbacks of futures.
        """

        def cancel(_: object) -> None:
            if get_ident() == here:  # the future was done at once
                self.cancel(force=force)
            elif not self.done() and self._ray.is_initialized():
                self._ray.cancel(self._ref, force=force)

        if self.done() or not self._ray.is_initialized():
            return
        if self._ray.util.client.ray.is_connected():  # "ray://": a process of the cluster does it, and we wait for that
            self._ray.cancel(self._ref, force=force)
        else:
            here = get_ident()
            self._ray.put(None).future().add_done_callback(cancel)


class RayPool(ClusterPool):
    """For the module `ray`, initialised."""

    def open(self) -> None:
        if not self.executor.is_initialized():
            raise RuntimeError("Ray is not initialised: call ray.init() first")
        self._remote = self.executor.remote(num_cpus=1, max_retries=0)(run_packed).options(name=self.name)
        super().open()

    def send(self, load: bytes) -> Any:
        return Task(self.executor, self._remote.remote(load))

    def grow(self) -> float | None:
        again = super().grow()
        if self._submissions and not self.executor.is_initialized():
            for submission in list(self._submissions):
                self._over(submission, RuntimeError("the cluster was shut down"), Kind.FATAL)
        return sooner(again, _LOOK_S) if self._submissions else again

    def late(self, submission: Submission) -> None:
        future = submission.future  # None when it has landed, in any thread
        if future is not None:
            future.cancel(force=True)

    def lost(self, error: BaseException) -> bool:
        errors = self.executor.exceptions
        died = errors.WorkerCrashedError, errors.NodeDiedError, errors.LocalRayletDiedError
        return isinstance(error, (*died, errors.OutOfMemoryError, errors.ObjectLostError))
