"""A trace in the Chrome trace event format: JSON, times in microseconds."""

from __future__ import annotations

import json
from typing import Any

from .recorder import TraceItem, Wait

__all__ = ["chrome_trace"]

_CONSUMER = 0
_UNKNOWN = 1_000_000  # the thread of calls of which no worker is known


def chrome_trace(items: list[TraceItem], deliveries: list[tuple[int, float]], waits: list[Wait], title: str) -> str:
    """The text of the file."""
    events: list[dict[str, Any]] = []
    threads = {_CONSUMER: "consumer"}
    for item in items:
        tid = item.worker or _UNKNOWN
        threads.setdefault(tid, "elsewhere" if item.worker is None else f"worker {item.worker}")
        name = f"item {item.index}" if item.attempt == 1 else f"item {item.index}, attempt {item.attempt}"
        details = {
            "index": item.index,
            "attempt": item.attempt,
            "outcome": item.outcome,
            "pulled_s": item.pulled,
            "delivered_s": item.delivered,
        }
        events.append(_slice(name, "call", tid, item.started, item.finished, details))
        if item.delivered is not None and item.delivered > item.finished:
            for ph, when in (("b", item.finished), ("e", item.delivered)):
                events.append(_event(ph, f"item {item.index}", "waits for its turn", tid, when, id=item.index))
    for begun, ended, index in waits:
        name = "waits for the source" if index is None else f"waits for item {index}"
        events.append(_slice(name, "wait", _CONSUMER, begun, ended, {}))
    for index, when in deliveries:
        events.append(_event("i", f"item {index} delivered", "delivery", _CONSUMER, when, s="t"))
    events.sort(key=lambda event: event["ts"])
    about = [_about("process_name", _CONSUMER, name=title)]
    for tid in sorted(threads):
        about += [_about("thread_name", tid, name=threads[tid]), _about("thread_sort_index", tid, sort_index=tid)]
    return json.dumps({"traceEvents": [*about, *events], "displayTimeUnit": "ms"})


def _slice(name: str, category: str, tid: int, begun: float, ended: float, details: dict[str, Any]) -> dict[str, Any]:
    dur = round(_us(ended) - _us(begun), 3)
    return _event("X", name, category, tid, begun, dur=dur, args=details)


def _event(ph: str, name: str, category: str, tid: int, when: float, **more: object) -> dict[str, Any]:
    return {"name": name, "cat": category, "ph": ph, "ts": _us(when), "pid": 1, "tid": tid, **more}


def _about(what: str, tid: int, **details: object) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 1, "tid": tid, "args": details}


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)
