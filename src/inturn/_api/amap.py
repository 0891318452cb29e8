"""`ordered_amap`: signatures, documentation, and the way from arguments to a run; no logic.

asyncio is imported when one of them is called, so that ``import inturn`` stays light.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from inturn._base import checks
from inturn._model.outcome import Failure
from inturn._model.policy import Named, Retry, Skip
from inturn._model.progress import check_progress

from .executors import Opener, open_pool

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    from inturn._aio.driver import OrderedAmap
    from inturn._core.consumer import Run
    from inturn._model.stats import Stats

    from .executors import ExecutorLike

    class AsyncOptions(TypedDict, total=False):
        """What `ordered_amap` takes besides ``executor``, ``on_error`` and ``indexed``."""

        concurrency: int | None
        window: int | None
        timeout: float | None
        deadline: float | None
        strict: bool
        progress: bool | Callable[[Stats], object] | Any


__all__ = ["Source", "ordered_amap", "sixteen", "source_of", "take_places"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
Source = Iterable[T] | AsyncIterable[T]


@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]],
    a: Source[A],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R]: ...
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]],
    a: Source[A],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R]]: ...
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]],
    a: Source[A],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]],
    a: Source[A],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]],
    a: Source[A],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]],
    a: Source[A],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D, E], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    e: Source[E],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D, E], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    e: Source[E],
    /,
    *,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D, E], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    e: Source[E],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D, E], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    e: Source[E],
    /,
    *,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D, E], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    e: Source[E],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C, D, E], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    e: Source[E],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[..., R],
    /,
    *sources: Source[Any],
    executor: ExecutorLike,
    on_error: Named = ...,
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R]: ...
@overload
def ordered_amap(
    fn: Callable[..., R],
    /,
    *sources: Source[Any],
    executor: ExecutorLike,
    on_error: Named = ...,
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R]]: ...
@overload
def ordered_amap(
    fn: Callable[..., R],
    /,
    *sources: Source[Any],
    executor: ExecutorLike,
    on_error: Literal["return"],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[..., R],
    /,
    *sources: Source[Any],
    executor: ExecutorLike,
    on_error: Literal["return"],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[..., R],
    /,
    *sources: Source[Any],
    executor: ExecutorLike,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[False] = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[..., R],
    /,
    *sources: Source[Any],
    executor: ExecutorLike,
    on_error: Callable[[Failure], S | Skip | Retry],
    indexed: Literal[True],
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[..., Any],
    /,
    *sources: Source[Any],
    executor: Any = ...,
    on_error: Any = ...,
    indexed: bool = ...,
    **options: Unpack[AsyncOptions],
) -> OrderedAmap[Any]: ...
def ordered_amap(
    fn: Callable[..., Any],
    /,
    *sources: Source[Any],
    concurrency: int | None = None,
    window: int | None = None,
    executor: Any = None,
    on_error: Any = "raise",
    timeout: float | None = None,
    deadline: float | None = None,
    indexed: bool = False,
    strict: bool = False,
    progress: Any = False,
) -> OrderedAmap[Any]:
    """Run an async ``fn`` over items, several at once, and deliver the results in input order.

    >>> import asyncio
    >>> from inturn import ordered_amap
    >>> async def shout(word):
    ...     await asyncio.sleep(0.03 / len(word))  # the longer ones are ready first
    ...     return word.upper()
    >>> async def main():
    ...     async with ordered_amap(shout, ["a", "bb", "ccc"]) as results:
    ...         async for result in results:
    ...             print(result)
    >>> asyncio.run(main())
    A
    BB
    CCC

    The result is an async iterator and an async context manager. Arguments are checked at the call; nothing is pulled
    or started before the first ``anext``. At no moment are more than ``window`` items pulled and not yet delivered, so
    the source may be endless. A slow item holds up delivery, not work. While the consumer is busy with something that
    awaits, what has been pulled is run. Each call is a task of its own, in its own copy of the context.

    Whatever ends the run (``aclose``, leaving ``async with``, a cancellation of the consumer, an error, the
    deadline), every call that still runs is cancelled, and awaited with its cleanup, before control returns.

    Args:
        fn: Called with one item, or with one item of each source; what it returns is awaited. With an ``executor``, a
            plain function.
        *sources: Iterables and async iterables; several are zipped. If all are plain they are pulled inside
            ``anext``, a millisecond at a time, so one that blocks blocks the loop. Otherwise a task pulls them, and a
            ready result never waits for it.
        concurrency: Calls that may run at once. None: 16, with an ``executor`` what `ordered_map` does; never more
            than a known number of items.
        window: Items that may be pulled and not yet delivered. None: ``2 * concurrency``, for processes ``4 *
            concurrency``, growing up to 4096 while items take microseconds.
        executor: Where a plain ``fn`` runs, so that the loop goes on meanwhile: as for `ordered_map`.
        on_error: What takes the place of an item that failed: ``"raise"``, ``"skip"``, ``"return"`` (the `Failure`),
            `sentinel`, `retry`, or any function of a `Failure`. An item that ends cancelled, though not by the run,
            has failed.
        timeout: Seconds that one call may run; then it is cancelled and, when it has ended, or half a second later at
            most, its item fails with ``TimeoutError``, whatever the call makes of its cancellation.
        deadline: Seconds for the whole run, from the first ``anext``; then ``anext`` raises ``TimeoutError`` as soon
            as it would have to wait.
        indexed: Whether to deliver ``(index, result)``.
        strict: Whether sources of different length are an error, as in ``zip(strict=True)``.
        progress: True for a tqdm bar, an object with ``update(n)``, or a callable that is given `Stats`, at most ten
            times a second and once at the end.

    Returns:
        An async iterator with ``aclose()``, ``stats`` and the ``async with`` statement. Dropped unclosed it cancels
        its calls without awaiting them, and emits a ``ResourceWarning``.

    Raises:
        TypeError, ValueError: At the call, for arguments that cannot be meant.
        RuntimeError: From ``anext``, in another event loop than the first one, or while another task awaits it.
        Exception: From ``anext``, an error of ``fn`` in its item's turn, with a note that names the item; an error of
            the source in its turn.

    Cost: two to three microseconds per item for calls that return at once, three to four on Python 3.11.
    """
    from inturn._aio.driver import OrderedAmap
    from inturn._core.consumer import Run

    checks.function(fn)
    for name, value in (("indexed", indexed), ("strict", strict)):
        checks.flag(name, value)
    limit = checks.window_of(window, None)
    seconds = checks.seconds("timeout", timeout)
    check_progress(progress)
    opener = None if executor is None else open_pool(executor, seconds)
    if opener is not None and checks.async_function(fn):
        raise TypeError(f"fn is an async function, which runs in the event loop: leave executor= out for {fn!r}")
    run = Run(
        fn,
        spread=len(sources) > 1,
        concurrency=checks.concurrency_of(
            concurrency, sixteen if opener is None else opener.default_concurrency, checks.known_length(sources)
        ),
        window=limit,
        chunksize=None,
        batch=opener is None or opener.batches,
        ahead=2 if opener is None else opener.ahead,
        on_error=on_error,
        timeout=seconds,
        deadline=checks.seconds("deadline", deadline),
        progress=progress,
        total=checks.total_of(sources),
    )
    take_places(run, fn, opener)
    return OrderedAmap(run, source_of(sources, run, strict=strict), indexed=indexed, name="ordered_amap")


def sixteen() -> int:
    return 16


def take_places(run: Run, fn: Callable[..., Any], opener: Opener | None) -> None:
    """Give the run its pool: tasks, unless an executor was asked for."""
    from inturn._aio.tasks import TaskPool

    if opener is not None:
        run.job.pool = opener.open(run.job, boxes=True)
        return
    pool = TaskPool(run.job, known=checks.async_function(fn))
    run.job.pool, run.job.supervisor = pool, pool.pauses


def source_of(sources: tuple[Source[Any], ...], run: Run, *, strict: bool) -> Any:
    """What pulls: the consumer, or a task if one of the sources is async. Their iterators are taken here and now."""
    from inturn._aio.source import TaskFeeder, together
    from inturn._core.source import Source

    if any(hasattr(type(source), "__aiter__") for source in sources):
        return TaskFeeder(together(sources, strict=strict), run.window, run.job)
    return Source(checks.iterators(sources, strict=strict), run.window, run.job)  # type: ignore[arg-type]
