"""The public functions: signatures, documentation, and the way from arguments to a run; no logic."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from inturn._base import checks
from inturn._core.consumer import Run
from inturn._core.source import Source
from inturn._model.outcome import Failure
from inturn._model.policy import Named, Retry, Skip
from inturn._model.progress import check_progress
from inturn._sync.driver import OrderedMap

from .executors import open_pool

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    from inturn._model.stats import Stats

    from .executors import ExecutorLike

    class Options(TypedDict, total=False):
        """What `ordered_map` takes besides ``on_error`` and ``indexed``."""

        concurrency: int | None
        executor: ExecutorLike
        window: int | None
        chunksize: int | None
        timeout: float | None
        deadline: float | None
        live: bool
        strict: bool
        progress: bool | Callable[[Stats], object] | Any


__all__ = ["ordered_map"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")
S = TypeVar("S")


@overload
def ordered_map(
    fn: Callable[[A], R],
    a: Iterable[A],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R]: ...
@overload
def ordered_map(
    fn: Callable[[A], R],
    a: Iterable[A],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R]]: ...
@overload
def ordered_map(
    fn: Callable[[A], R],
    a: Iterable[A],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R | Failure]: ...
@overload
def ordered_map(
    fn: Callable[[A], R],
    a: Iterable[A],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R | Failure]]: ...
@overload
def ordered_map(
    fn: Callable[[A], R],
    a: Iterable[A],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R | S]: ...
@overload
def ordered_map(
    fn: Callable[[A], R],
    a: Iterable[A],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R | S]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B], R],
    a: Iterable[A],
    b: Iterable[B],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R]: ...
@overload
def ordered_map(
    fn: Callable[[A, B], R],
    a: Iterable[A],
    b: Iterable[B],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B], R],
    a: Iterable[A],
    b: Iterable[B],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R | Failure]: ...
@overload
def ordered_map(
    fn: Callable[[A, B], R],
    a: Iterable[A],
    b: Iterable[B],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R | Failure]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B], R],
    a: Iterable[A],
    b: Iterable[B],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R | S]: ...
@overload
def ordered_map(
    fn: Callable[[A, B], R],
    a: Iterable[A],
    b: Iterable[B],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R | S]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R | Failure]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R | Failure]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R | S]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R | S]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R | Failure]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R | Failure]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R | S]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R | S]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D, E], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    e: Iterable[E],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D, E], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    e: Iterable[E],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D, E], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    e: Iterable[E],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R | Failure]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D, E], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    e: Iterable[E],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R | Failure]]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D, E], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    e: Iterable[E],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[Options],
) -> OrderedMap[R | S]: ...
@overload
def ordered_map(
    fn: Callable[[A, B, C, D, E], R],
    a: Iterable[A],
    b: Iterable[B],
    c: Iterable[C],
    d: Iterable[D],
    e: Iterable[E],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[Options],
) -> OrderedMap[tuple[int, R | S]]: ...
@overload
def ordered_map(
    fn: Callable[..., Any],
    /,
    *iterables: Iterable[Any],
    on_error: Any = ...,
    indexed: bool = ...,
    **options: Unpack[Options],
) -> OrderedMap[Any]: ...
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
    live: bool = False,
    indexed: bool = False,
    strict: bool = False,
    progress: Any = False,
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
            ours, the CPUs available for processes, 1 for ``"serial"``; never more than a known number of items.
        executor: ``"thread"``, ``"process"``, ``"serial"`` (each call in the consumer's thread, when it is
            delivered: for debugging), `Threads`, `Processes`, any object with a ``submit`` that returns futures (it is
            never shut down), or a callable that is given a worker count and returns such an object (the library shuts
            it down).
        window: Items that may be pulled and not yet delivered. None: ``2 * concurrency`` (times an explicit
            chunksize), ``4 * concurrency`` for processes; growing up to 4096 while items take microseconds and are
            small.
        chunksize: Items that travel to a worker together. None: small items are batched by themselves,
            and no item waits longer than about 10 ms for its batch-mates.
        on_error: What takes the place of an item that failed: ``"raise"``, ``"skip"``, ``"return"`` (the `Failure`),
            `sentinel`, `retry`, or any function of a `Failure`.
        timeout: Seconds that one call may run, from when it starts; then it fails with ``TimeoutError``. A worker
            process is killed and replaced; a thread cannot be killed: its call is given up and another thread takes
            its place.
        deadline: Seconds for the whole run, from the first ``next``; then ``next`` raises ``TimeoutError`` as soon as
            it would have to wait.
        live: Whether a thread of its own pulls the source, so that a ready result never waits for it.
        indexed: Whether to deliver ``(index, result)``.
        strict: Whether sources of different length are an error, as in ``zip(strict=True)``.
        progress: True for a tqdm bar, an object with ``update(n)``, or a callable that is given `Stats`, at most ten
            times a second and once at the end.

    Returns:
        An iterator with ``close()``, ``stats`` and the ``with`` statement. Leaving the ``with`` block, ``close()``,
        or losing the last reference ends the run: what has not started never starts.

    Raises:
        TypeError, ValueError: At the call, for arguments that cannot be meant.
        Exception: From ``next``, an error of ``fn`` in its item's turn, with a note that names the item; an error of
            the source in its turn.

    Cost: about half a microsecond per item for tiny calls on threads, 5 to 10 for calls that each
    travel alone.
    """
    checks.function(fn)
    if checks.async_function(fn):
        raise TypeError(f"fn is an async function: use ordered_amap, not ordered_map, for {fn!r}")
    for name, value in (("live", live), ("indexed", indexed), ("strict", strict)):
        checks.flag(name, value)
    size = checks.at_least_one("chunksize", chunksize)
    limit = checks.window_of(window, size)
    seconds = checks.seconds("timeout", timeout)
    check_progress(progress)
    opener = open_pool(executor, seconds)
    source = checks.iterators(iterables, strict=strict)
    run = Run(
        fn,
        spread=len(iterables) > 1,
        concurrency=checks.concurrency_of(concurrency, opener.default_concurrency, checks.known_length(iterables)),
        window=limit,
        chunksize=size if opener.batches else None,  # one at a time anyway
        batch=opener.batches,
        ahead=opener.ahead,
        on_error=on_error,
        timeout=seconds,
        deadline=checks.seconds("deadline", deadline),
        progress=progress,
        total=checks.total_of(iterables),
    )
    run.job.pool = opener.open(run.job, boxes=size is None)
    return OrderedMap(run, Source(source, run.window, run.job), live=live, indexed=indexed, name="ordered_map")
