"""A load that an executor takes out of the process: it works by itself there, and the future brings its outcomes."""

from __future__ import annotations

import pickle
from time import perf_counter as clock
from typing import Any

from .pickling import PROTOCOL, Packed, pack_error, unpack_error

__all__ = ["pack_item", "run_travelled", "unpack_outcome"]


def pack_item(item: Any) -> tuple[bool, Any]:
    try:
        return True, pickle.dumps(item, PROTOCOL)
    except Exception as error:  # it costs this item only
        return False, pack_error(error)


def unpack_outcome(good: bool, packed: Any) -> tuple[bool, Any]:
    try:
        return good, pickle.loads(packed) if good else unpack_error(packed)  # from our own call
    except Exception as error:  # a result that pickles and does not unpickle
        return False, error


def run_travelled(
    fn_blob: bytes, items: list[tuple[bool, Any]], box_s: float | None
) -> list[tuple[bool, bytes | Packed, float]]:
    """Run a load in another process; leaves what it has not started when the time box is over."""
    outcomes: list[tuple[bool, bytes | Packed, float]] = []
    begun = clock()
    fn = pickle.loads(fn_blob)  # from the run that submitted it
    for good, packed in items:
        mark = clock()
        if box_s is not None and outcomes and mark - begun > box_s:
            break
        if not good:
            outcomes.append((False, packed, 0.0))
            continue
        try:
            outcome: bytes | Packed = pickle.dumps(fn(pickle.loads(packed)), PROTOCOL)
        except BaseException as error:  # it travels to the consumer
            good, outcome = False, pack_error(error)
        outcomes.append((good, outcome, clock() - mark))
    return outcomes
