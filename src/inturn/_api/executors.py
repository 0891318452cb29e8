"""What an ``executor`` argument stands for."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from inturn._base import checks
from inturn._core.job import BasePool, Job
from inturn._model.processes import Processes
from inturn._model.threads import Threads
from inturn._pools.threads import ThreadPool

__all__ = ["MakesPools", "Opener", "open_flat_pool", "open_lane_tasks", "open_pool", "open_tasks"]


class Opener:
    """How the pool of a run is made, how many calls it runs at once if nobody says, and whether in batches.

    With `chunks` an explicit chunksize is kept; with `batches` small items are batched by themselves as well.

    A default window has `ahead` items for each worker: four where it takes long until the consumer has taken a result
    and pulled another item, so that a worker finds its next batch waiting.
    """

    __slots__ = ("ahead", "batches", "chunks", "default_concurrency", "open")

    def __init__(
        self,
        open_: Callable[..., BasePool],
        default_concurrency: Callable[[], int],
        *,
        batches: bool,
        chunks: bool | None = None,
        ahead: int = 2,
    ) -> None:
        self.open: Callable[..., BasePool] = open_
        self.default_concurrency: Callable[[], int] = default_concurrency
        self.batches: bool = batches
        self.chunks: bool = batches if chunks is None else chunks
        self.ahead: int = ahead


class MakesPools(ABC):
    """An executor that makes the pools of its runs itself."""

    @abstractmethod
    def opener(self, *, flat: bool) -> Opener:
        """How the pool of a run, or of a flat run, is made."""


def _threads() -> int:
    return min(32, checks.cpus() + 4)


def _one() -> int:
    return 1


def _sixteen() -> int:
    return 16


def open_tasks(fn: Callable[..., Any]) -> Opener:
    """Tasks of the event loop, one for each call."""

    def open_(job: Job, *, slices: bool) -> BasePool:
        if sys.version_info >= (3, 12):
            from inturn._aio.tasks import TaskPool
        else:
            from inturn._aio.eager import EagerTaskPool as TaskPool
        return TaskPool(job, known=checks.kind_of(fn) == checks.ASYNC)

    return Opener(open_, _sixteen, batches=True)


def open_lane_tasks() -> Opener:
    """Tasks of the event loop, one for each item, that produce elements."""

    def open_(job: Any, *, slices: bool) -> BasePool:
        from inturn._aio.flat_tasks import LaneTaskPool

        return LaneTaskPool(job, known=False)

    return Opener(open_, _sixteen, batches=False)


def _named(executor: Any, timeout: object) -> Any:
    """The settings that a name is short for; what is no name is left as it is."""
    if not isinstance(executor, str):  # it may be any object: `==` of some has no truth value
        return executor
    if executor == "thread":
        return Threads()
    if executor == "process":
        return Processes()
    if executor == "serial" and timeout is not None:
        raise ValueError('timeout cannot be used with executor="serial", which cannot interrupt a call; use "thread"')
    return executor


def open_pool(executor: Any, timeout: object) -> Opener:
    """Check an ``executor`` argument; nothing is started before the pool is opened.

    Guarantee 19.
    """
    executor = _named(executor, timeout)
    if isinstance(executor, MakesPools):
        return executor.opener(flat=False)
    if isinstance(executor, Threads):
        return Opener(partial(_thread_pool, executor), partial(_most, executor, _threads), batches=True)
    if isinstance(executor, Processes):
        return Opener(_processes(executor), partial(_most, executor, checks.cpus), batches=True, ahead=4)
    if isinstance(executor, str):
        if executor == "serial":
            return Opener(_serial, _one, batches=False)
        if executor == "interpreter":
            return Opener(_borrowed(None, _interpreters()), checks.cpus, batches=True)
        raise ValueError(
            'executor must be "thread", "process", "interpreter", "serial", an executor, a Dask client, '
            f"the module ray or a callable, got {executor!r}"
        )
    cluster = _cluster(executor)
    if cluster is not None:
        return cluster
    if hasattr(executor, "submit") and not isinstance(executor, type):
        return Opener(_borrowed(executor, None), _threads, batches=True)
    if callable(executor) and executor is not Threads and executor is not Processes:
        return Opener(_borrowed(None, executor), _threads, batches=True)
    cure = f": write {executor.__name__}()" if isinstance(executor, type) else ""
    if hasattr(type(executor), "imap"):  # a pool of `multiprocessing`
        name = "thread" if type(executor).__name__ == "ThreadPool" else "process"
        cure = f', which has no submit(): write executor="{name}"'
    raise TypeError(
        'executor must be "thread", "process", "interpreter", "serial", an object with submit(), a Dask client, '
        "the module ray or a callable, "
        f"got {type(executor).__name__}: {executor!r}{cure}"
    )


def _interpreters() -> Callable[[int], Any]:
    """What makes interpreters: they are workers of an executor of the standard library.

    Raises:
        ValueError: This Python has none.
    """
    import concurrent.futures

    make: Any = getattr(concurrent.futures, "InterpreterPoolExecutor", None)
    if make is None:
        version = ".".join(map(str, sys.version_info[:2]))
        raise ValueError(f'executor="interpreter" needs Python 3.14 or later, not {version}; use "process"')

    def build(workers: int) -> Any:
        path = list(map(str, sys.path))  # an interpreter starts with that of a new program
        return make(workers, initializer=exec, initargs=(f"import sys; sys.path[:] = {path!r}",))

    return build


def _cluster(executor: Any) -> Opener | None:
    """A cluster's client, if it is one; whoever has one has imported its library."""
    loaded = sys.modules.get
    distributed, ray = loaded("distributed"), loaded("ray")
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
    def open_(job: Job, *, slices: bool) -> BasePool:
        return pool(job, client, slices=slices)

    return Opener(open_, lambda: workers() or _threads(), batches=True, ahead=4)


def _most(workers: Threads | Processes, default: Callable[[], int]) -> int:
    return workers.max_workers or default()


def _thread_pool(workers: Threads, job: Job, *, slices: bool) -> BasePool:
    return ThreadPool.of(job, workers, least=_threads(), slices=slices)


def _serial(job: Job, *, slices: bool) -> BasePool:
    from inturn._pools.serial import Serial

    return Serial(job)


def _borrowed(executor: Any, build: Callable[[int], Any] | None) -> Callable[..., BasePool]:
    def open_(job: Job, *, slices: bool) -> BasePool:
        from inturn._pools.executors import ExecutorPool

        return ExecutorPool(job, executor, build, slices=slices)

    return open_


def _processes(settings: Processes) -> Callable[..., BasePool]:
    """Check that processes can be had here; returns what makes the pool of a job.

    Raises:
        ValueError: The start method is unknown.
        RuntimeError: This process must not have children of its own.
        SystemExit: ``__main__`` is being imported by a worker, and starts a run: it has no guard.
    """
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
        from inturn._processes.pool import ProcessPool
    except (ImportError, AttributeError, ValueError) as error:  # Windows has neither poll nor fork
        raise RuntimeError(
            'executor="process" needs a POSIX system: pass a concurrent.futures.ProcessPoolExecutor instead'
        ) from error
    from inturn._processes.start import NO_GUARD

    if getattr(process, "_inheriting", False):
        raise SystemExit(NO_GUARD)

    def open_(job: Job, *, slices: bool) -> BasePool:
        return ProcessPool(job, settings, least=checks.cpus(), slices=slices)

    return open_


_FLAT: Final = '"thread", "process", "serial", Threads or Processes'


def open_flat_pool(executor: Any, timeout: object) -> Opener:
    """`open_pool` for `ordered_flat_map`, whose elements stream: through an executor of somebody's they cannot."""
    executor = _named(executor, timeout)
    if isinstance(executor, MakesPools):
        return executor.opener(flat=True)
    if isinstance(executor, Threads):
        return open_pool(executor, timeout)
    if isinstance(executor, Processes):
        opener = open_pool(executor, timeout)
        opener.open = _flat_processes(executor)
        return opener
    if isinstance(executor, str):
        if executor == "serial":
            return Opener(_flat_serial, _one, batches=False)
        raise ValueError(f"executor must be {_FLAT}, got {executor!r}")
    cure = ""
    if executor is sys.modules.get("ray") or _cluster(executor) is not None:
        cure = (
            "; a cluster returns results whole: have fn return a list, use ordered_map, "
            "and chain the lists with itertools.chain.from_iterable"
        )
    elif callable(executor) or hasattr(executor, "submit"):
        cure = "; an executor of yours returns results whole: collect lists with ordered_map"
    raise TypeError(f"executor must be {_FLAT}, got {type(executor).__name__}: {executor!r}{cure}")


def _flat_serial(job: Any, *, slices: bool) -> BasePool:
    from inturn._pools.serial import FlatSerial

    return FlatSerial(job)


def _flat_processes(settings: Processes) -> Callable[..., BasePool]:
    def open_(job: Job, *, slices: bool) -> BasePool:
        from inturn._processes.flat_pool import FlatProcessPool

        return FlatProcessPool(job, settings, least=checks.cpus())

    return open_
