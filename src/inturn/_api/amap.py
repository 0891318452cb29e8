"""`ordered_amap`: signatures and documentation.

asyncio is imported when it is called, so that ``import inturn`` stays light.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from inturn._base import checks

from .executors import open_pool, open_tasks
from .runs import async_run

if TYPE_CHECKING:
    from typing import Unpack

    from inturn._aio.driver import OrderedAmap
    from inturn._model.limit import Limiter
    from inturn._model.outcome import Failure
    from inturn._model.policy import S

    from .options import (
        ElsewhereKept,
        ElsewhereKeptPairs,
        ElsewherePairs,
        ElsewherePassing,
        ElsewherePassingPairs,
        ElsewherePlain,
        Source,
        TaskKept,
        TaskKeptPairs,
        TaskPairs,
        TaskPassing,
        TaskPassingPairs,
        TaskPlain,
    )

__all__ = ["ordered_amap"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
R = TypeVar("R")


# fmt: off
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]], a: Source[A], /, **options: Unpack[TaskPlain[S]]
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]], a: Source[A], /, **options: Unpack[TaskPairs[S]]
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]], a: Source[A], /, **options: Unpack[TaskKept]
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]], a: Source[A], /, **options: Unpack[TaskKeptPairs]
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B], Awaitable[R]], a: Source[A], b: Source[B], /, **options: Unpack[TaskPlain[S]]
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B], Awaitable[R]], a: Source[A], b: Source[B], /, **options: Unpack[TaskPairs[S]]
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B], Awaitable[R]], a: Source[A], b: Source[B], /, **options: Unpack[TaskKept]
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B], Awaitable[R]], a: Source[A], b: Source[B], /, **options: Unpack[TaskKeptPairs]
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C], Awaitable[R]], a: Source[A], b: Source[B], c: Source[C], /, **options: Unpack[TaskPlain[S]]
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C], Awaitable[R]], a: Source[A], b: Source[B], c: Source[C], /, **options: Unpack[TaskPairs[S]]
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C], Awaitable[R]], a: Source[A], b: Source[B], c: Source[C], /, **options: Unpack[TaskKept]
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[[A, B, C], Awaitable[R]], a: Source[A], b: Source[B], c: Source[C], /, **options: Unpack[TaskKeptPairs]
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[..., Awaitable[R]], a: Source[Any], b: Source[Any], c: Source[Any], d: Source[Any], /,
    *more: Source[Any], **options: Unpack[TaskPlain[S]]
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[..., Awaitable[R]], a: Source[Any], b: Source[Any], c: Source[Any], d: Source[Any], /,
    *more: Source[Any], **options: Unpack[TaskPairs[S]]
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[..., Awaitable[R]], a: Source[Any], b: Source[Any], c: Source[Any], d: Source[Any], /,
    *more: Source[Any], **options: Unpack[TaskKept]
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[..., Awaitable[R]], a: Source[Any], b: Source[Any], c: Source[Any], d: Source[Any], /,
    *more: Source[Any], **options: Unpack[TaskKeptPairs]
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(fn: Callable[[A], R], a: Source[A], /, **options: Unpack[ElsewherePlain[S]]) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[[A], R], a: Source[A], /, **options: Unpack[ElsewherePairs[S]]
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[[A], R], a: Source[A], /, **options: Unpack[ElsewhereKept]
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[[A], R], a: Source[A], /, **options: Unpack[ElsewhereKeptPairs]
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[..., R], a: Source[Any], b: Source[Any], /, *more: Source[Any], **options: Unpack[ElsewherePlain[S]]
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[..., R], a: Source[Any], b: Source[Any], /, *more: Source[Any], **options: Unpack[ElsewherePairs[S]]
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Callable[..., R], a: Source[Any], b: Source[Any], /, *more: Source[Any], **options: Unpack[ElsewhereKept]
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[..., R], a: Source[Any], b: Source[Any], /, *more: Source[Any], **options: Unpack[ElsewhereKeptPairs]
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]], a: Source[A | Failure], /, **options: Unpack[TaskPassing[S]]
) -> OrderedAmap[R | S | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[..., Awaitable[R]], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[TaskPassing[S]]
) -> OrderedAmap[R | S | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]], a: Source[A | Failure], /, **options: Unpack[TaskPassingPairs[S]]
) -> OrderedAmap[tuple[int, R | S | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[..., Awaitable[R]], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[TaskPassingPairs[S]]
) -> OrderedAmap[tuple[int, R | S | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[[A], R], a: Source[A | Failure], /, **options: Unpack[ElsewherePassing[S]]
) -> OrderedAmap[R | S | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[..., R], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[ElsewherePassing[S]]
) -> OrderedAmap[R | S | Failure]: ...
@overload
def ordered_amap(
    fn: Callable[[A], R], a: Source[A | Failure], /, **options: Unpack[ElsewherePassingPairs[S]]
) -> OrderedAmap[tuple[int, R | S | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[..., R], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[ElsewherePassingPairs[S]]
) -> OrderedAmap[tuple[int, R | S | Failure]]: ...
# fmt: on
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
    limit: float | Limiter | None = None,
    indexed: bool = False,
    strict: bool = False,
    pass_failures: bool = False,
    name: str | None = None,
    progress: Any = False,
    trace: bool = False,
    **unknown: Any,
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
        concurrency: Calls that may run at once. None: 16, with an ``executor`` what `ordered_map` does.
        window: Items that may be pulled and not yet delivered. None: ``2 * concurrency``, for processes ``8 *
            concurrency``, growing up to 4096 while items take microseconds.
        executor: Where a plain ``fn`` runs, so that the loop goes on meanwhile: as for `ordered_map`.
        on_error: What takes the place of an item that failed: ``"raise"``, ``"abort"`` (the first failure in time ends
            the run at once), ``"skip"``, ``"return"`` (the `Failure`), `sentinel`, `retry`, or any function of the
            `Failure`. An item that ends cancelled, though not by the run,
            has failed.
        timeout: Seconds that one call may run; then it is cancelled and, when it has ended, or half a second later at
            most, its item fails with ``TimeoutError``, whatever the call makes of its cancellation.
        deadline, limit, indexed, strict, pass_failures, name, progress, trace: As for `ordered_map`, with ``anext`` in
            the place of ``next``.

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
    checks.no_others(ordered_amap, unknown)
    from inturn._aio.driver import OrderedAmap
    from inturn._core.consumer import Run

    if executor is None:
        instead = {
            checks.ASYNC_GENERATOR: "use ordered_aflat_map, not ordered_amap",
            checks.GENERATOR: 'use ordered_aflat_map, not ordered_amap, with executor="thread" or "process"',
        }
        opener = open_tasks(fn)
    else:
        instead = {
            checks.ASYNC: "it runs in the event loop, so leave executor= out",
            checks.ASYNC_GENERATOR: "use ordered_aflat_map, not ordered_amap, and leave executor= out",
            checks.GENERATOR: "use ordered_aflat_map, not ordered_amap, to have its elements delivered",
        }
        opener = open_pool(executor, timeout)
    checks.function(fn, instead)
    return async_run(
        OrderedAmap,
        Run,
        fn,
        sources,
        opener,
        function="ordered_amap",
        indexed=indexed,
        strict=strict,
        slices=True,
        concurrency=concurrency,
        window=checks.window_of(window, None),
        chunksize=None,
        batch=opener.batches,
        ahead=opener.ahead,
        on_error=on_error,
        timeout=timeout,
        deadline=deadline,
        pass_failures=pass_failures,
        name=name,
        limit=limit,
        progress=progress,
        trace=trace,
    )
