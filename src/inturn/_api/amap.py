"""`ordered_amap`: signatures and documentation; asyncio is imported only when it is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Unpack, overload

from inturn._base import checks
from inturn._core.consumer import Run

from .executors import open_pool, open_tasks
from .runs import async_run, options_of

if TYPE_CHECKING:
    from inturn._aio.driver import OrderedAmap
    from inturn._model.limit import Limiter
    from inturn._model.outcome import Failure
    from inturn._model.policy import S

    from .arguments import A, B, ExecutorLike, Function, Function2, R, Source
    from .options import Kept, KeptPairs, Pairs, Passing, PassingPairs, Plain

__all__ = ["ordered_amap"]


# fmt: off
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]], a: Source[A], /, *, executor: None = ..., **options: Unpack[Plain[S]]
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Callable[[A], Awaitable[R]], a: Source[A], /, *, executor: None = ..., **options: Unpack[Kept]
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Function2[A, B, Awaitable[R]], a: Source[A], b: Source[B], /, *more: Source[Any],
    executor: None = ..., **options: Unpack[Plain[S]]
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Function2[A, B, Awaitable[R]], a: Source[A], b: Source[B], /, *more: Source[Any],
    executor: None = ..., **options: Unpack[Kept]
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Function[A, Awaitable[R]], a: Source[A], /, *more: Source[Any],
    executor: None = ..., **options: Unpack[Pairs[S]]
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Function[A, Awaitable[R]], a: Source[A], /, *more: Source[Any],
    executor: None = ..., **options: Unpack[KeptPairs]
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Function[A, Awaitable[R]], a: Source[A | Failure], /, *more: Source[Any],
    executor: None = ..., **options: Unpack[Passing[S]]
) -> OrderedAmap[R | S | Failure]: ...
@overload
def ordered_amap(
    fn: Function[A, Awaitable[R]], a: Source[A | Failure], /, *more: Source[Any],
    executor: None = ..., **options: Unpack[PassingPairs[S]]
) -> OrderedAmap[tuple[int, R | S | Failure]]: ...
@overload
def ordered_amap(
    fn: Callable[[A], R], a: Source[A], /, *, executor: ExecutorLike, **options: Unpack[Plain[S]]
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Function[A, R], a: Source[A], /, *more: Source[Any], executor: ExecutorLike, **options: Unpack[Kept]
) -> OrderedAmap[R | Failure]: ...
@overload
def ordered_amap(
    fn: Function2[A, B, R], a: Source[A], b: Source[B], /, *more: Source[Any],
    executor: ExecutorLike, **options: Unpack[Plain[S]]
) -> OrderedAmap[R | S]: ...
@overload
def ordered_amap(
    fn: Function[A, R], a: Source[A], /, *more: Source[Any], executor: ExecutorLike, **options: Unpack[Pairs[S]]
) -> OrderedAmap[tuple[int, R | S]]: ...
@overload
def ordered_amap(
    fn: Function[A, R], a: Source[A], /, *more: Source[Any], executor: ExecutorLike, **options: Unpack[KeptPairs]
) -> OrderedAmap[tuple[int, R | Failure]]: ...
@overload
def ordered_amap(
    fn: Function[A, R], a: Source[A | Failure], /, *more: Source[Any],
    executor: ExecutorLike, **options: Unpack[Passing[S]]
) -> OrderedAmap[R | S | Failure]: ...
@overload
def ordered_amap(
    fn: Function[A, R], a: Source[A | Failure], /, *more: Source[Any],
    executor: ExecutorLike, **options: Unpack[PassingPairs[S]]
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
        executor: Where a plain ``fn`` runs, so that the loop goes on meanwhile: as for `ordered_map`.
        on_error: As for `ordered_map`. An item that ends cancelled, though not by the run, has failed.
        timeout: Seconds that one call may run; then it is cancelled and, when it has ended, or half a second later at
            most, its item fails with ``TimeoutError``, whatever the call makes of its cancellation.
        window, deadline, limit, indexed, strict, pass_failures, name, progress, trace: As for `ordered_map`, with
            ``anext`` in the place of ``next``.

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
    options = options_of(ordered_amap, locals())
    from inturn._aio.driver import OrderedAmap

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
    return async_run(OrderedAmap, Run, "ordered_amap", fn, sources, opener, **options)
