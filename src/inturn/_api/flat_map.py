"""`ordered_flat_map`: signatures and documentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Unpack, overload

from inturn._base import checks
from inturn._core.flat_consumer import FlatRun
from inturn._sync.flat import OrderedFlatMap

from .executors import open_pool
from .runs import options_of, sync_run

if TYPE_CHECKING:
    from inturn._model.limit import Limiter
    from inturn._model.outcome import Failure
    from inturn._model.policy import S

    from .arguments import A, B, FlatExecutorLike, Function, Function2, R
    from .options import Kept, KeptPairs, Pairs, Passing, PassingPairs, Plain

__all__ = ["ordered_flat_map"]


# fmt: off
@overload
def ordered_flat_map(
    fn: Callable[[A], Iterable[R]], a: Iterable[A], /, *,
    executor: FlatExecutorLike = ..., buffer: int = ..., live: bool = ..., **options: Unpack[Plain[S]]
) -> OrderedFlatMap[R | S]: ...
@overload
def ordered_flat_map(
    fn: Callable[[A], Iterable[R]], a: Iterable[A], /, *,
    executor: FlatExecutorLike = ..., buffer: int = ..., live: bool = ..., **options: Unpack[Kept]
) -> OrderedFlatMap[R | Failure]: ...
@overload
def ordered_flat_map(
    fn: Function2[A, B, Iterable[R]], a: Iterable[A], b: Iterable[B], /, *more: Iterable[Any],
    executor: FlatExecutorLike = ..., buffer: int = ..., live: bool = ..., **options: Unpack[Plain[S]]
) -> OrderedFlatMap[R | S]: ...
@overload
def ordered_flat_map(
    fn: Function2[A, B, Iterable[R]], a: Iterable[A], b: Iterable[B], /, *more: Iterable[Any],
    executor: FlatExecutorLike = ..., buffer: int = ..., live: bool = ..., **options: Unpack[Kept]
) -> OrderedFlatMap[R | Failure]: ...
@overload
def ordered_flat_map(
    fn: Function[A, Iterable[R]], a: Iterable[A], /, *more: Iterable[Any],
    executor: FlatExecutorLike = ..., buffer: int = ..., live: bool = ..., **options: Unpack[Pairs[S]]
) -> OrderedFlatMap[tuple[int, R | S]]: ...
@overload
def ordered_flat_map(
    fn: Function[A, Iterable[R]], a: Iterable[A], /, *more: Iterable[Any],
    executor: FlatExecutorLike = ..., buffer: int = ..., live: bool = ..., **options: Unpack[KeptPairs]
) -> OrderedFlatMap[tuple[int, R | Failure]]: ...
@overload
def ordered_flat_map(
    fn: Function[A, Iterable[R]], a: Iterable[A | Failure], /, *more: Iterable[Any],
    executor: FlatExecutorLike = ..., buffer: int = ..., live: bool = ..., **options: Unpack[Passing[S]]
) -> OrderedFlatMap[R | S | Failure]: ...
@overload
def ordered_flat_map(
    fn: Function[A, Iterable[R]], a: Iterable[A | Failure], /, *more: Iterable[Any],
    executor: FlatExecutorLike = ..., buffer: int = ..., live: bool = ..., **options: Unpack[PassingPairs[S]]
) -> OrderedFlatMap[tuple[int, R | S | Failure]]: ...
# fmt: on
def ordered_flat_map(
    fn: Callable[..., Any],
    /,
    *iterables: Iterable[Any],
    concurrency: int | None = None,
    executor: Any = "thread",
    window: int | None = None,
    buffer: int = 64,
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
) -> OrderedFlatMap[Any]:
    """Run ``fn``, which returns an iterable, over items in parallel; deliver all elements in order, the head's live.

    >>> from inturn import ordered_flat_map
    >>> def speak(sentence):
    ...     for word in sentence.split():
    ...         yield word.upper()
    >>> list(ordered_flat_map(speak, ["it was a", "bright cold day"], concurrency=2))
    ['IT', 'WAS', 'A', 'BRIGHT', 'COLD', 'DAY']

    What is delivered is what ``chain.from_iterable(map(fn, *iterables))`` delivers, but up to ``concurrency`` items
    produce at once. Elements of the head, the oldest item that is not at its end, are delivered as they are produced:
    the first one comes after the time of one element, not of one item. Later items produce ahead, each into a buffer
    of its own.

    Arguments are checked at the call; nothing is pulled or started before the first ``next``. At no moment are more
    than ``window`` items pulled and not delivered to their end, and never more than ``buffer`` elements of an item
    produced and not delivered; endless sources and endless generators are fine.

    Args:
        fn: Called with one item, or with one item of each iterable; usually a generator function. Any iterable will
            do; the steps of a generator run in one thread (or process) and in one copy of the consumer's context.
        *iterables: The sources; several are zipped, as by ``map``. The consumer's thread pulls them, in ``next``.
        concurrency: Items that may produce at once; one that waits for room in its buffer, or for its next attempt,
            counts. None: ``min(32, cpus + 4)`` on threads, the CPUs available for processes, 1 for ``"serial"``.
        executor: ``"thread"``, ``"process"``, ``"serial"`` (each element is produced in the consumer's thread, when
            it is delivered: for debugging), `Threads` or `Processes`.
        window: Items that may be pulled and not yet delivered to their end. None: ``2 * concurrency``.
        buffer: Elements of one item that may be produced and not yet delivered, at least 1. Then its producer waits.
        on_error: What takes the place of the rest of an item that failed: ``"raise"``, ``"skip"``, ``"return"`` (the
            `Failure`, whose ``delivered`` counts the elements that came before it), `sentinel`, `retry`, or any
            function of a `Failure`. An item runs again only if it has produced no element; else a `Retry` has the
            failure raised.
        timeout: Seconds that one item may spend producing, from when it starts; time spent waiting for room does not
            count. Elements it has produced are delivered before the ``TimeoutError``.
        indexed: Whether to deliver ``(index of the item, element)``.
        pass_failures: As for `ordered_map`; a `Failure` is delivered once.
        limit: Items that may start per second, further attempts included, or a `Limiter`, as for `ordered_map`.
        deadline, live, strict, name, progress, trace: As for `ordered_map`; what ``progress`` shows is counted in
            items.

    Returns:
        An iterator with ``close()``, ``stats`` (which counts items) and the ``with`` statement. Leaving the ``with``
        block, ``close()``, or losing the last reference ends the run: what has not started never starts, and
        generators are closed where they run (``finally`` blocks run); ``close()`` and ``with`` wait for that.

    Raises:
        TypeError, ValueError: At the call, for arguments that cannot be meant.
        TypeError: From ``next``, in its item's turn and through ``on_error``, if ``fn`` returns no iterable.
        Exception: From ``next``, an error of ``fn`` in its item's turn, after the elements it has produced, with a
            note that names the item; an error of the source in its turn.

    Cost: about a microsecond per element on threads, and some 20 more each time that the consumer has to wait for one.
    """
    options = options_of(ordered_flat_map, locals())
    instead = "use ordered_aflat_map, not ordered_flat_map"
    checks.function(fn, {checks.ASYNC: instead, checks.ASYNC_GENERATOR: instead})
    opener = open_pool(executor, timeout, flat=True)
    return sync_run(OrderedFlatMap, FlatRun, "ordered_flat_map", fn, iterables, opener, **options)
