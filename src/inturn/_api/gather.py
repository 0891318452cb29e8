"""`ordered_gather`: signatures and documentation; asyncio is imported only when it is called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Unpack, overload

from inturn._base import checks

from .executors import open_pool, open_tasks
from .runs import async_run, options_of

if TYPE_CHECKING:
    from inturn._model.limit import Limiter
    from inturn._model.outcome import Failure
    from inturn._model.policy import S

    from .arguments import A, B, ExecutorLike, Function, Function2, R, Source
    from .options import GatherKept, GatherPassing, GatherPlain

__all__ = ["ordered_gather"]


# fmt: off
@overload
async def ordered_gather(
    fn: Callable[[A], Awaitable[R]], a: Source[A], /, *,
    executor: None = ..., batch_size: int | None = ..., **options: Unpack[GatherPlain[S]]
) -> list[R | S]: ...
@overload
async def ordered_gather(
    fn: Callable[[A], Awaitable[R]], a: Source[A], /, *,
    executor: None = ..., batch_size: int | None = ..., **options: Unpack[GatherKept]
) -> list[R | Failure]: ...
@overload
async def ordered_gather(
    fn: Function2[A, B, Awaitable[R]], a: Source[A], b: Source[B], /, *more: Source[Any],
    executor: None = ..., batch_size: int | None = ..., **options: Unpack[GatherPlain[S]]
) -> list[R | S]: ...
@overload
async def ordered_gather(
    fn: Function2[A, B, Awaitable[R]], a: Source[A], b: Source[B], /, *more: Source[Any],
    executor: None = ..., batch_size: int | None = ..., **options: Unpack[GatherKept]
) -> list[R | Failure]: ...
@overload
async def ordered_gather(
    fn: Function[A, Awaitable[R]], a: Source[A | Failure], /, *more: Source[Any],
    executor: None = ..., batch_size: int | None = ..., **options: Unpack[GatherPassing[S]]
) -> list[R | S | Failure]: ...
@overload
async def ordered_gather(
    fn: Callable[[A], R], a: Source[A], /, *,
    executor: ExecutorLike, batch_size: int | None = ..., **options: Unpack[GatherPlain[S]]
) -> list[R | S]: ...
@overload
async def ordered_gather(
    fn: Function[A, R], a: Source[A], /, *more: Source[Any],
    executor: ExecutorLike, batch_size: int | None = ..., **options: Unpack[GatherKept]
) -> list[R | Failure]: ...
@overload
async def ordered_gather(
    fn: Function2[A, B, R], a: Source[A], b: Source[B], /, *more: Source[Any],
    executor: ExecutorLike, batch_size: int | None = ..., **options: Unpack[GatherPlain[S]]
) -> list[R | S]: ...
@overload
async def ordered_gather(
    fn: Function[A, R], a: Source[A | Failure], /, *more: Source[Any],
    executor: ExecutorLike, batch_size: int | None = ..., **options: Unpack[GatherPassing[S]]
) -> list[R | S | Failure]: ...
# fmt: on
async def ordered_gather(
    fn: Callable[..., Any],
    /,
    *items: Source[Any],
    concurrency: int | None = None,
    batch_size: int | None = None,
    executor: Any = None,
    on_error: Any = "raise",
    timeout: float | None = None,
    deadline: float | None = None,
    limit: float | Limiter | None = None,
    pass_failures: bool = False,
    name: str | None = None,
    progress: Any = False,
    **unknown: Any,
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
    once: nothing is started after it, and what runs is cancelled and awaited. (Calls in threads cannot be
    cancelled, and are not waited for then.)

    Args:
        fn: Called with one item, or with one item of each source; what it returns is awaited. With an ``executor``, a
            plain function.
        *items: Iterables and async iterables; several are zipped. All of it is held: for a stream use `ordered_amap`.
        concurrency: Calls that may run at once. None: 16.
        batch_size: Run the items in batches of so many, each finished before the next one is pulled and begins.
        executor: Where a plain ``fn`` runs, so that the loop goes on meanwhile: as for `ordered_map`.
        on_error: As for `ordered_amap`; what is skipped is not in the list. ``"raise"`` means ``"abort"`` here.
        timeout: Seconds that one call may run, as for `ordered_amap`.
        deadline: Seconds for all of it; then it raises ``TimeoutError``, and what runs is cancelled.
        limit, pass_failures, name, progress: As for `ordered_amap`.

    Raises:
        TypeError, ValueError: For arguments that cannot be meant.
        Exception: The first failure under ``"raise"``, with a note that names the item; an error of the source.
    """
    options = options_of(ordered_gather, locals())
    from inturn._aio.driver import OrderedAmap
    from inturn._aio.gather import GatherRun, gather

    options["batch_size"] = checks.at_least_one("batch_size", batch_size)
    instead = {
        checks.ASYNC_GENERATOR: "collect its elements with ordered_aflat_map, not ordered_gather",
        checks.GENERATOR: "collect its elements with ordered_flat_map, not ordered_gather",
    }
    if executor is not None:
        instead[checks.ASYNC] = "it runs in the event loop, so leave executor= out"
    opener = open_tasks(fn) if executor is None else open_pool(executor, timeout)
    checks.function(fn, instead)
    return await gather(async_run(OrderedAmap, GatherRun, "ordered_gather", fn, items, opener, **options))
