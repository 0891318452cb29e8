"""What an ``executor`` argument stands for."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from inturn._base import checks
from inturn._core.job import BasePool, Job
from inturn._model.processes import Processes
from inturn._model.threads import Threads
from inturn._pools.threads import ThreadPool

__all__ = ["MakesPools", "Opener", "open_pool", "open_tasks"]

_NAMED: Final[dict[str, Callable[[], Threads | Processes]]] = {"thread": Threads, "process": Processes}
_FLAT: Final = '"thread", "process", "serial", Threads or Processes'
_REST: Final = "a Dask client, the module ray or a callable"
_ANY_NAME: Final = f'"thread", "process", "interpreter", "serial", an executor, {_REST}'
_ANY: Final = f'"thread", "process", "interpreter", "serial", an object with submit(), {_REST}'


class Opener(NamedTuple):
    """How the pool of a run is made, how many calls it runs at once if nobody says, and whether in batches.

    With `batches` small items are batched by themselves; with `chunks` an explicit chunksize is kept.

    A default window has `ahead` items for each worker: four where it takes long until the consumer has taken a result
    and pulled another item, so that a worker finds its next batch waiting.
    """

    open: Callable[..., BasePool]
    default_concurrency: Callable[[], int]
    batches: bool
    chunks: bool = True
    ahead: int = 2


class MakesPools(ABC):
    """An executor that makes the pools of its runs itself."""

    @abstractmethod
    def opener(self, *, flat: bool) -> Opener:
        """How the pool of a run, or of a flat run, is made."""


def _threads() -> int:
    return min(32, checks.cpus() + 4)


def open_tasks(fn: Callable[..., Any], *, flat: bool = False) -> Opener:
    """Tasks of the event loop: one for each call; in a `flat` run one for each item, which produces elements."""

    def open_(job: Any, *, slices: bool) -> BasePool:
        if flat:
            from inturn._aio.flat_tasks import LaneTaskPool

            return LaneTaskPool(job, known=False)
        if sys.version_info >= (3, 12):
            from inturn._aio.tasks import TaskPool
        else:
            from inturn._aio.eager import EagerTaskPool as TaskPool
        return TaskPool(job, known=checks.kind_of(fn) == checks.ASYNC)

    return Opener(open_, lambda: 16, batches=True)


def open_pool(executor: Any, timeout: object, *, flat: bool = False) -> Opener:
    """Check an ``executor`` argument; nothing is started before the pool is opened.

    The elements of a `flat` run stream: through an executor of somebody's they cannot.

    Guarantee 19.
    """
    if isinstance(executor, str):  # it may be any object: `==` of some has no truth value
        if executor == "serial":
            if timeout is None:
                return Opener(partial(_serial, flat), lambda: 1, batches=False, chunks=False)
            cure = 'which cannot interrupt a call; use "thread"'
            raise ValueError(f'timeout cannot be used with executor="serial", {cure}')
        if executor == "interpreter" and not flat:
            return Opener(partial(_executor_pool, None, _interpreters()), checks.cpus, batches=True)
        if executor not in _NAMED:
            raise ValueError(f"executor must be {_FLAT if flat else _ANY_NAME}, got {executor!r}")
        executor = _NAMED[executor]()
    if isinstance(executor, MakesPools):
        return executor.opener(flat=flat)
    if isinstance(executor, Threads):
        open_ = partial(ThreadPool.of, settings=executor, least=_threads())
        return Opener(open_, lambda: executor.max_workers or _threads(), batches=True)
    if isinstance(executor, Processes):
        return Opener(_processes(executor, flat), lambda: executor.max_workers or checks.cpus(), batches=True, ahead=4)
    if flat:
        raise _cannot_stream(executor)
    cluster = _cluster(executor)
    if cluster is not None:
        return cluster
    if hasattr(executor, "submit") and not isinstance(executor, type):
        return Opener(partial(_executor_pool, executor, None), _threads, batches=True)
    if callable(executor) and executor is not Threads and executor is not Processes:
        return Opener(partial(_executor_pool, None, executor), _threads, batches=True)
    cure = f": write {executor.__name__}()" if isinstance(executor, type) else ""
    if hasattr(type(executor), "imap"):  # a pool of `multiprocessing`
        name = "thread" if type(executor).__name__ == "ThreadPool" else "process"
        cure = f', which has no submit(): write executor="{name}"'
    raise TypeError(f"executor must be {_ANY}, got {type(executor).__name__}: {executor!r}{cure}")


def _cannot_stream(executor: Any) -> TypeError:
    cure = ""
    if executor is sys.modules.get("ray") or _cluster(executor) is not None:
        cure = (
            "; a cluster returns results whole: have fn return a list, use ordered_map, "
            "and chain the lists with itertools.chain.from_iterable"
        )
    elif callable(executor) or hasattr(executor, "submit"):
        cure = "; an executor of yours returns results whole: collect lists with ordered_map"
    return TypeError(f"executor must be {_FLAT}, got {type(executor).__name__}: {executor!r}{cure}")


def _interpreters() -> Callable[[int], Any]:
    """What makes interpreters, which are workers of an executor of the standard library."""
    import concurrent.futures

    make: Any = getattr(concurrent.futures, "InterpreterPoolExecutor", None)
    if make is None:
        version = ".".join(map(str, sys.version_info[:2]))
        raise ValueError(f'executor="interpreter" needs Python 3.14 or later, not {version}; use "process"')

    path = list(map(str, sys.path))  # an interpreter starts with that of a new program
    return partial(make, initializer=exec, initargs=(f"import sys; sys.path[:] = {path!r}",))


def _cluster(executor: Any) -> Opener | None:
    """A cluster's client, if it is one; whoever has one has imported its library."""
    distributed, ray = sys.modules.get("distributed"), sys.modules.get("ray")
    if distributed is not None and isinstance(executor, _dask_types(distributed)):
        from inturn._pools.dask import DaskExecutorPool, DaskPool, threads_of

        if isinstance(executor, distributed.Client):
            return _cluster_opener(DaskPool, executor, lambda: threads_of(executor))
        return _cluster_opener(DaskExecutorPool, executor, _threads)
    if ray is not None and executor is ray:
        from inturn._pools.ray import RayPool

        if not ray.is_initialized():
            raise RuntimeError("executor=ray: Ray is not initialised; call ray.init() first")
        return _cluster_opener(RayPool, ray, lambda: int(ray.cluster_resources().get("CPU", 0)))
    return None


def _dask_types(distributed: Any) -> tuple[type, ...]:
    """The client, and what its `get_executor` returns; none of them while `distributed` is being imported."""
    wrapper = sys.modules.get("distributed.cfexecutor")
    types = getattr(distributed, "Client", None), getattr(wrapper, "ClientExecutor", None)
    return tuple(each for each in types if each is not None)


def _cluster_opener(pool: Callable[..., BasePool], client: Any, workers: Callable[[], int]) -> Opener:
    return Opener(partial(pool, client=client), lambda: workers() or _threads(), batches=True, ahead=4)


def _serial(flat: bool, job: Any, *, slices: bool) -> BasePool:
    from inturn._pools.serial import FlatSerial, Serial

    return FlatSerial(job) if flat else Serial(job)


def _executor_pool(executor: Any, build: Callable[[int], Any] | None, job: Job, *, slices: bool) -> BasePool:
    from inturn._pools.executors import ExecutorPool

    return ExecutorPool(job, executor, build, slices=slices)


def _processes(settings: Processes, flat: bool) -> Callable[..., BasePool]:
    """Check that processes can be had here; returns what makes the pool of a job."""
    import multiprocessing

    methods = multiprocessing.get_all_start_methods()
    wanted = settings.start_method
    if wanted is not None and wanted not in methods:
        raise ValueError(f"start_method must be one of {', '.join(map(repr, methods))}, got {wanted!r}")
    process = multiprocessing.current_process()
    if process.daemon:
        raise RuntimeError(
            'executor="process" cannot be used inside a daemonic process, which may have no children: '
            'use executor="thread" here, or make the outer process non-daemonic (Celery: --pool=threads or solo; '
            "PyTorch DataLoader: num_workers=0)"
        )
    try:
        from inturn._processes.pool import ProcessPool, ProcessSlot
    except (ImportError, AttributeError, ValueError) as error:  # Windows has neither poll nor fork
        raise RuntimeError(
            'executor="process" needs a POSIX system: pass a concurrent.futures.ProcessPoolExecutor instead'
        ) from error
    from inturn._processes.start import NO_GUARD

    if getattr(process, "_inheriting", False):  # a worker, which imports `__main__`
        os._exit(NO_GUARD)  # a child of a fork server has no code of its own for `SystemExit`

    def open_(job: Any, *, slices: bool) -> BasePool:
        slot = ProcessSlot
        if flat:
            from inturn._processes.flat_pool import FlatProcessSlot

            slot = FlatProcessSlot
        return ProcessPool(job, settings, slot, least=checks.cpus(), slices=slices)

    return open_
