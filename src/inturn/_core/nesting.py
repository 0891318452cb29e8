"""Inside whose calls this code runs. Worker processes import it, too: so it imports nothing."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .job import Job

__all__ = ["enclosing", "inside"]

# The jobs inside whose calls the code that asks runs, the outermost first.
enclosing: contextvars.ContextVar[tuple[Job, ...]] = contextvars.ContextVar("inturn_enclosing", default=())


def inside(job: Job) -> bool:
    return job in enclosing.get()
