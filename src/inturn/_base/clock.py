"""The clock of everything here that waits: seconds that only go on, from no moment in particular."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final

__all__ = ["clock"]

clock: Final[Callable[[], float]] = partial(perf_counter)
"""Another object than `time.perf_counter`: tools that stop the time for a test (freezegun) put their own in the place
of that function, in every module. A pause or a time limit would then never be over, and a run would wait for ever."""
