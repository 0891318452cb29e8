"""A trace as a picture: workers as rows, calls as bars, deliveries as marks on the consumer's row.

An item that holds up delivery is drawn in another colour for as long as finished results wait behind it, and the lines
from the ends of calls to their deliveries then meet in one point. Things narrower than half a pixel are drawn
together, so the size of the picture is bounded. Lengths are in pixels, times in seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from html import escape
from itertools import accumulate, cycle
from typing import Final

from .recorder import TraceItem, Wait

__all__ = ["timeline"]

_WIDTH: Final = 960.0
_LEFT: Final = 84.0
_RIGHT: Final = 52.0
_TOP: Final = 58.0
_ROWS_HEIGHT: Final = 420.0  # of all rows of workers, if there are many
_MOST_LINES: Final = 400  # from the end of a call to its delivery
_MERGE: Final = 0.5  # pixels: closer things are drawn as one

_STYLE: Final = """
.inturn-trace{--bg:#fff;--fg:#1f2933;--muted:#6b7785;--track:#eef1f5;--grid:#dfe4ea;--call:#4c86c6;--head:#e58a2e;
--failed:#cf3f55;--cancelled:#b4bdc8;--body:#c3ccd6;--mark:#1d8a63;--on-bar:#fff;
font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
@media(prefers-color-scheme:dark){.inturn-trace{--bg:#0f141a;--fg:#e3e9f0;--muted:#8d99a8;--track:#1b222b;
--grid:#2a333e;--call:#5b9be0;--head:#f0a04b;--failed:#ef6479;--cancelled:#566270;--body:#3d4855;--mark:#41c796;
--on-bar:#0f141a}}
.inturn-trace .bg{fill:var(--bg)}.inturn-trace text{fill:var(--muted)}.inturn-trace .title{fill:var(--fg);
font-size:15px;font-weight:600}.inturn-trace .name{fill:var(--fg)}.inturn-trace .track{fill:var(--track)}
.inturn-trace .grid{stroke:var(--grid)}.inturn-trace .done{fill:var(--call)}.inturn-trace .head{fill:var(--head)}
.inturn-trace .failed{fill:var(--failed)}.inturn-trace .cancelled{fill:var(--cancelled)}
.inturn-trace .body{fill:var(--body)}.inturn-trace .mark{stroke:var(--mark)}
.inturn-trace .turn{stroke:var(--mark);fill:none;stroke-width:.9;opacity:.4}.inturn-trace .on-bar{fill:var(--on-bar);
font-size:10.5px;text-anchor:middle;pointer-events:none}.inturn-trace .end{text-anchor:end}
.inturn-trace .mid{text-anchor:middle}
"""


_Bar = tuple[float, float, str, TraceItem | None]
"""When it begins, when it ends, what it is, and of which item."""


def timeline(items: list[TraceItem], deliveries: list[tuple[int, float]], waits: list[Wait], title: str) -> str:
    """The text of the picture."""
    return _Picture(items, deliveries, waits).draw(title)


class _Picture:
    def __init__(self, items: list[TraceItem], deliveries: list[tuple[int, float]], waits: list[Wait]) -> None:
        self._items = items
        self._deliveries = deliveries
        self._waits = waits
        begin = min((item.started for item in items), default=0.0)
        end = max((item.finished for item in items), default=0.0)
        self._begin = 0.0 if begin < 0.1 * end else begin  # else the trace has only the end of a long run
        self._end = max([end, *(when for _, when in deliveries), self._begin + 1e-6])
        self._scale = (_WIDTH - _LEFT - _RIGHT) / (self._end - self._begin)
        self._parts: list[str] = []
        self._add = self._parts.append
        self._rows = _rows_of(items)
        count = max(1, len(self._rows))
        self._pitch = max(3.0, min(26.0, _ROWS_HEIGHT / count))
        self._bar = self._pitch - (4 if self._pitch >= 14 else 1)
        self._consumer_y = _TOP + count * self._pitch + 20
        self._blocks = _blocks_of(items, waits)

    def draw(self, title: str) -> str:
        bottom = self._consumer_y + 20
        height = bottom + 62
        self._axis(bottom)
        self._workers()
        self._consumer()
        self._lines()
        self._legend(height - 18)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="inturn-trace" role="img" viewBox="0 0 {_WIDTH:g} '
            f'{height:g}" width="{_WIDTH:g}" height="{height:g}"><title>{escape(title)}</title>'
            f"<style>{_STYLE}</style>"
            f'<rect class="bg" width="{_WIDTH:g}" height="{height:g}" rx="8"/>'
            f'<text class="title" x="20" y="28">{escape(title)}</text>'
            f'<text class="end" x="{_WIDTH - 20:g}" y="28">{escape(self._summary())}</text>'
        )
        return head + "".join(self._parts) + "</svg>\n"

    def _summary(self) -> str:
        items, rows = len({item.index for item in self._items}), len(self._rows)
        busy = self._busy(self._items) / max(1, rows)
        text = f"{items:,} item{'s' * (items != 1)} · {rows} worker{'s' * (rows != 1)}, {busy:.0%} busy"
        return f"{text} · {_seconds(self._end - self._begin)}"

    def _busy(self, row: list[TraceItem]) -> float:
        """The share of the time in which these calls ran, one after the other."""
        return sum(item.finished - item.started for item in row) / (self._end - self._begin)

    def _axis(self, bottom: float) -> None:
        step = _step(self._end - self._begin)
        tick = step * -(-self._begin // step)
        while tick <= self._end + step * 1e-6:
            x = self._x(tick)
            self._add(f'<path class="grid" d="M{x:.1f} {_TOP - 6:g}V{bottom + 4:g}"/>')
            self._add(f'<text class="mid" x="{x:.1f}" y="{bottom + 18:g}">{_tick(tick, step)}</text>')
            tick += step

    def _workers(self) -> None:
        every = max(1, round(14 / self._pitch + 0.4))  # so many rows share a label
        for number, (name, row) in enumerate(self._rows):
            y = _TOP + number * self._pitch
            middle = y + self._bar / 2 + 4
            self._rect("track", self._begin, self._end, y, self._bar)
            if number % every == 0:
                self._add(f'<text class="name end" x="{_LEFT - 10:g}" y="{middle:.1f}">{name}</text>')
            if every == 1:
                self._add(f'<text x="{_WIDTH - _RIGHT + 8:g}" y="{middle:.1f}">{self._busy(row):.0%}</text>')
            for bar in _merged(((i.started, i.finished, i.outcome, i) for i in row), self._scale):
                self._call(bar, y)

    def _call(self, bar: _Bar, y: float) -> None:
        begun, ended, kind, item = bar
        if item is None:
            self._rect(kind, begun, ended, y, self._bar)
            return
        self._add(f"<g><title>{escape(_about(item))}</title>")
        self._rect(kind, begun, ended, y, self._bar, corner=2.5)
        for first, last in self._blocks.get(item.index, ()):
            if kind == "done" and last > begun and first < ended:
                self._rect("head", max(begun, first), min(ended, last), y, self._bar)
        if (ended - begun) * self._scale > 9 * len(str(item.index)) + 4 and self._bar >= 12:
            x = self._x((begun + ended) / 2)
            self._add(f'<text class="on-bar" x="{x:.1f}" y="{y + self._bar / 2 + 3.8:.1f}">{item.index}</text>')
        self._add("</g>")

    def _consumer(self) -> None:
        y, height = self._consumer_y, 18.0
        self._add(f'<text class="name end" x="{_LEFT - 10:g}" y="{y + 13:g}">consumer</text>')
        self._rect("track", self._begin, self._end, y, height)
        free = self._begin
        bodies: list[_Bar] = []
        for begun, ended, _ in [*self._waits, Wait(self._end, self._end, None)]:
            if begun > free:
                bodies.append((free, begun, "body", None))
            free = max(free, ended)
        for begun, ended, kind, _ in _merged(bodies, self._scale):
            if (ended - begun) * self._scale >= _MERGE:
                self._rect(kind, begun, ended, y, height)
        marks, before = "", -1.0
        for _, when in self._deliveries:
            x = round(self._x(when), 1)
            if x - before >= _MERGE:
                marks += f"M{x:g} {y - 3:g}v{height + 6:g}"
                before = x
        if marks:
            self._add(f'<path class="mark" stroke-width="1.4" d="{marks}"/>')

    def _lines(self) -> None:
        """From the end of each call to its delivery."""
        if len({item.index for item in self._items if item.delivered is not None}) > _MOST_LINES:
            return
        top, paths = self._consumer_y - 3, ""
        for number, (_, row) in enumerate(self._rows):
            y = _TOP + number * self._pitch + self._bar
            for item in row:
                if item.delivered is not None:
                    x, to = self._x(item.finished), self._x(item.delivered)
                    middle = (y + top) / 2
                    paths += f"M{x:.1f} {y:.1f}C{x:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {top:.1f}"
        if paths:
            self._add(f'<path class="turn" d="{paths}"/>')

    def _legend(self, y: float) -> None:
        x = _LEFT
        kinds = {item.outcome for item in self._items}
        entries = [("done", "call")]
        if self._blocks:
            entries.append(("head", "call that holds finished results back"))
        entries += [(kind, kind) for kind in ("failed", "cancelled") if kind in kinds]
        entries += [("body", "body of the loop"), ("mark", "delivery"), ("track", "idle, or waiting")]
        for kind, text in entries:
            if kind == "mark":
                self._add(f'<path class="mark" stroke-width="1.6" d="M{x + 5:g} {y - 11:g}v13"/>')
            else:
                self._add(f'<rect class="{kind}" x="{x:g}" y="{y - 9:g}" width="10" height="10" rx="2"/>')
            self._add(f'<text x="{x + 16:g}" y="{y:g}">{text}</text>')
            x += 34 + 5.9 * len(text)

    def _x(self, when: float) -> float:
        return _LEFT + (when - self._begin) * self._scale

    def _rect(self, kind: str, begun: float, ended: float, y: float, height: float, corner: float = 0.0) -> None:
        width = max(2.0 if kind == "failed" else 0.4, (ended - begun) * self._scale)
        rx = f' rx="{corner}"' if corner and width > 6 and height > 8 else ""
        size = f'width="{width:.2f}" height="{height:.1f}"'
        self._add(f'<rect class="{kind}" x="{self._x(begun):.2f}" y="{y:.1f}" {size}{rx}/>')


def _rows_of(items: list[TraceItem]) -> list[tuple[str, list[TraceItem]]]:
    """The calls of each worker, in time; calls of unknown workers share as few rows as they can."""
    known: dict[int, list[TraceItem]] = {}
    unknown: list[list[TraceItem]] = []
    for item in sorted(items, key=lambda item: (item.started, item.index)):
        if item.worker is not None:
            known.setdefault(item.worker, []).append(item)
        elif row := next((row for row in unknown if row[-1].finished <= item.started), None):
            row.append(item)
        else:
            unknown.append([item])
    rows = [(f"worker {number}", known[number]) for number in sorted(known)]
    return rows + [(f"call {number}", row) for number, row in enumerate(unknown, 1)]


def _blocks_of(items: list[TraceItem], waits: list[Wait]) -> dict[int, list[tuple[float, float]]]:
    """From when to when the consumer waited for an item behind which results were ready."""
    done = {item.index: item.finished for item in items if item.outcome != "cancelled"}
    indices = sorted(done)
    # Of the items from each one on: when the first of them was complete.
    first_ready = [*accumulate((done[index] for index in reversed(indices)), min)][::-1]
    blocks: dict[int, list[tuple[float, float]]] = {}
    for begun, ended, head in waits:
        behind = len(indices) if head is None else bisect_right(indices, head)
        if head is not None and behind < len(indices) and first_ready[behind] < ended:
            blocks.setdefault(head, []).append((max(begun, first_ready[behind]), ended))
    return blocks


def _merged(bars: Iterable[_Bar], scale: float) -> list[_Bar]:
    """Neighbours of one kind that could not be told apart are one bar."""
    merged: list[_Bar] = []
    for begun, ended, kind, item in bars:
        if merged:
            first, last, before, _ = merged[-1]
            narrow = min(ended - begun, last - first) * scale < 1.5
            if before == kind and narrow and (begun - last) * scale < _MERGE:
                merged[-1] = (first, max(ended, last), kind, None)
                continue
        merged.append((begun, ended, kind, item))
    return merged


def _about(item: TraceItem) -> str:
    text = f"item {item.index}" + (f", attempt {item.attempt}" if item.attempt > 1 else "")
    text += "" if item.outcome == "done" else f" ({item.outcome})"
    text += f"\nran {_seconds(item.finished - item.started)}, from {_seconds(item.started)}"
    if item.delivered is not None:
        text += f"\ndelivered at {_seconds(item.delivered)}, {_seconds(max(0.0, item.delivered - item.finished))} later"
    return text


def _step(span: float) -> float:
    """A round number of seconds, six to fourteen of which are in the span."""
    step, factors = 1e-7, cycle((2.0, 2.5, 2.0))
    while span / step > 12:
        step *= next(factors)
    return step


def _tick(seconds: float, step: float) -> str:
    """In the unit that suits the step between two ticks."""
    unit, factor = _unit(10 * step)
    return f"{round(seconds * factor, 3):g} {unit}"


def _seconds(seconds: float) -> str:
    """In the unit that suits the number itself."""
    if seconds >= 1000:
        return f"{seconds:,.0f} s"
    unit, factor = _unit(seconds)
    return f"{seconds * factor:.3g} {unit}"


def _unit(seconds: float) -> tuple[str, float]:
    """And how many of it are a second."""
    if seconds >= 1:
        return "s", 1.0
    return ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)
