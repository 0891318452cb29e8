"""From the arguments of a public function to its run, once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from inturn._base import checks
from inturn._core.origins import Origins
from inturn._core.source import Source
from inturn._model.handle import Handle
from inturn._model.progress import check_progress

if TYPE_CHECKING:
    from inturn._model.limit import Limiter

    from .executors import Opener

__all__ = ["async_run", "sync_run"]

H = TypeVar("H")


def _limiter_of(limit: object) -> Limiter | None:
    from inturn._model.limit import limiter_of  # here, so that `import inturn` stays light

    return limiter_of(limit)


def sync_run(
    handle: Callable[..., H],
    engine: Callable[..., Any],
    fn: object,
    sources: tuple[Any, ...],
    opener: Opener,
    *,
    function: str,
    live: bool,
    indexed: bool,
    strict: bool,
    slices: bool = False,
    **settings: Any,
) -> H:
    """The object that a synchronous function returns; `settings` are those of its engine."""
    for flag, value in (("live", live), ("indexed", indexed), ("strict", strict)):
        checks.flag(flag, value)
    run = _run_of(engine, fn, sources, opener, **settings)
    source = Source(checks.iterators(sources, strict=strict), run.window, run.job)
    run.chain(sources)
    if run.upstream:
        run.job.origins = Origins(run.upstream[0]._run, run.window)
    run.job.pool = opener.open(run.job, slices=slices)
    return handle(run, source, live=live, indexed=indexed, name=function)


def async_run(
    handle: Callable[..., H],
    engine: Callable[..., Any],
    fn: object,
    sources: tuple[Any, ...],
    opener: Opener,
    *,
    function: str,
    indexed: bool = False,
    strict: bool = False,
    slices: bool = False,
    **settings: Any,
) -> H:
    """The object that an asynchronous function returns; a task pulls if one of the sources is async."""
    from inturn._aio.pulled_in_thread import PulledInThread
    from inturn._aio.source import TaskFeeder

    for flag, value in (("indexed", indexed), ("strict", strict)):
        checks.flag(flag, value)
    run = _run_of(engine, fn, sources, opener, **settings)
    source: Source | TaskFeeder
    # A synchronous run would block the loop, since its `next` may wait: a thread pulls it.
    sources = tuple(PulledInThread(each, run.job) if _waits(each) else each for each in sources)
    if any(hasattr(type(each), "__aiter__") for each in sources):
        source = TaskFeeder(sources, run.job, strict=strict)
    else:
        source = Source(checks.iterators(sources, strict=strict), run.window, run.job)
    run.chain(tuple(each.run if isinstance(each, PulledInThread) else each for each in sources))
    for each in sources:
        if isinstance(each, PulledInThread) or issubclass(type(each), Handle):
            run.job.origins = Origins(each if isinstance(each, PulledInThread) else each._run, run.window)
            break
    run.job.pool = opener.open(run.job, slices=slices)
    return handle(run, source, indexed=indexed, name=function)


def _waits(source: Any) -> bool:
    """Whether it is a synchronous run whose ``next`` may take long: in virtual time (`inturn.testing`) none does."""
    if not issubclass(type(source), Handle) or hasattr(type(source), "__aiter__"):
        return False
    pools = [each._run.job.pool for each in source.stages]
    return not all(pool.inline and pool.ahead for pool in pools)


def _run_of(
    engine: Callable[..., Any],
    fn: object,
    sources: tuple[Any, ...],
    opener: Opener,
    *,
    concurrency: object,
    timeout: object,
    deadline: object = None,
    limit: object = None,
    progress: object = False,
    pass_failures: object = False,
    name: object = None,
    trace: object = False,
    **settings: Any,
) -> Any:
    check_progress(progress)
    checks.flag("trace", trace)
    return engine(
        fn,
        spread=len(sources) > 1,
        concurrency=checks.at_least_one("concurrency", concurrency) or opener.default_concurrency(),
        timeout=checks.seconds("timeout", timeout),
        deadline=checks.seconds("deadline", deadline),
        limit=None if limit is None else _limiter_of(limit),
        progress=progress,
        total=checks.total_of(sources),
        pass_failures=checks.flag("pass_failures", pass_failures),
        stage=checks.text("name", name),
        trace=trace,
        **settings,
    )
