"""Hypothesis strategies: `schedules` and `faults`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import strategies as st
from hypothesis.control import cleanup, current_build_context
from hypothesis.reporting import report

from inturn._base import checks

from ._fault import Dies, Fails, Fault, Hangs
from ._schedule import Schedule

__all__ = ["faults", "schedules"]


@st.composite
def _schedules(draw: st.DrawFn, items: int, faults: st.SearchStrategy[Sequence[Fault]]) -> Schedule:
    order = draw(st.lists(st.integers(0, items - 1), max_size=2 * items))
    schedule = Schedule(order or None, faults=draw(faults))
    if current_build_context().is_final:  # the example that Hypothesis shows
        cleanup(lambda: report(schedule.timeline()))
    return schedule


def schedules(
    items: int = 16, *, faults: st.SearchStrategy[Sequence[Fault]] | Iterable[Fault] = ()
) -> st.SearchStrategy[Schedule]:
    """A strategy for `Schedule`: any order in which calls may end, and such faults as you ask for.

    It shrinks to the plain order and to no fault. When a test fails, Hypothesis shows the code that makes the schedule,
    and its timeline.

    >>> from hypothesis import given
    >>> from inturn import ordered_map
    >>> from inturn.testing import schedules
    >>> @given(schedules())
    ... def test_squares(schedule):
    ...     assert list(ordered_map(lambda x: x * x, range(6), executor=schedule)) == [0, 1, 4, 9, 16, 25]
    >>> test_squares()

    Args:
        items: The order of the first so many items is varied; those behind them come in plain order.
        faults: A strategy for faults, such as `faults`; or the faults themselves.
    """
    items = checks.count("items", items)
    if not isinstance(faults, st.SearchStrategy):
        faults = st.just(tuple(faults))
    return _schedules(items, faults)


def faults(
    items: int = 16,
    *,
    errors: Sequence[BaseException | type[BaseException]] = (RuntimeError,),
    attempts: int = 1,
    most: int = 3,
    dies: bool = False,
    hangs: bool = False,
) -> st.SearchStrategy[list[Fault]]:
    """A strategy for the `faults` of a `Schedule`. It shrinks to no fault.

    Args:
        items: Faults hit the first so many items.
        errors: What an item fails with, the simplest first. Exception classes, or exceptions.
        attempts: The highest attempt that is hit. With more than 1, an item may fail several times in a row.
        most: The largest number of faults.
        dies: Whether workers die, too.
        hangs: Whether calls hang, too. Without a ``timeout`` or a ``deadline`` such a run cannot go on.
    """
    at = st.integers(0, checks.count("items", items) - 1)
    attempt = st.integers(1, checks.count("attempts", attempts))
    kinds: list[st.SearchStrategy[Fault]] = []
    if errors:
        kinds.append(st.builds(Fails, at, st.sampled_from(list(errors)), attempt))
    kinds += [st.builds(kind, at, attempt) for kind, wanted in ((Dies, dies), (Hangs, hangs)) if wanted]
    if not kinds:
        raise ValueError("give at least one error, or dies=True, or hangs=True")
    return st.lists(st.one_of(kinds), max_size=most, unique_by=lambda fault: (fault.index, fault.attempt))
