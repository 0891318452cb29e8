"""`ordered_map`: signatures and documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Unpack, overload

from inturn._base import checks
from inturn._core.consumer import Run
from inturn._sync.driver import OrderedMap

from .executors import open_pool
from .runs import options_of, sync_run

if TYPE_CHECKING:
    from inturn._model.limit import Limiter
    from inturn._model.outcome import Failure
    from inturn._model.policy import S

    from .arguments import A, B, ExecutorLike, Function, Function2, R
    from .options import Kept, KeptPairs, Pairs, Passing, PassingPairs, Plain

__all__ = ["ordered_map"]


# fmt: off
@overload
def ordered_map(
    fn: Callable[[A], R], a: Iterable[A], /, *,
    executor: ExecutorLike = ..., chunksize: int | None = ..., live: bool = ..., **options: Unpack[Plain[S]]
) -> OrderedMap[R | S]: ...
@overload
def ordered_map(
    fn: Callable[[A], R], a: Iterable[A], /, *,
    executor: ExecutorLike = ..., chunksize: int | None = ..., live: bool = ..., **options: Unpack[Kept]
) -> OrderedMap[R | Failure]: ...
@overload
def ordered_map(
    fn: Function2[A, B, R], a: Iterable[A], b: Iterable[B], /, *more: Iterable[Any],
    executor: ExecutorLike = ..., chunksize: int | None = ..., live: bool = ..., **options: Unpack[Plain[S]]
) -> OrderedMap[R | S]: ...
@overload
def ordered_map(
    fn: Function2[A, B, R], a: Iterable[A], b: Iterable[B], /, *more: Iterable[Any],
    executor: ExecutorLike = ..., chunksize: int | None = ..., live: bool = ..., **options: Unpack[Kept]
) -> OrderedMap[R | Failure]: ...
@overload
def ordered_map(
    fn: Function[A, R], a: Iterable[A], /, *more: Iterable[Any],
    executor: ExecutorLike = ..., chunksize: int | None = ..., live: bool = ..., **options: Unpack[Pairs[S]]
) -> OrderedMap[tuple[int, R | S]]: ...
@overload
def ordered_map(
    fn: Function[A, R], a: Iterable[A], /, *more: Iterable[Any],
    executor: ExecutorLike = ..., chunksize: int | None = ..., live: bool = ..., **options: Unpack[KeptPairs]
) -> OrderedMap[tuple[int, R | Failure]]: ...
@overload
def ordered_map(
    fn: Function[A, R], a: Iterable[A | Failure], /, *more: Iterable[Any],
    executor: ExecutorLike = ..., chunksize: int | None = ..., live: bool = ..., **options: Unpack[Passing[S]]
) -> OrderedMap[R | S | Failure]: ...
@overload
def ordered_map(
    fn: Function[A, R], a: Iterable[A | Failure], /, *more: Iterable[Any],
    executor: ExecutorLike = ..., chunksize: int | None = ..., live: bool = ..., **options: Unpack[PassingPairs[S]]
) -> OrderedMap[tuple[int, R | S | Failure]]: ...
# fmt: on
def ordered_map(
    fn: Callable[..., Any],
    /,
    *iterables: Iterable[Any],
    concurrency: int | None = None,
    executor: Any = "thread",
    window: int | None = None,
    chunksize: int | None = None,
    on_error: Any = "raise",
    timeout: float | None = None,
    deadline: float | None = None,
    limit: float | Limiter | None = None,
    live: bool = False,
    indexed: bool = False,
    strict: bool = False,
    pass_failures: bool = False,
    name: str | None = None,
    progress: Any = False,
    trace: bool = False,
    **unknown: Any,
) -> OrderedMap[Any]:
    """Run ``fn`` over items in parallel and deliver the results in input order.

    >>> from inturn import ordered_map
    >>> list(ordered_map(pow, [2, 3, 10], [5, 2, 3]))
    [32, 9, 1000]

    The result is an iterator and a context manager. Arguments are checked at the call; nothing is pulled or started
    before the first ``next``. At no moment are more than ``window`` items pulled and not yet delivered, so the source
    may be endless. A slow item holds up delivery, not work. While the consumer is busy, what has been pulled is run.

    Args:
        fn: Called with one item, or with one item of each iterable.
        *iterables: The sources; several are zipped, as ``map`` does. They are pulled in the consumer's thread,
            inside ``next``. A ready result never waits for more than one pull.
        concurrency: Calls that may run at once. None: ``min(32, cpus + 4)`` on threads and on executors that are not
            ours, the CPUs available for processes and interpreters, those of the cluster for a cluster, 1 for
            ``"serial"``.
        executor: ``"thread"``, ``"process"``, ``"interpreter"`` (subinterpreters, from Python 3.14 on), ``"serial"``
            (each call in the consumer's thread, when it is delivered: for debugging), `Threads`, `Processes`, a Dask
            client, the module ``ray``, any object with a ``submit`` that returns futures (it is never shut down), or a
            callable that is given a worker count and returns such an object (the library shuts it down).
        window: Items that may be pulled and not yet delivered. None: ``2 * concurrency`` (times an explicit
            chunksize), ``4 * concurrency`` for processes; growing up to 4096 while items take microseconds (processes:
            less than 2 ms) and are small.
        chunksize: Items that travel to a worker together. None: small items are batched by themselves,
            and no item waits longer than about 10 ms for its batch-mates.
        on_error: What takes the place of an item that failed: ``"raise"``, ``"abort"`` (the first failure in time ends
            the run at once), ``"skip"``, ``"return"`` (the `Failure`), `sentinel`, `retry`, or any function of the
            `Failure`.
        timeout: Seconds that one call may run, from when it starts; then it fails with ``TimeoutError``. A worker
            process is killed and replaced; a thread cannot be killed: its call is given up and another thread takes
            its place.
        deadline: Seconds for the whole run, from the first ``next``; then ``next`` raises ``TimeoutError`` as soon as
            it would have to wait.
        limit: Calls that may start per second, further attempts included, or a `Limiter`, which several runs may
            share. What waits for it occupies no worker.
        live: Whether a thread of its own pulls the source, so that a ready result never waits for it.
        indexed: Whether to deliver ``(index, result)``.
        strict: Whether sources of different length are an error, as in ``zip(strict=True)``.
        pass_failures: Whether an item that is a `Failure`, delivered by an earlier stage with ``on_error="return"``,
            goes through in its place, untouched: it is not given to ``fn``, and does not count as failed here. With
            several sources, an item goes through if one of its arguments is a `Failure`: the first one is delivered.
        name: What this stage is called, in ``repr``, in the names of its threads and processes, on its bar, in the
            notes of errors, and in `Failure.stage`.
        progress: True for a tqdm bar, an object with ``update(n)``, or a callable that is given `Stats`, at most ten
            times a second and once at the end.
        trace: Whether to note when each item was pulled, started, finished and delivered, and by which worker:
            ``run.trace``, which saves the timeline or draws it.

    Returns:
        An iterator with ``close()``, ``stats`` and the ``with`` statement. Leaving the ``with`` block, ``close()``,
        or losing the last reference ends the run: what has not started never starts.

    Raises:
        TypeError, ValueError: At the call, for arguments that cannot be meant.
        Exception: From ``next``, an error of ``fn`` in its item's turn, with a note that names the item; an error of
            the source in its turn.

    Cost: about half a microsecond per item for tiny calls on threads, 5 to 10 for calls that each travel alone.
    """
    options = options_of(ordered_map, locals())
    instead = {
        checks.ASYNC: "use ordered_amap, not ordered_map",
        checks.ASYNC_GENERATOR: "use ordered_aflat_map, not ordered_map",
        checks.GENERATOR: "use ordered_flat_map, not ordered_map, to have its elements delivered",
    }
    checks.function(fn, instead)
    return sync_run(OrderedMap, Run, "ordered_map", fn, iterables, open_pool(executor, timeout), **options)
