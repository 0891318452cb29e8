"""Showing progress: a callable, an object like a tqdm bar, or a tqdm bar of our own."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from time import perf_counter as clock
from typing import Any, Final

from .stats import Stats

__all__ = ["Progress", "check_progress", "progress_of"]

_PERIOD_S: Final = 0.1  # at most ten times a second


class Progress:
    """Tells somebody how far a run is. All methods are called by the consumer."""

    def __init__(self, show: Callable[[Stats], None], close: Callable[[], None]) -> None:
        self._show = show
        self._close = close
        self._next = 0.0
        self._over = False

    def tick(self, stats: Callable[[], Stats]) -> None:
        now = clock()
        if now >= self._next and not self._over:
            self._next = now + _PERIOD_S
            self._show(stats())

    def end(self, stats: Callable[[], Stats]) -> None:
        """The last word; once."""
        if not self._over:
            self._over = True
            try:
                self._show(stats())
            finally:
                self._close()


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._shown = 0

    def __call__(self, stats: Stats) -> None:
        done = stats.delivered + stats.skipped
        counts = {"running": stats.running, "waiting": stats.waiting}
        counts |= {name: getattr(stats, name) for name in ("failed", "retried", "abandoned") if getattr(stats, name)}
        if hasattr(self._bar, "set_postfix"):
            self._bar.set_postfix(counts, refresh=False)
        self._bar.update(done - self._shown)
        self._shown = done


def _nothing() -> None:
    pass


def check_progress(given: object) -> None:
    """Refuse, at the call, what `progress_of` could not show."""
    if given is True:
        try:
            import_module("tqdm.auto")
        except ImportError as error:
            raise ImportError("progress=True needs tqdm: pip install 'inturn[progress]'") from error
    elif given is not False and not hasattr(given, "update") and not callable(given):
        raise TypeError(
            f"progress must be a bool, a callable or an object with update(n), got {type(given).__name__}: {given!r}"
        )


def progress_of(given: Any, total: int | None) -> Progress | None:
    """What a ``progress`` argument stands for."""
    if given is False:
        return None
    if given is True:
        from tqdm.auto import tqdm

        bar = tqdm(total=total)
        return Progress(_Bar(bar), bar.close)
    if hasattr(given, "update"):
        return Progress(_Bar(given), getattr(given, "refresh", _nothing))
    return Progress(given, _nothing)
