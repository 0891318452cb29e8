"""The outcome of a batch, item by item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from .handle import Handle
from .outcome import Failure
from .shorten import one_line, shorten

__all__ = ["Report"]

R_co = TypeVar("R_co", covariant=True)


class Report(Generic[R_co]):
    """Successes and failures of a run that delivers failures as values.

    >>> import inturn
    >>> report = inturn.Report(inturn.ordered_map(lambda x: 1 / x, [1, 0, 2], on_error="return"))
    >>> report.successful, [failure.index for failure in report.failed], report.ok
    ([1.0, 0.5], [1], False)
    >>> print(report)
    2 of 3 successful (66.7 %), 1 failed:
      item 1: 0: ZeroDivisionError: division by zero

    After several stages it tells of each what was lost there, by its ``name``:

    >>> read = inturn.ordered_map(int, ["4", "x", "0"], on_error="return", name="read")
    >>> inverted = inturn.ordered_map(lambda x: 1 / x, read, on_error="return", pass_failures=True, name="invert")
    >>> print(inturn.Report(inverted))
    1 of 3 successful (33.3 %), 2 failed (read 1, invert 1):
      item 1 in read: 'x': ValueError: invalid literal for int() with base 10: 'x'
      item 2 in invert: 0: ZeroDivisionError: division by zero

    Args:
        results: A run with ``on_error="return"`` (with ``indexed=True`` too), or an iterable of what one has
            delivered, such as the list of `ordered_gather`. It is read to its end, and all of it is kept. An iterable
            of pairs without a failure is kept as pairs.
    """

    def __init__(self, results: Iterable[R_co | Failure | tuple[int, R_co | Failure]]) -> None:
        if hasattr(type(results), "__aiter__"):
            raise TypeError(
                f"results must be iterable, got {type(results).__name__}, which is async: "
                "write Report([result async for result in run])"
            )
        everything: list[Any] = list(results)
        # A list does not say whether its pairs are (index, result): that shows in a failure among them.
        indexed = results.indexed if isinstance(results, Handle) else any(map(_is_failed_pair, everything))
        if indexed:
            everything = [pair[1] for pair in everything]
        self.successful: list[R_co] = [each for each in everything if not isinstance(each, Failure)]
        """The results, in order."""
        self.failed: list[Failure] = [each for each in everything if isinstance(each, Failure)]
        """The failures, in order."""

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def by_stage(self) -> dict[str | None, int]:
        """How many items failed in each stage, by its ``name`` (None: it has none), in the order of their first."""
        return dict(Counter(failure.stage for failure in self.failed))

    @property
    def success_rate(self) -> float:
        """The share of successes, from 0 to 1; 1.0 for an empty run."""
        total = len(self.successful) + len(self.failed)
        return len(self.successful) / total if total else 1.0

    def raise_if_failed(self) -> None:
        """Raise the errors of all failures as one group.

        Raises:
            ExceptionGroup: If anything failed (a ``BaseExceptionGroup`` if one of the errors is no ``Exception``).
        """
        if self.failed:
            total = len(self.successful) + len(self.failed)
            errors = [failure.error for failure in self.failed]
            raise BaseExceptionGroup(f"{len(errors)} of {total} items failed", errors)

    def __repr__(self) -> str:
        return f"<Report: {len(self.successful)} successful, {len(self.failed)} failed>"

    def __str__(self) -> str:
        good, bad = len(self.successful), len(self.failed)
        head = f"{good} of {good + bad} successful ({100 * self.success_rate:.1f} %), {bad} failed"
        if not bad:
            return head
        if any(failure.stage is not None for failure in self.failed):
            counts = [f"{stage or 'no name'} {count}" for stage, count in self.by_stage.items()]
            head += f" ({', '.join(counts)})"
        shown = [_line(failure) for failure in self.failed[:10]]
        if bad > len(shown):
            shown.append(f"  ... and {bad - len(shown)} more")
        return "\n".join([head + ":", *shown])


def _is_failed_pair(each: Any) -> bool:
    """Whether it is ``(index, failure)``; the index of a failure that has passed is that of an earlier stage."""
    if not (type(each) is tuple and len(each) == 2 and isinstance(each[1], Failure)):
        return False
    return each[1].index == each[0] or (each[1].stage is not None and type(each[0]) is int)


def _line(failure: Failure) -> str:
    error = failure.error
    stage = "" if failure.stage is None else f" in {failure.stage}"
    try:
        text = one_line(str(error), 200)
    except Exception:  # any class may fail to describe itself
        text = "(no text)"
    return f"  item {failure.origin}{stage}: {shorten(failure.item)}: {type(error).__name__}: {text}"
