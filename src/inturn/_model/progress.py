"""Showing progress: a callable, an object like a tqdm bar, or a tqdm bar of our own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from importlib import import_module
from typing import Any, Final

from inturn._base.atomic import Once
from inturn._base.clock import clock

from .shorten import shorten
from .stats import Stats

__all__ = ["Progress", "check_progress", "progress_of"]

_PERIOD_S: Final = 0.1  # at most ten times a second
LINES_S: Final = 10.0  # where each time is a line: the first after so many seconds, then at growing intervals
MOST_S: Final = 60.0


class Progress:
    """Tells somebody how far a run is.

    What has raised an ``Exception`` is not called again, but closed all the same.
    """

    def __init__(
        self,
        show: Callable[[Stats], object],
        close: Callable[[], object],
        *,
        first_s: float = 0.0,
        period_s: float = _PERIOD_S,
        most_s: float = _PERIOD_S,
    ) -> None:
        self._show = show
        self._close = close
        self._period_s = period_s  # it grows up to `_most_s`
        self._most_s = most_s
        self.due = clock() + first_s  # when it is time to tell again
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
        bar = self._bar
        postfix = getattr(bar, "postfix", None)
        if hasattr(bar, "set_postfix") and (not isinstance(postfix, str) or postfix in {"", self._postfix}):
            bar.set_postfix(_counts(stats), refresh=False)
            self._postfix = getattr(bar, "postfix", None)

    def refresh(self) -> None:
        refresh = getattr(self._bar, "refresh", None)
        if callable(refresh):
            refresh()


def _counts(stats: Stats) -> dict[str, int | str]:
    """What a bar shows besides: what is under way, and what is seldom."""
    counts: dict[str, int | str] = {"running": stats.running, "waiting": stats.waiting}
    counts |= {name: getattr(stats, name) for name in ("failed", "retried", "abandoned") if getattr(stats, name)}
    if stats.throttled:
        counts["throttled"] = f"{stats.throttled:.1f}s"
    return counts


class _Lines(_Bar):
    """A bar of ours whose output is no terminal: each time it is shown, it is a line of its own."""

    def __call__(self, stats: Stats) -> None:
        self._count(stats)
        self._bar.n = stats.delivered + stats.skipped
        self._bar.refresh()

    def close(self) -> None:
        self._bar.leave = False  # its last line is there
        self._bar.close()


class _LineWriter:
    """Writes what a bar would draw over what it has drawn before as lines."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            self._file.write(line + "\n")

    def flush(self) -> None:
        self._file.flush()


def _overwrites(file: Any) -> bool:
    """Whether a carriage return takes what follows to the begin of the line: in a terminal, and in notebooks."""
    try:
        return bool(file.isatty()) or type(file).__module__.startswith("ipykernel")
    except Exception:  # whatever stands in its place
        return False


def _own_bar(total: int | None, stage: str | None) -> Progress:
    """A bar of tqdm, drawn where errors are written."""
    from tqdm import auto

    notebook = any(each.__module__ == "tqdm.notebook" for each in auto.tqdm.__mro__)
    if notebook or _overwrites(sys.stderr):
        bar: Any = auto.tqdm(total=total, desc=stage, leave=None, dynamic_ncols=True)
        if notebook:  # its `close` does not know None: the bar would disappear in any case
            bar.leave = not bar.pos
        return Progress(_Bar(bar), bar.close)
    if sys.stderr is None:  # as in programs without a console
        return Progress(_ignore, _nothing)
    shape = None if total is None else "{l_bar}{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
    bar = auto.tqdm(total=total, desc=stage, file=_LineWriter(sys.stderr), bar_format=shape, position=0, delay=1e-9)
    lines = _Lines(bar)
    return Progress(lines, lines.close, first_s=LINES_S, period_s=LINES_S, most_s=MOST_S)


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
        shown = _Bar(given)
        return Progress(shown, shown.refresh)
    return Progress(given, _nothing)
