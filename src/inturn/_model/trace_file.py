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
            turn = {"name": f"item {item.index}", "cat": "waits for its turn", "id": item.index, "pid": 1, "tid": tid}
            events.append({**turn, "ph": "b", "ts": _us(item.finished)})
            events.append({**turn, "ph": "e", "ts": _us(item.delivered)})
    for begun, ended, index in waits:
        name = "waits for the source" if index is None else f"waits for item {index}"
        events.append(_slice(name, "wait", _CONSUMER, begun, ended, {}))
    for index, when in deliveries:
        mark = {"name": f"item {index} delivered", "cat": "delivery", "ph": "i", "s": "t", "pid": 1, "tid": _CONSUMER}
        events.append({**mark, "ts": _us(when)})
    events.sort(key=lambda event: event["ts"])
    about = [_about("process_name", _CONSUMER, title)]
    for tid in sorted(threads):
        about.append(_about("thread_name", tid, threads[tid]))
        about.append({**_about("thread_sort_index", tid, ""), "args": {"sort_index": tid}})
    return json.dumps({"traceEvents": [*about, *events], "displayTimeUnit": "ms"})


def _slice(name: str, category: str, tid: int, begun: float, ended: float, details: dict[str, Any]) -> dict[str, Any]:
    ts = _us(begun)
    dur = round(_us(ended) - ts, 3)
    return {"name": name, "cat": category, "ph": "X", "ts": ts, "dur": dur, "pid": 1, "tid": tid, "args": details}


def _about(what: str, tid: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 1, "tid": tid, "args": {"name": name}}


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)
