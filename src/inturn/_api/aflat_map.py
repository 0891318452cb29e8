"""`ordered_aflat_map`: signatures and documentation.

asyncio is imported when it is called, so that ``import inturn`` stays light.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from inturn._base import checks

from .executors import open_flat_pool, open_lane_tasks
from .runs import async_run

if TYPE_CHECKING:
    from typing import Unpack

    from inturn._aio.flat import OrderedAflatMap
    from inturn._model.limit import Limiter
    from inturn._model.outcome import Failure
    from inturn._model.policy import S

    from .options import (
        FlatElsewhereKept,
        FlatElsewhereKeptPairs,
        FlatElsewherePairs,
        FlatElsewherePassing,
        FlatElsewherePassingPairs,
        FlatElsewherePlain,
        FlatTaskKept,
        FlatTaskKeptPairs,
        FlatTaskPairs,
        FlatTaskPassing,
        FlatTaskPassingPairs,
        FlatTaskPlain,
        Source,
    )

__all__ = ["ordered_aflat_map"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
R = TypeVar("R")


# fmt: off
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], /, **options: Unpack[FlatTaskPlain[S]]
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], /, **options: Unpack[FlatTaskPairs[S]]
) -> OrderedAflatMap[tuple[int, R | S]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], /, **options: Unpack[FlatTaskKept]
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], /, **options: Unpack[FlatTaskKeptPairs]
) -> OrderedAflatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], b: Source[B], /,
    **options: Unpack[FlatTaskPlain[S]]
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], b: Source[B], /,
    **options: Unpack[FlatTaskPairs[S]]
) -> OrderedAflatMap[tuple[int, R | S]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], b: Source[B], /,
    **options: Unpack[FlatTaskKept]
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], b: Source[B], /,
    **options: Unpack[FlatTaskKeptPairs]
) -> OrderedAflatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B, C], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], b: Source[B], c: Source[C], /,
    **options: Unpack[FlatTaskPlain[S]]
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B, C], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], b: Source[B], c: Source[C], /,
    **options: Unpack[FlatTaskPairs[S]]
) -> OrderedAflatMap[tuple[int, R | S]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B, C], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], b: Source[B], c: Source[C], /,
    **options: Unpack[FlatTaskKept]
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A, B, C], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], b: Source[B], c: Source[C], /,
    **options: Unpack[FlatTaskKeptPairs]
) -> OrderedAflatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., AsyncIterable[R] | Awaitable[Source[R]]], a: Source[Any], b: Source[Any], c: Source[Any],
    d: Source[Any], /, *more: Source[Any], **options: Unpack[FlatTaskPlain[S]]
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., AsyncIterable[R] | Awaitable[Source[R]]], a: Source[Any], b: Source[Any], c: Source[Any],
    d: Source[Any], /, *more: Source[Any], **options: Unpack[FlatTaskPairs[S]]
) -> OrderedAflatMap[tuple[int, R | S]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., AsyncIterable[R] | Awaitable[Source[R]]], a: Source[Any], b: Source[Any], c: Source[Any],
    d: Source[Any], /, *more: Source[Any], **options: Unpack[FlatTaskKept]
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., AsyncIterable[R] | Awaitable[Source[R]]], a: Source[Any], b: Source[Any], c: Source[Any],
    d: Source[Any], /, *more: Source[Any], **options: Unpack[FlatTaskKeptPairs]
) -> OrderedAflatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], Iterable[R]], a: Source[A], /, **options: Unpack[FlatElsewherePlain[S]]
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], Iterable[R]], a: Source[A], /, **options: Unpack[FlatElsewherePairs[S]]
) -> OrderedAflatMap[tuple[int, R | S]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], Iterable[R]], a: Source[A], /, **options: Unpack[FlatElsewhereKept]
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], Iterable[R]], a: Source[A], /, **options: Unpack[FlatElsewhereKeptPairs]
) -> OrderedAflatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[FlatElsewherePlain[S]]
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[FlatElsewherePairs[S]]
) -> OrderedAflatMap[tuple[int, R | S]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[FlatElsewhereKept]
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[FlatElsewhereKeptPairs]
) -> OrderedAflatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A | Failure], /,
    **options: Unpack[FlatTaskPassing[S]]
) -> OrderedAflatMap[R | S | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., AsyncIterable[R] | Awaitable[Source[R]]], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[FlatTaskPassing[S]]
) -> OrderedAflatMap[R | S | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A | Failure], /,
    **options: Unpack[FlatTaskPassingPairs[S]]
) -> OrderedAflatMap[tuple[int, R | S | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., AsyncIterable[R] | Awaitable[Source[R]]], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[FlatTaskPassingPairs[S]]
) -> OrderedAflatMap[tuple[int, R | S | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], Iterable[R]], a: Source[A | Failure], /, **options: Unpack[FlatElsewherePassing[S]]
) -> OrderedAflatMap[R | S | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[FlatElsewherePassing[S]]
) -> OrderedAflatMap[R | S | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], Iterable[R]], a: Source[A | Failure], /, **options: Unpack[FlatElsewherePassingPairs[S]]
) -> OrderedAflatMap[tuple[int, R | S | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[..., Iterable[R]], a: Source[Any], b: Source[Any], /, *more: Source[Any],
    **options: Unpack[FlatElsewherePassingPairs[S]]
) -> OrderedAflatMap[tuple[int, R | S | Failure]]: ...
# fmt: on
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
    limit: float | Limiter | None = None,
    indexed: bool = False,
    strict: bool = False,
    pass_failures: bool = False,
    name: str | None = None,
    progress: Any = False,
    trace: bool = False,
    **unknown: Any,
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
            counts. None: 16, with an ``executor`` what `ordered_flat_map` does.
        executor: Where a plain ``fn`` runs, so that the loop goes on meanwhile: as for `ordered_flat_map`.
        timeout: Seconds that one item may spend producing; time spent waiting for room does not count. Then its
            generator is cancelled, and it fails with ``TimeoutError`` after the elements it has produced.
        window, buffer, on_error, deadline, limit, indexed, strict, pass_failures, name, progress, trace: As for
            `ordered_flat_map`, with ``anext`` in the place of ``next``.

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
    checks.no_others(ordered_aflat_map, unknown)
    from inturn._aio.events import LoopEvent
    from inturn._aio.flat import OrderedAflatMap
    from inturn._core.flat_consumer import FlatRun

    settings: dict[str, Any] = {}
    instead: dict[str, str] = {}
    if executor is None:
        opener = open_lane_tasks()
        settings["event"] = LoopEvent
    else:
        cure = "it runs in the event loop, so leave executor= out"
        instead = {checks.ASYNC: cure, checks.ASYNC_GENERATOR: cure}
        opener = open_flat_pool(executor, timeout)
    checks.function(fn, instead)
    return async_run(
        OrderedAflatMap,
        FlatRun,
        fn,
        sources,
        opener,
        function="ordered_aflat_map",
        indexed=indexed,
        strict=strict,
        concurrency=concurrency,
        window=checks.window_of(window, None),
        buffer=checks.count("buffer", buffer),
        on_error=on_error,
        timeout=timeout,
        deadline=deadline,
        pass_failures=pass_failures,
        name=name,
        limit=limit,
        progress=progress,
        trace=trace,
        **settings,
    )
