"""`ordered_gather`: signatures, documentation, and the way from arguments to a run; no logic.

asyncio is imported when it is called, so that ``import inturn`` stays light.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from inturn._base import checks
from inturn._model.outcome import Failure
from inturn._model.policy import Named, Retry, Skip

from .amap import Source, sixteen, source_of, take_places

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    class GatherOptions(TypedDict, total=False):
        """What `ordered_gather` takes besides ``on_error``."""

        concurrency: int | None
        batch_size: int | None
        timeout: float | None


__all__ = ["ordered_gather"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")
S = TypeVar("S")


@overload
async def ordered_gather(
    fn: Callable[[A], Awaitable[R]], a: Source[A], /, *, on_error: Named = ..., **options: Unpack[GatherOptions]
) -> list[R]: ...
@overload
async def ordered_gather(
    fn: Callable[[A], Awaitable[R]], a: Source[A], /, *, on_error: Literal["return"], **options: Unpack[GatherOptions]
) -> list[R | Failure]: ...
@overload
async def ordered_gather(
    fn: Callable[[A], Awaitable[R]],
    a: Source[A],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    **options: Unpack[GatherOptions],
) -> list[R | S]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Named = ...,
    **options: Unpack[GatherOptions],
) -> list[R]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[GatherOptions],
) -> list[R | Failure]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    **options: Unpack[GatherOptions],
) -> list[R | S]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B, C], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    /,
    *,
    on_error: Named = ...,
    **options: Unpack[GatherOptions],
) -> list[R]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B, C], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[GatherOptions],
) -> list[R | Failure]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B, C], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    **options: Unpack[GatherOptions],
) -> list[R | S]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B, C, D], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    /,
    *,
    on_error: Named = ...,
    **options: Unpack[GatherOptions],
) -> list[R]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B, C, D], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[GatherOptions],
) -> list[R | Failure]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B, C, D], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    **options: Unpack[GatherOptions],
) -> list[R | S]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B, C, D, E], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    e: Source[E],
    /,
    *,
    on_error: Named = ...,
    **options: Unpack[GatherOptions],
) -> list[R]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B, C, D, E], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    e: Source[E],
    /,
    *,
    on_error: Literal["return"],
    **options: Unpack[GatherOptions],
) -> list[R | Failure]: ...
@overload
async def ordered_gather(
    fn: Callable[[A, B, C, D, E], Awaitable[R]],
    a: Source[A],
    b: Source[B],
    c: Source[C],
    d: Source[D],
    e: Source[E],
    /,
    *,
    on_error: Callable[[Failure], S | Skip | Retry],
    **options: Unpack[GatherOptions],
) -> list[R | S]: ...
@overload
async def ordered_gather(
    fn: Callable[..., Awaitable[Any]], /, *items: Source[Any], on_error: Any = ..., **options: Unpack[GatherOptions]
) -> list[Any]: ...
async def ordered_gather(
    fn: Callable[..., Any],
    /,
    *items: Source[Any],
    concurrency: int | None = None,
    batch_size: int | None = None,
    on_error: Any = "raise",
    timeout: float | None = None,
) -> list[Any]:
    """Await ``fn`` of every item, at most ``concurrency`` at once, and return the list of results in input order.

    >>> import asyncio, inturn
    >>> async def invert(x):
    ...     return 1 / x
    >>> asyncio.run(inturn.ordered_gather(invert, [1, 2, 4], concurrency=2))
    [1.0, 0.5, 0.25]
    >>> report = inturn.Report(asyncio.run(inturn.ordered_gather(invert, [1, 0, 4], on_error="return")))
    >>> report.successful, len(report.failed)
    ([1.0, 0.25], 1)

    It is ``asyncio.gather`` with a semaphore, except that under ``"raise"`` the first failure in time is raised at
    once: nothing is started after it, and what runs is cancelled and awaited.

    Args:
        fn: Called with one item, or with one item of each source; what it returns is awaited.
        *items: Iterables and async iterables; several are zipped. All of it is held: for a stream use `ordered_amap`.
        concurrency: Calls that may run at once. None: 16.
        batch_size: Run the items in batches of so many, each finished before the next one is pulled and begins.
        on_error: As for `ordered_amap`; what is skipped is not in the list.
        timeout: Seconds that one call may run, as for `ordered_amap`.

    Raises:
        TypeError, ValueError: For arguments that cannot be meant.
        Exception: The first failure under ``"raise"``, with a note that names the item; an error of the source.
    """
    from inturn._aio.driver import OrderedAmap
    from inturn._aio.gather import GatherRun, gather

    checks.function(fn)
    run = GatherRun(
        fn,
        spread=len(items) > 1,
        concurrency=checks.concurrency_of(concurrency, sixteen, checks.known_length(items)),
        batch_size=checks.at_least_one("batch_size", batch_size),
        chunksize=None,
        batch=True,
        on_error=on_error,
        timeout=checks.seconds("timeout", timeout),
        deadline=None,
        progress=False,
        total=checks.total_of(items),
    )
    take_places(run, fn, None)
    return await gather(OrderedAmap(run, source_of(items, run, strict=False), indexed=False, name="ordered_gather"))
