"""From the arguments of a public function to its run, once for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from inturn._base import checks
from inturn._core.origins import Origins
from inturn._core.source import Source
from inturn._model.handle import Handle
from inturn._model.progress import check_progress

from .executors import Opener

__all__ = ["async_run", "options_of", "sync_run"]

H = TypeVar("H")


def options_of(function: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The options of a call, but ``executor``, from the ``locals()`` of the public function; others are refused."""
    checks.no_others(function, arguments["unknown"])
    return {name: arguments[name] for name in function.__kwdefaults__ if name != "executor"}


def sync_run(
    handle: Callable[..., H],
    engine: Callable[..., Any],
    function: str,
    fn: object,
    sources: tuple[Any, ...],
    opener: Opener,
    *,
    live: bool = False,
    indexed: bool = False,
    strict: bool = False,
    **options: Any,
) -> H:
    """The object that a synchronous function returns."""
    for flag, value in (("live", live), ("indexed", indexed), ("strict", strict)):
        checks.flag(flag, value)
    run = _run_of(engine, fn, sources, opener, **options)
    source = Source(checks.iterators(sources, strict=strict), run.job)
    run.chain(sources)
    if run.upstream:
        run.job.origins = Origins(run.upstream[0]._run, run.window)
    run.job.pool = opener.open(run.job, slices=_slices(options))
    return handle(run, source, live=live, indexed=indexed, name=function)


def async_run(
    handle: Callable[..., H],
    engine: Callable[..., Any],
    function: str,
    fn: object,
    sources: tuple[Any, ...],
    opener: Opener,
    *,
    indexed: bool = False,
    strict: bool = False,
    **options: Any,
) -> H:
    """The object that an asynchronous function returns; a task pulls if one of the sources is async."""
    from inturn._aio.pulled_in_thread import PulledInThread
    from inturn._aio.source import TaskFeeder

    for flag, value in (("indexed", indexed), ("strict", strict)):
        checks.flag(flag, value)
    run = _run_of(engine, fn, sources, opener, **options)
    source: Source | TaskFeeder
    # A synchronous run would block the loop, since its `next` may wait: a thread pulls it.
    pulled: Any = tuple(PulledInThread(each, run.job) if _waits(each) else each for each in sources)
    if any(hasattr(type(each), "__aiter__") for each in pulled):
        source = TaskFeeder(pulled, run.job, strict=strict)
    else:
        source = Source(checks.iterators(pulled, strict=strict), run.job)
    run.chain(sources)
    earlier = next((each for each in pulled if issubclass(type(each), (PulledInThread, Handle))), None)
    if earlier is not None:
        run.job.origins = Origins(earlier if type(earlier) is PulledInThread else earlier._run, run.window)
    run.job.pool = opener.open(run.job, slices=_slices(options))
    return handle(run, source, indexed=indexed, name=function)


def _waits(source: Any) -> bool:
    """Whether it is a synchronous run whose ``next`` may take long: in virtual time (`inturn.testing`) none does."""
    if not issubclass(type(source), Handle) or hasattr(type(source), "__aiter__"):
        return False
    pools = [each._run.job.pool for each in source.stages]
    return not all(pool.inline and pool.ahead for pool in pools)


def _slices(options: dict[str, Any]) -> bool:
    """Whether a batch that takes long is divided: not what the user has put into a chunk, nor elements."""
    return options.get("chunksize") is None and "buffer" not in options


def _run_of(
    engine: Callable[..., Any],
    fn: object,
    sources: tuple[Any, ...],
    opener: Opener,
    *,
    concurrency: object = None,
    chunksize: object = None,
    timeout: object = None,
    deadline: object = None,
    limit: object = None,
    progress: object = False,
    pass_failures: object = False,
    name: object = None,
    trace: object = False,
    **options: Any,
) -> Any:
    check_progress(progress)
    size = checks.at_least_one("chunksize", chunksize)
    if limit is not None:
        from inturn._model.limit import limiter_of  # here, so that `import inturn` stays light

        if size is not None and size > 1:
            raise ValueError(f"chunksize must be 1 or None with limit, which starts items one by one, got {size}")
        limit = limiter_of(limit)
    if "window" in options:
        options["window"] = checks.window_of(options["window"], size)
    if "buffer" in options:
        options["buffer"] = checks.count("buffer", options["buffer"])
    else:
        options |= {"chunksize": size if opener.chunks else None, "batch": opener.batches, "ahead": opener.ahead}
    return engine(
        fn,
        spread=len(sources) > 1,
        concurrency=checks.at_least_one("concurrency", concurrency) or opener.default_concurrency(),
        timeout=checks.seconds("timeout", timeout),
        deadline=checks.seconds("deadline", deadline),
        limit=limit,
        progress=progress,
        total=checks.total_of(sources),
        pass_failures=checks.flag("pass_failures", pass_failures),
        stage=checks.text("name", name),
        trace=checks.flag("trace", trace),
        **options,
    )
