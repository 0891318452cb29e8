"""Showing progress: a callable, an object like a tqdm bar, or a tqdm bar of our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from importlib import import_module
from time import perf_counter as clock
from typing import Any, Final

from inturn._base.atomic import Once

from .shorten import shorten
from .stats import Stats

__all__ = ["Progress", "check_progress", "progress_of"]

_PERIOD_S: Final = 0.1  # at most ten times a second


class Progress:
    """Tells somebody how far a run is.

    What has raised an ``Exception`` is not called again, but closed all the same.
    """

    def __init__(self, show: Callable[[Stats], object], close: Callable[[], object]) -> None:
        self._show = show
        self._close = close
        self.due = 0.0  # when it is time to tell again
        self._last = Once()

    def tick(self, stats: Callable[[], Stats]) -> None:
        """Tell how far the run is; by the consumer, when it is time."""
        if not self._last.taken():
            self.due = clock() + _PERIOD_S
            self._call(stats())

    def end(self, stats: Callable[[], Stats]) -> None:
        """Tell how far the run came, once, and close; by the consumer, or by any one thread if there is none left."""
        if self._last.take():
            try:
                self._call(stats())
            finally:
                try:
                    self._close()
                except (StopIteration, StopAsyncIteration) as error:
                    raise _translated(error) from error

    def _call(self, stats: Stats) -> None:
        try:
            self._show(stats)
        except Exception as error:
            self._show = _ignore
            if isinstance(error, (StopIteration, StopAsyncIteration)):
                raise _translated(error) from error
            raise


def _translated(error: BaseException) -> RuntimeError:
    """As in a generator: it must not end the loop of the consumer."""
    return RuntimeError(f"progress raised {type(error).__name__}")


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._shown = 0

    def __call__(self, stats: Stats) -> None:
        done = stats.delivered + stats.skipped
        counts: dict[str, int | str] = {"running": stats.running, "waiting": stats.waiting}
        counts |= {name: getattr(stats, name) for name in ("failed", "retried", "abandoned") if getattr(stats, name)}
        if stats.throttled:
            counts["throttled"] = f"{stats.throttled:.1f}s"
        if hasattr(self._bar, "set_postfix"):
            self._bar.set_postfix(counts, refresh=False)
        self._bar.update(done - self._shown)
        self._shown = done

    def refresh(self) -> None:
        refresh = getattr(self._bar, "refresh", None)
        if callable(refresh):
            refresh()


def _ignore(stats: Stats) -> None:
    pass


def _nothing() -> None:
    pass


def _is_bar(given: object) -> bool:
    """Whether it is to be updated, and not called.

    Of what can be called too, only the type is asked: a mock has an ``update`` if one asks for it.
    """
    asked = type(given) if callable(given) else given
    return callable(getattr(asked, "update", None)) and not isinstance(given, (Mapping, AbstractSet))


def check_progress(given: object) -> None:
    """Refuse, at the call, what `progress_of` could not show."""
    if given is True:
        try:
            import_module("tqdm.auto")
        except ImportError as error:
            raise ImportError("progress=True needs tqdm: pip install 'inturn[progress]'") from error
    elif isinstance(given, type):
        raise TypeError(
            f"progress must not be a class, got {given.__name__}: "
            f"write progress=True for a bar of tqdm, or pass an object, such as progress={given.__name__}(...)"
        )
    elif given is not False and not _is_bar(given) and not callable(given):
        raise TypeError(
            "progress must be a bool, a callable that takes the Stats, or an object with update(n), such as a bar of "
            f"tqdm; got {type(given).__name__}: {shorten(given)}"
        )


def progress_of(given: Any, total: int | None, stage: str | None) -> Progress | None:
    """What a ``progress`` argument stands for; a bar of our own shows the name of the stage."""
    if given is False:
        return None
    if given is True:
        from tqdm.auto import tqdm

        bar = tqdm(total=total, desc=stage)
        return Progress(_Bar(bar), bar.close)
    if _is_bar(given):
        shown = _Bar(given)
        return Progress(shown, shown.refresh)
    return Progress(given, _nothing)
