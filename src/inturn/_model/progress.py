"""Showing progress: a callable, an object like a tqdm bar, or a tqdm bar of our own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from importlib import import_module
from io import StringIO
from typing import Any, Final

from inturn._base.atomic import Once
from inturn._base.clock import clock

from .shorten import shorten
from .stats import Stats

__all__ = ["Progress", "check_progress", "progress_of"]

_PERIOD_S: Final = 0.1  # at most ten times a second
LINES_S: Final = 10.0  # where each time is a line: the first after so many seconds, then at growing intervals
MOST_S: Final = 60.0  # that do not exceed this


class Progress:
    """Tells somebody how far a run is. What has raised an ``Exception`` is not called again, but closed."""

    def __init__(self, show: Callable[[Stats], object], close: Callable[[], object], *, lines: bool = False) -> None:
        self._show = show
        self._close = close
        self._period_s, self._most_s = (LINES_S, MOST_S) if lines else (_PERIOD_S, _PERIOD_S)
        self.due = clock() + (LINES_S if lines else 0.0)  # when it is time to tell again
        self._last = Once()

    def tick(self, stats: Callable[[], Stats]) -> None:
        """Tell how far the run is; by the consumer, when it is time."""
        if not self._last.taken():
            self.due = clock() + self._period_s
            self._period_s = min(self._most_s, self._period_s * 1.5)
            self._call(stats())

    def end(self, stats: Callable[[], Stats]) -> None:
        """Tell how far the run came, once, and close; by the consumer, or by any one thread if there is none left."""
        if self._last.take():
            try:
                self._call(stats())
            finally:
                _run(self._close)

    def _call(self, stats: Stats) -> None:
        try:
            _run(self._show, stats)
        except Exception:
            self._show = _ignore
            raise


def _run(function: Callable[..., object], *arguments: object) -> None:
    try:
        function(*arguments)
    except (StopIteration, StopAsyncIteration) as error:  # as in a generator: it must not end the consumer's loop
        raise RuntimeError(f"progress raised {type(error).__name__}") from error


class _Bar:
    """A bar that is updated; the counts that matter are its postfix, unless it has one of its own."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._shown = 0
        self._postfix: Any = None

    def __call__(self, stats: Stats) -> None:
        self._count(stats)
        done = stats.delivered + stats.skipped
        self._bar.update(done - self._shown)
        self._shown = done

    def _count(self, stats: Stats) -> None:
        """Show what is under way, and what is seldom."""
        bar = self._bar
        postfix = getattr(bar, "postfix", None)
        if hasattr(bar, "set_postfix") and (not isinstance(postfix, str) or postfix in {"", self._postfix}):
            counts: dict[str, int | str] = {"running": stats.running, "waiting": stats.waiting}
            counts |= {name: value for name in ("failed", "retried", "abandoned") if (value := getattr(stats, name))}
            if stats.throttled:
                counts["throttled"] = f"{stats.throttled:.1f}s"
            bar.set_postfix(counts, refresh=False)
            self._postfix = getattr(bar, "postfix", None)


class _Lines(_Bar):
    """A bar of ours whose output is no terminal: each time it is shown, it is a line of its own."""

    def __init__(self, bar: Any, file: Any) -> None:
        super().__init__(bar)
        self._file = file

    def __call__(self, stats: Stats) -> None:
        self._count(stats)
        self._bar.n = stats.delivered + stats.skipped
        try:
            self._file.write(f"{str(self._bar).strip()}\n")  # in one piece, as other threads may write, too
            self._file.flush()
        except ValueError:
            if not getattr(self._file, "closed", False):  # else nobody reads it any more: as tqdm does
                raise


def _overwrites(file: Any) -> bool:
    """Whether a carriage return takes what follows to the begin of the line: in a terminal, and in notebooks."""
    try:
        return bool(file.isatty()) or type(file).__module__.startswith("ipykernel")
    except Exception:  # whatever stands in its place
        return False


def _own_bar(total: int | None, stage: str | None) -> Progress | None:
    """A bar of tqdm, drawn where errors are written; None if it would be nowhere."""
    from tqdm import auto

    notebook = any(each.__module__ == "tqdm.notebook" for each in auto.tqdm.__mro__)
    if notebook or _overwrites(sys.stderr):
        bar: Any = auto.tqdm(total=total, desc=stage, leave=None, dynamic_ncols=True)
        if notebook:  # its `close` does not know None: the bar would disappear in any case
            bar.leave = not bar.pos
        return Progress(_Bar(bar), bar.close)
    if sys.stderr is None:  # as in programs without a console
        return None
    shape = None if total is None else "{l_bar}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
    bar = auto.tqdm(total=total, desc=stage, file=StringIO(), bar_format=shape, position=0)  # draws nothing itself
    if bar.disable:  # by `TQDM_DISABLE`
        return None
    return Progress(_Lines(bar, sys.stderr), bar.close, lines=True)


def _ignore(*arguments: object) -> None:
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
            absent = isinstance(error, ModuleNotFoundError) and error.name == "tqdm"
            message = "progress=True needs tqdm: pip install 'inturn[progress]'"
            raise ImportError(message) from (None if absent else error)
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
        return _own_bar(total, stage)
    if _is_bar(given):
        refresh = getattr(given, "refresh", None)
        return Progress(_Bar(given), refresh if callable(refresh) else _ignore)
    return Progress(given, _ignore)
