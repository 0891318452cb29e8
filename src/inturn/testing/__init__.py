"""Every completion order under test: executors that run calls one after the other, in any order, in virtual time.

    from hypothesis import given
    from inturn.testing import schedules

    @given(schedules())
    def test_my_pipeline(schedule):
        assert list(my_pipeline(range(6), executor=schedule)) == [0, 1, 4, 9, 16, 25]

A `Schedule` is deterministic: it runs in the thread of the test, starts no thread and never sleeps. It needs nothing
but the library. The strategies `schedules` and `faults` need Hypothesis: ``pip install 'inturn[testing]'``.

This wing may import every other one; nothing imports it but the command, ``python -m inturn``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._fault import Dies, Fails, Fault, Hangs
from ._schedule import Schedule
from ._timeline import Event

if TYPE_CHECKING:
    from ._strategies import faults as faults
    from ._strategies import schedules as schedules

__all__ = ["Dies", "Event", "Fails", "Fault", "Hangs", "Schedule", "faults", "schedules"]

for _each in (Dies, Event, Fails, Fault, Hangs, Schedule):
    _each.__module__ = __name__


def __getattr__(name: str) -> Any:
    if name not in {"faults", "schedules"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from . import _strategies
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "hypothesis":
            raise
        raise ImportError(f"inturn.testing.{name} needs Hypothesis: pip install 'inturn[testing]'") from error
    value = globals()[name] = getattr(_strategies, name)
    value.__module__ = __name__
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
