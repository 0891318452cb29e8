"""`ordered_aflat_map`: signatures and documentation; asyncio is imported only when it is called."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Unpack, overload

from inturn._base import checks
from inturn._core.flat_consumer import FlatRun

from .executors import open_pool, open_tasks
from .runs import async_run, options_of

if TYPE_CHECKING:
    from inturn._aio.flat import OrderedAflatMap
    from inturn._model.limit import Limiter
    from inturn._model.outcome import Failure
    from inturn._model.policy import S

    from .arguments import A, B, FlatExecutorLike, Function, Function2, R, Source
    from .options import Kept, KeptPairs, Pairs, Passing, PassingPairs, Plain

__all__ = ["ordered_aflat_map"]


# fmt: off
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], /, *,
    executor: None = ..., buffer: int = ..., **options: Unpack[Plain[S]]
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], /, *,
    executor: None = ..., buffer: int = ..., **options: Unpack[Kept]
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Function2[A, B, AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], b: Source[B], /, *more: Source[Any],
    executor: None = ..., buffer: int = ..., **options: Unpack[Plain[S]]
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Function2[A, B, AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], b: Source[B], /, *more: Source[Any],
    executor: None = ..., buffer: int = ..., **options: Unpack[Kept]
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Function[A, AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], /, *more: Source[Any],
    executor: None = ..., buffer: int = ..., **options: Unpack[Pairs[S]]
) -> OrderedAflatMap[tuple[int, R | S]]: ...
@overload
def ordered_aflat_map(
    fn: Function[A, AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A], /, *more: Source[Any],
    executor: None = ..., buffer: int = ..., **options: Unpack[KeptPairs]
) -> OrderedAflatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Function[A, AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A | Failure], /, *more: Source[Any],
    executor: None = ..., buffer: int = ..., **options: Unpack[Passing[S]]
) -> OrderedAflatMap[R | S | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Function[A, AsyncIterable[R] | Awaitable[Source[R]]], a: Source[A | Failure], /, *more: Source[Any],
    executor: None = ..., buffer: int = ..., **options: Unpack[PassingPairs[S]]
) -> OrderedAflatMap[tuple[int, R | S | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Callable[[A], Iterable[R]], a: Source[A], /, *,
    executor: FlatExecutorLike, buffer: int = ..., **options: Unpack[Plain[S]]
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Function[A, Iterable[R]], a: Source[A], /, *more: Source[Any],
    executor: FlatExecutorLike, buffer: int = ..., **options: Unpack[Kept]
) -> OrderedAflatMap[R | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Function2[A, B, Iterable[R]], a: Source[A], b: Source[B], /, *more: Source[Any],
    executor: FlatExecutorLike, buffer: int = ..., **options: Unpack[Plain[S]]
) -> OrderedAflatMap[R | S]: ...
@overload
def ordered_aflat_map(
    fn: Function[A, Iterable[R]], a: Source[A], /, *more: Source[Any],
    executor: FlatExecutorLike, buffer: int = ..., **options: Unpack[Pairs[S]]
) -> OrderedAflatMap[tuple[int, R | S]]: ...
@overload
def ordered_aflat_map(
    fn: Function[A, Iterable[R]], a: Source[A], /, *more: Source[Any],
    executor: FlatExecutorLike, buffer: int = ..., **options: Unpack[KeptPairs]
) -> OrderedAflatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_aflat_map(
    fn: Function[A, Iterable[R]], a: Source[A | Failure], /, *more: Source[Any],
    executor: FlatExecutorLike, buffer: int = ..., **options: Unpack[Passing[S]]
) -> OrderedAflatMap[R | S | Failure]: ...
@overload
def ordered_aflat_map(
    fn: Function[A, Iterable[R]], a: Source[A | Failure], /, *more: Source[Any],
    executor: FlatExecutorLike, buffer: int = ..., **options: Unpack[PassingPairs[S]]
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
    """Run an async generator function over items, several at once; deliver all elements in order, the head's live.

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

    The async sibling of `ordered_flat_map`, with its order and its bounds: up to ``concurrency`` items produce at
    once, each in a task and in a copy of the context of its own. Arguments are checked at the call; nothing is pulled
    or started before the first ``anext``.

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
    options = options_of(ordered_aflat_map, locals())
    from inturn._aio.events import LoopEvent
    from inturn._aio.flat import OrderedAflatMap

    instead: dict[str, str] = {}
    if executor is None:
        opener = open_tasks(fn, flat=True)
        options["event"] = LoopEvent
    else:
        cure = "it runs in the event loop, so leave executor= out"
        instead = {checks.ASYNC: cure, checks.ASYNC_GENERATOR: cure}
        opener = open_pool(executor, timeout, flat=True)
    checks.function(fn, instead)
    return async_run(OrderedAflatMap, FlatRun, "ordered_aflat_map", fn, sources, opener, **options)
