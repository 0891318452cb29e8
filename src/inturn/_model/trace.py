"""What a run with ``trace=True`` tells its user: `run.trace`. See `recorder` for how it is noted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .recorder import Recorder, TraceItem, Wait

if TYPE_CHECKING:
    import os

__all__ = ["Trace"]


class Trace:
    """When each item of a run was pulled, started, finished and delivered, and by which worker.

    It is iterable: one `TraceItem` for each call, in the order of the items. `save` writes a file for trace viewers,
    `to_svg` draws a picture, and a notebook shows that picture. All of this may be asked while the run goes on: calls
    that have not ended are not in it. The last 100,000 calls are kept, about 25 MB.
    """

    __module__ = "inturn"

    def __init__(self, recorder: Recorder, title: str) -> None:
        self._recorder = recorder
        self._title = title

    def __iter__(self) -> Iterator[TraceItem]:
        zero = self._recorder.zero
        calls = sorted(self._recorder.calls.latest(), key=lambda call: (call.index, call.attempt))
        pulls = self._recorder.pulls.latest()
        pulled = {index: when - zero for first, number, when in pulls for index in range(first, first + number)}
        delivered = dict(self.deliveries())
        last = {call.index: call.attempt for call in calls}
        for call in calls:
            at = delivered.get(call.index) if call.attempt == last[call.index] else None
            # The end of a call in a batch is noted when the next one begins, and so after its result can be delivered.
            finished = call.finished - zero if at is None else min(call.finished - zero, at)
            started = min(call.started - zero, finished)
            # The run may let go of a call before its worker has noted that it was done.
            outcome = "done" if at is not None and call.outcome == "cancelled" else call.outcome
            pulled_at = pulled.get(call.index)
            yield call._replace(pulled=pulled_at, started=started, finished=finished, delivered=at, outcome=outcome)

    def __len__(self) -> int:
        return len(self._recorder.calls.latest())

    def __repr__(self) -> str:
        return f"<trace of {self._title}: {len(self)} calls>"

    def waits(self) -> list[Wait]:
        """When the consumer waited inside ``next``, and for which item, or (None) for the source.

        Times are in seconds since the first ``next``.
        """
        zero = self._recorder.zero
        return [Wait(begun - zero, ended - zero, index) for begun, ended, index in self._recorder.waits.latest()]

    def deliveries(self) -> list[tuple[int, float]]:
        """The index and the moment of each result, in seconds since the first ``next``; of a flat map, each element."""
        zero = self._recorder.zero
        return [(index, when - zero) for index, when in self._recorder.deliveries.latest()]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace in the Chrome trace event format (JSON), which Perfetto and other viewers read.

        Each worker is a thread there, each call a slice. The consumer is thread 0, with its waits as slices and each
        delivery as an instant event. What waits for its turn is an asynchronous slice.
        """
        from .trace_file import chrome_trace

        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib is not imported for it
            file.write(chrome_trace(list(self), self.deliveries(), self.waits(), self._title))

    def to_svg(self, path: str | os.PathLike[str] | None = None) -> str:
        """Draw the timeline as an SVG picture without references to anything else; write it to `path` if given.

        Workers are rows, calls are bars, deliveries are marks on the consumer's row. The part of a call in which
        finished results waited behind it is drawn in another colour. Light or dark follows the reader's system.

        Returns:
            The text of the picture.
        """
        from .drawing import timeline

        text = timeline(list(self), self.deliveries(), self.waits(), self._title)
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 - pathlib is not imported for it
                file.write(text)
        return text

    _repr_svg_ = to_svg  # what a notebook asks for
