"""A trace as a picture: workers as rows, calls as bars, deliveries as marks on the consumer's row.

What is to be seen at once: a worker that has nothing to do is an empty stretch of its row; an item that holds up
delivery is drawn in another colour for as long as finished results wait behind it, and the lines that lead from the
ends of calls to their deliveries then meet in one point.

Things narrower than half a pixel are drawn together, so the size of the picture is bounded however many items there
are. Lengths are in pixels, times in seconds.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from html import escape
from typing import Final, NamedTuple

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


class _Block(NamedTuple):
    """An item held up delivery, while finished results waited behind it."""

    begun: float
    ended: float


def timeline(items: list[TraceItem], deliveries: list[tuple[int, float]], waits: list[Wait], title: str) -> str:
    """The text of the picture."""
    begin = min((item.started for item in items), default=0.0)
    if items and begin < 0.1 * max(item.finished for item in items):
        begin = 0.0  # else the begin of a long run is not in the trace
    end = max([*(item.finished for item in items), *(when for _, when in deliveries), begin + 1e-6])
    return _Picture(items, deliveries, waits, begin, end).draw(title)


class _Picture:
    def __init__(
        self,
        items: list[TraceItem],
        deliveries: list[tuple[int, float]],
        waits: list[Wait],
        begin: float,
        end: float,
    ) -> None:
        self._items = items
        self._deliveries = deliveries
        self._waits = waits
        self._begin = begin
        self._scale = (_WIDTH - _LEFT - _RIGHT) / (end - begin)
        self._end = end
        self._parts: list[str] = []
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
        seconds = self._end - self._begin
        busy = sum(_busy(row) for _, row in self._rows) / (seconds * max(1, rows))
        return (
            f"{items:,} item{'s' * (items != 1)} · {rows} worker{'s' * (rows != 1)}, {busy:.0%} busy · "
            f"{_seconds(seconds)}"
        )

    # ---- parts -----------------------------------------------------------------------------------

    def _axis(self, bottom: float) -> None:
        step = _step(self._end - self._begin)
        tick = step * -(-self._begin // step)
        while tick <= self._end + step * 1e-6:
            x = self._x(tick)
            self._add(f'<path class="grid" d="M{x:.1f} {_TOP - 6:g}V{bottom + 4:g}"/>')
            self._add(f'<text class="mid" x="{x:.1f}" y="{bottom + 18:g}">{_seconds(tick, step)}</text>')
            tick += step

    def _workers(self) -> None:
        every = max(1, round(14 / self._pitch + 0.4))  # so many rows share a label
        for number, (name, row) in enumerate(self._rows):
            y = _TOP + number * self._pitch
            middle = y + self._bar / 2 + 4
            self._add(self._rect("track", self._begin, self._end, y, self._bar))
            if number % every == 0:
                busy = _busy(row) / (self._end - self._begin)
                self._add(f'<text class="name end" x="{_LEFT - 10:g}" y="{middle:.1f}">{name}</text>')
                if every == 1:
                    self._add(f'<text x="{_WIDTH - _RIGHT + 8:g}" y="{middle:.1f}">{busy:.0%}</text>')
            for begun, ended, kind, item in _merged(((i.started, i.finished, i.outcome, i) for i in row), self._scale):
                self._call(begun, ended, kind, item, y)

    def _call(self, begun: float, ended: float, kind: str, item: TraceItem | None, y: float) -> None:
        if item is None:
            self._add(self._rect(kind, begun, ended, y, self._bar))
            return
        held_up = [block for block in self._blocks.get(item.index, ()) if block.ended > begun and block.begun < ended]
        self._add(f"<g><title>{escape(_about(item))}</title>")
        least = 2.0 if kind == "failed" else 0.4
        self._add(self._rect(kind, begun, ended, y, self._bar, rounded=True, least=least))
        if kind == "done":
            for block in held_up:
                self._add(self._rect("head", max(begun, block.begun), min(ended, block.ended), y, self._bar))
        if (ended - begun) * self._scale > 9 * len(str(item.index)) + 4 and self._bar >= 12:
            x = self._x((begun + ended) / 2)
            self._add(f'<text class="on-bar" x="{x:.1f}" y="{y + self._bar / 2 + 3.8:.1f}">{item.index}</text>')
        self._add("</g>")

    def _consumer(self) -> None:
        y, height = self._consumer_y, 18.0
        self._add(f'<text class="name end" x="{_LEFT - 10:g}" y="{y + 13:g}">consumer</text>')
        self._add(self._rect("track", self._begin, self._end, y, height))
        waits = sorted((begun, ended) for begun, ended, _ in self._waits)
        free = self._begin
        bodies: list[tuple[float, float, str, None]] = []
        for begun, ended in [*waits, (self._end, self._end)]:
            if begun > free:
                bodies.append((free, begun, "body", None))
            free = max(free, ended)
        for begun, ended, kind, _ in _merged(bodies, self._scale):
            if (ended - begun) * self._scale >= _MERGE:
                self._add(self._rect(kind, begun, ended, y, height))
        marks: list[str] = []
        before = -1.0
        for _, when in self._deliveries:
            x = round(self._x(when), 1)
            if x - before >= _MERGE:
                marks.append(f"M{x:g} {y - 3:g}v{height + 6:g}")
                before = x
        if marks:
            self._add(f'<path class="mark" stroke-width="1.4" d="{"".join(marks)}"/>')

    def _lines(self) -> None:
        """From the end of each call to its delivery."""
        delivered = {item.index: item.delivered for item in self._items if item.delivered is not None}
        if len(delivered) > _MOST_LINES:
            return
        top = self._consumer_y - 3
        paths: list[str] = []
        for number, (_, row) in enumerate(self._rows):
            y = _TOP + number * self._pitch + self._bar
            for item in row:
                if item.delivered is not None:
                    x, to = self._x(item.finished), self._x(item.delivered)
                    middle = (y + top) / 2
                    paths.append(f"M{x:.1f} {y:.1f}C{x:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {top:.1f}")
        if paths:
            self._add(f'<path class="turn" d="{"".join(paths)}"/>')

    def _legend(self, y: float) -> None:
        x = _LEFT
        kinds = {item.outcome for item in self._items}
        entries = [("done", "call")]
        if self._blocks:
            entries.append(("head", "call that holds finished results back"))
        entries += [(kind, text) for kind, text in (("failed", "failed"), ("cancelled", "cancelled")) if kind in kinds]
        entries += [("body", "body of the loop"), ("mark", "delivery"), ("track", "idle, or waiting")]
        for kind, text in entries:
            if kind == "mark":
                self._add(f'<path class="mark" stroke-width="1.6" d="M{x + 5:g} {y - 11:g}v13"/>')
            else:
                self._add(f'<rect class="{kind}" x="{x:g}" y="{y - 9:g}" width="10" height="10" rx="2"/>')
            self._add(f'<text x="{x + 16:g}" y="{y:g}">{text}</text>')
            x += 34 + 5.9 * len(text)

    # ---- helpers ---------------------------------------------------------------------------------

    def _add(self, part: str) -> None:
        self._parts.append(part)

    def _x(self, when: float) -> float:
        return _LEFT + (when - self._begin) * self._scale

    def _rect(
        self,
        kind: str,
        begun: float,
        ended: float,
        y: float,
        height: float,
        *,
        rounded: bool = False,
        least: float = 0.4,
    ) -> str:
        x, width = self._x(begun), max(least, (ended - begun) * self._scale)
        corner = ' rx="2.5"' if rounded and width > 6 and height > 8 else ""
        return f'<rect class="{kind}" x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{height:.1f}"{corner}/>'


def _rows_of(items: list[TraceItem]) -> list[tuple[str, list[TraceItem]]]:
    """The calls of each worker, in time; calls of unknown workers share as few rows as they can."""
    known: dict[int, list[TraceItem]] = {}
    unknown: list[list[TraceItem]] = []
    for item in sorted(items, key=lambda item: (item.started, item.index)):
        if item.worker is not None:
            known.setdefault(item.worker, []).append(item)
            continue
        for row in unknown:
            if row[-1].finished <= item.started:
                row.append(item)
                break
        else:
            unknown.append([item])
    rows = [(f"worker {number}", known[number]) for number in sorted(known)]
    return rows + [(f"call {number}", row) for number, row in enumerate(unknown, 1)]


def _blocks_of(items: list[TraceItem], waits: list[Wait]) -> dict[int, list[_Block]]:
    """When the consumer waited for an item behind which results were ready."""
    first_ready: list[float] = []  # of the items from this one on: when the first of them was complete
    done: dict[int, float] = {}
    for item in items:
        if item.outcome != "cancelled":
            done[item.index] = item.finished
    indices = sorted(done)
    soonest = float("inf")
    for index in reversed(indices):
        soonest = min(soonest, done[index])
        first_ready.append(soonest)
    first_ready.reverse()
    blocks: dict[int, list[_Block]] = {}
    for begun, ended, head in waits:
        if head is None:
            continue
        behind = bisect.bisect_right(indices, head)
        if behind < len(indices) and first_ready[behind] < ended:
            block = _Block(max(begun, first_ready[behind]), ended)
            blocks.setdefault(head, []).append(block)
    return blocks


def _merged(
    bars: Iterable[tuple[float, float, str, TraceItem | None]], scale: float
) -> list[tuple[float, float, str, TraceItem | None]]:
    """Neighbours of one kind that could not be told apart are one bar."""
    merged: list[tuple[float, float, str, TraceItem | None]] = []
    for begun, ended, kind, item in bars:
        if merged:
            first, last, before, _ = merged[-1]
            narrow = min(ended - begun, last - first) * scale < 1.5
            if before == kind and narrow and (begun - last) * scale < _MERGE:
                merged[-1] = (first, max(ended, last), kind, None)
                continue
        merged.append((begun, ended, kind, item))
    return merged


def _busy(row: list[TraceItem]) -> float:
    return sum(item.finished - item.started for item in row)


def _about(item: TraceItem) -> str:
    text = f"item {item.index}" + (f", attempt {item.attempt}" if item.attempt > 1 else "")
    text += "" if item.outcome == "done" else f" ({item.outcome})"
    text += f"\nran {_seconds(item.finished - item.started)}, from {_seconds(item.started)}"
    if item.delivered is not None:
        text += f"\ndelivered at {_seconds(item.delivered)}, {_seconds(max(0.0, item.delivered - item.finished))} later"
    return text


def _step(span: float) -> float:
    """A round number of seconds, six to fourteen of which are in the span."""
    step = 1e-7
    factors = (2.0, 2.5, 2.0)
    number = 0
    while span / step > 12:
        step *= factors[number % 3]
        number += 1
    return step


def _seconds(seconds: float, step: float | None = None) -> str:
    """In the unit that suits the step between two numbers, or the number itself."""
    size = abs(seconds) if step is None else step
    if step is None:
        digits = 3
        for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
            if size * factor >= 1 or unit == "µs":
                return f"{seconds * factor:.{digits}g} {unit}" if size * factor < 1000 else f"{seconds:,.0f} s"
    if step is not None and step < 1e-4:
        return f"{round(seconds * 1e6, 3):g} µs"
    if step is not None and step < 0.1:
        return f"{round(seconds * 1e3, 3):g} ms"
    return f"{round(seconds, 6):g} s"
