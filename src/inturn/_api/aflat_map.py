"""`ordered_aflat_map`: its signature, its documentation, and the way from arguments to a run; no logic.

asyncio is imported when it is called, so that ``import inturn`` stays light.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from inturn._base import checks
from inturn._model.outcome import Failure
from inturn._model.policy import Named, Retry, Skip
from inturn._model.progress import check_progress

from .amap import sixteen, source_of
from .executors import open_flat_pool

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    from inturn._aio.flat import OrderedAflatMap
    from inturn._model.stats import Stats

    from .executors import FlatExecutorLike

    class AsyncFlatOptions(TypedDict, total=False):
        """What `ordered_aflat_map` takes besides ``executor``, ``on_error`` and ``indexed``."""

        concurrency: int | None
        window: int | None
        buffer: int
        timeout: float | None
        deadline: float | None
        strict: bool
        progress: bool | Callable[[Stats], object] | Any


__all__ = ["ordered_aflat_map"]

A = TypeVar("A")
B = TypeVar("B")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
Source = Iterable[T] | AsyncIterable[T]


@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R]],
    a: Source[A],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[R]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R]],
    a: Source[A],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[tuple[int, R]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R]],
    a: Source[A],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R]],
    a: Source[A],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R]],
    a: Source[A],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R]],
    a: Source[A],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[tuple[int, R | S]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B], AsyncIterable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[R]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B], AsyncIterable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[tuple[int, R]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B], AsyncIterable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B], AsyncIterable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B], AsyncIterable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B], AsyncIterable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[tuple[int, R | S]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]],
    /,
    *sources: Source[Any],
    executor: FlatExecutorLike,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[R]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]],
    /,
    *sources: Source[Any],
    executor: FlatExecutorLike,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[tuple[int, R]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]],
    /,
    *sources: Source[Any],
    executor: FlatExecutorLike,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]],
    /,
    *sources: Source[Any],
    executor: FlatExecutorLike,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]],
    /,
    *sources: Source[Any],
    executor: FlatExecutorLike,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]],
    /,
    *sources: Source[Any],
    executor: FlatExecutorLike,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[tuple[int, R | S]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Any],
    /,
    *sources: Source[Any],
    executor: Any = ...,
    on_error: Any = ...,
    indexed: bool = ...,
    **options: Unpack[AsyncFlatOptions],
) -> OrderedAflatMap[Any]: ...
def ordered_aflat_map(
    fn: Callable[..., Any],
    /,
    *sources: Source[Any],
    concurrency: int | None = None,
    window: int | None = None,
    buffer: int = 64,
    executor: Any = None,
    on_error: Any = "raise",
    timeout: float | None = None,
    deadline: float | None = None,
    indexed: bool = False,
    strict: bool = False,
    progress: Any = False,
) -> OrderedAflatMap[Any]:
    """Run an async generator function over items, several at once; deliver all elements in input order, the head's
    live.

    >>> import asyncio
    >>> from inturn import ordered_aflat_map
    >>> async def speak(sentence):
    ...     for word in sentence.split():
    ...         await asyncio.sleep(0.001)
    ...         yield word.upper()
    >>> async def main():
    ...     async with ordered_aflat_map(speak, ["it was a", "bright cold day"], concurrency=2) as words:
    ...         return [word async for word in words]
    >>> asyncio.run(main())
    ['IT', 'WAS', 'A', 'BRIGHT', 'COLD', 'DAY']

    The async sibling of `ordered_flat_map`: up to ``concurrency`` items produce at once, each in a task and in a
    copy of the context of its own. Elements of the head, the oldest item that is not at its end, are delivered as
    they are produced; later items produce ahead, each into a buffer of its own.

    Arguments are checked at the call; nothing is pulled or started before the first ``anext``. At no moment are more
    than ``window`` items pulled and not delivered to their end, and never more than ``buffer`` elements of an item
    produced and not delivered; endless sources and endless generators are fine.

    Whatever ends the run (``aclose``, leaving ``async with``, a cancellation of the consumer, an error, the
    deadline), every generator is closed, and its cleanup awaited, before control returns.

    Args:
        fn: Called with one item, or with one item of each source; usually an async generator function. Any callable
            will do that returns an async iterable, or something to await that gives an iterable of either kind. With
            an ``executor``, a plain function that returns an iterable, such as a generator function.
        *sources: Iterables and async iterables; several are zipped. If all are plain they are pulled inside
            ``anext``; otherwise a task pulls them, and a ready element never waits for it.
        concurrency: Items that may produce at once; one that waits for room in its buffer, or for its next attempt,
            counts. None: 16, with an ``executor`` what `ordered_flat_map` does; never more than a known number of
            items.
        window: Items that may be pulled and not yet delivered to their end. None: ``2 * concurrency``.
        buffer: Elements of one item that may be produced and not yet delivered, at least 1. Then its producer waits.
        executor: Where a plain ``fn`` runs, so that the loop goes on meanwhile: as for `ordered_flat_map`.
        on_error: What takes the place of the rest of an item that failed: ``"raise"``, ``"skip"``, ``"return"`` (the
            `Failure`), `sentinel`, `retry`, or any function of a `Failure`. An item runs again only if it has
            produced no element; else a `Retry` has the failure raised.
        timeout: Seconds that one item may spend producing; time spent waiting for room does not count. Then its
            generator is cancelled, and it fails with ``TimeoutError`` after the elements it has produced.
        deadline: Seconds for the whole run, from the first ``anext``; then ``anext`` raises ``TimeoutError`` as soon
            as it would have to wait.
        indexed: Whether to deliver ``(index of the item, element)``.
        strict: Whether sources of different length are an error, as in ``zip(strict=True)``.
        progress: True for a tqdm bar, an object with ``update(n)``, or a callable that is given `Stats`, at most ten
            times a second and once at the end. It counts items.

    Returns:
        An async iterator with ``aclose()``, ``stats`` and the ``async with`` statement. Dropped unclosed it cancels
        its generators without awaiting them, and emits a ``ResourceWarning``.

    Raises:
        TypeError, ValueError: At the call, for arguments that cannot be meant.
        TypeError: From ``anext``, if ``fn`` returns something that is no async iterable.
        RuntimeError: From ``anext``, in another event loop than the first one, or while another task awaits it.
        Exception: From ``anext``, an error of ``fn`` in its item's turn, after the elements it has produced, with a
            note that names the item; an error of the source in its turn.

    Cost: about two microseconds per element, and some 20 more each time that the consumer has to wait for one.
    """
    from inturn._aio.flat import OrderedAflatMap
    from inturn._aio.flat_tasks import LaneTaskPool, new_bell
    from inturn._core.flat_consumer import FlatRun

    checks.function(fn)
    for name, value in (("indexed", indexed), ("strict", strict)):
        checks.flag(name, value)
    size = checks.buffer_of(buffer)
    limit = checks.window_of(window, None)
    seconds = checks.seconds("timeout", timeout)
    check_progress(progress)
    opener = None if executor is None else open_flat_pool(executor, seconds)
    if opener is not None and (checks.async_function(fn) or checks.async_generator_function(fn)):
        raise TypeError(f"fn is an async function, which runs in the event loop: leave executor= out for {fn!r}")
    bell = {} if opener is not None else {"bell": new_bell}
    run = FlatRun(
        fn,
        buffer=size,
        **bell,
        spread=len(sources) > 1,
        concurrency=checks.concurrency_of(
            concurrency, sixteen if opener is None else opener.default_concurrency, checks.known_length(sources)
        ),
        window=limit,
        on_error=on_error,
        timeout=seconds,
        deadline=checks.seconds("deadline", deadline),
        progress=progress,
        total=checks.total_of(sources),
    )
    if opener is not None:
        run.job.pool = opener.open(run.job, boxes=False)
    else:
        pool = LaneTaskPool(run.job, known=False)
        run.job.pool, run.job.supervisor = pool, pool.pauses
    return OrderedAflatMap(run, source_of(sources, run, strict=strict), indexed=indexed, name="ordered_aflat_map")
