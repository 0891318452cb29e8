"""`Stats.advice`: what holds a run back, from what was measured, and what to change.

Of the seconds of a run, `elapsed`, the consumer spent some waiting for calls, some waiting for the source, and some in
the body of the loop; the rest went into handing items over. The calls took *work* seconds in all, spread over
`concurrency` workers. No run can be shorter than work / concurrency, nor than what the source takes by itself, nor than
what the body takes by itself. Each piece of advice says what the run would take if one thing were different, and is
given only if that saves a tenth of the time or more.

========= ====================================================== ==========================================
piece     what was seen                                          what the run would take instead
========= ====================================================== ==========================================
workers   calls compute, in threads that take turns              max(computed / cpus + start, source, body)
          they were busy nearly all the time                     max(work / 2c, source, body): twice as many
batching  all calls together took less than the run              work + source + body, in a plain loop
limit     calls were ready, and the rate limit held them back    elapsed - throttled
source    pulling took long, in the consumer's thread            max(source, work / c, body), with live
          the source took longer than everything else            max(work / c, body), if it cost nothing
consumer  the body took longer than everything else              max((work + body) / c, source): in `fn`
window    workers were idle while it was full behind the head    elapsed - idle / c
========= ====================================================== ==========================================

Where there is a GIL, calls that compute in threads, or in tasks, run one at a time: what this process has computed is
what they take, however many workers there are. Only processes help.
"""

from __future__ import annotations

from math import ceil
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

__all__ = ["Advice", "advice", "pieces"]

Stats = Any  # that module imports this one

_WORTH: Final = 1.1  # a gain that is worth a word
_BUSY: Final = 0.85  # workers that are busy for such a share of the time have no more to give
_COMPUTES: Final = 0.8  # the share of the time in which the process computed, from which on calls wait for the GIL
_START_S: Final = 0.05  # what the start of worker processes costs, about
_LONG_S: Final = 2e-5  # a call that computes for so long is worth sending to a process
_THREADS: Final = 4  # what is proposed where calls run one at a time
_HAND_OVER_S: Final = 0.002  # what handing a call over costs at most; a run that takes longer waits for something
_FEW: Final = 2  # calls for each worker: with fewer, begin and end are all there is


class Advice(NamedTuple):
    """One thing to change."""

    about: str  # what holds the run back: source, workers, window, consumer, limit or batching
    gain: float  # how many times as fast the run would be
    text: str  # what was seen, and what to change
    stage: str | None = None  # the stage of a chain that it is about, if not the one that was asked


def advice(stats: Stats) -> str:
    """In words: a line for each thing to change, the one with most to gain first."""
    model = _model_of(stats)
    if model is None:
        return "Nothing to say: the run has not begun."
    found = pieces(stats)
    if found:
        return "\n".join(_line(piece, stats.elapsed) for piece in found)
    if model.too_few:
        return f"Nothing to say yet: {model.calls} calls are too few to tell."
    return f"Nothing to change: no single change makes this run a tenth faster (workers were busy {stats.busy:.0%})."


def pieces(stats: Stats) -> list[Advice]:
    """What would make the run faster, the greatest gain first."""
    model = _model_of(stats)
    if model is None or model.too_few:
        return []
    above = model.seen.above
    if above is not None and model.seen.pulling >= 0.5 * stats.elapsed:
        of_source = pieces(above)
        if of_source:  # the stage before this one holds it back, or one before that
            return [piece if piece.stage else piece._replace(stage=above._measured["title"]) for piece in of_source]
    processes, plain = model.processes(), model.batching()
    if plain is not None and (processes is None or plain.gain >= processes.gain):
        return [plain]
    found = [processes, model.limit(), model.source(), model.consumer(), model.window(), model.workers()]
    return sorted((piece for piece in found if piece is not None), key=lambda piece: -piece.gain)


def _model_of(stats: Stats) -> _Model | None:
    """None if the run has not begun."""
    return _Model(stats) if stats._measured and stats.elapsed else None


def _line(piece: Advice, elapsed: float) -> str:
    stage = f"stage {piece.stage!r} holds the others back: " if piece.stage else ""
    after = "" if piece.stage else f" ({elapsed / piece.gain:.3g} s instead of {elapsed:.3g} s)"
    times = f"{piece.gain:.2g} times the speed"
    expected = f"{times} or more" if piece.about == "batching" else f"about {times}"
    return f"{piece.about}: {stage}{piece.text} Expect {expected}{after}."


class _Model:
    """Where the seconds of a run went."""

    def __init__(self, stats: Stats) -> None:
        self.seen = seen = SimpleNamespace(**stats._measured)
        self.calls = stats.delivered + stats.skipped + stats.waiting + stats.retried
        self.too_few = self.calls < max(4, _FEW * min(seen.concurrency, 8))
        self._elapsed = stats.elapsed
        self._busy = stats.busy
        self._throttled = stats.throttled
        self._work = stats.busy * stats.elapsed * seen.concurrency
        self._each = self._work / max(1, self.calls)
        self._source = seen.pulling
        self._body = seen.body
        self._by_workers = self._work / seen.concurrency
        self._serial = seen.kind == "serial"
        self._consumer = self._body + (self._work if self._serial else 0.0)
        # What calls have computed, if the consumer has computed all the time; and the time that they had for it.
        own = self._body + (0.0 if seen.ahead else self._source)
        self._computed = seen.computed - own
        self._takes_turns = (
            seen.kind in {"thread", "task"}
            and seen.gil
            and self._computed >= max(_COMPUTES * (stats.elapsed - own), stats.elapsed / 2)
        )

    def _piece(self, about: str, seconds: float, text: str, *, in_turns: bool = True) -> Advice | None:
        """Advice after which the run takes so many seconds; None if that is not worth it."""
        if in_turns and self._takes_turns:  # calls go on to take turns
            seconds = max(seconds, self.seen.computed)
        gain = self._elapsed / max(seconds, 1e-9)
        return Advice(about, min(gain, 1000.0), text) if gain >= _WORTH else None

    def _share(self, seconds: float) -> str:
        return f"{seconds:.3g} s of {self._elapsed:.3g} s"

    def processes(self) -> Advice | None:
        """Calls that compute, one at a time."""
        seen = self.seen
        if not self._takes_turns or min(self._each, self._computed / self.calls) < _LONG_S:
            return None
        where = "threads that take turns" if seen.kind == "thread" else "the event loop"
        how = "use" if seen.kind == "thread" else "make fn a plain function, and use"
        text = f"calls compute, in {where}: {self._share(self._computed)}; {how} "
        text += f'executor="process", concurrency={seen.cpus}.'
        seconds = max(self._computed / seen.cpus + _START_S, self._source, self._body)
        return self._piece("workers", seconds, text, in_turns=False)

    def batching(self) -> Advice | None:
        """Calls that take less time than it takes to hand them over."""
        plain = self._work + self._source + self._body
        spent = self._elapsed - self._throttled
        if self.seen.kind in {"serial", "task"} or spent > _HAND_OVER_S * self.calls or spent < _WORTH * plain:
            return None
        each = f"{self._each * 1e6:.3g} µs" if self._each < 1e-3 else f"{self._each * 1e3:.3g} ms"
        text = f"a call takes {each}, less than handing it to a worker costs; "
        if self.seen.chunksize is not None:
            text += f"leave out chunksize={self.seen.chunksize}, so that small items are batched, or "
        text += "use a plain map: the work is too small to share."
        return self._piece("batching", plain, text, in_turns=False)

    def limit(self) -> Advice | None:
        throttled = self._throttled
        seconds = max(self._elapsed - throttled, self._by_workers, self._source, self._consumer)
        text = f"calls that were ready waited {self._share(throttled)} for the rate limit; raise limit= if you may."
        return self._piece("limit", seconds, text) if throttled else None

    def source(self) -> Advice | None:
        seen, source = self.seen, self._source
        if source < 0.1 * self._elapsed:
            return None
        live = max(source, self._by_workers, self._consumer)
        if not seen.ahead and self._elapsed > _WORTH * live:
            text = f"next() read the source for {self._share(source)}, and delivered nothing meanwhile; "
            return self._piece("source", live, text + "use live=True (in an async run: an async source).")
        if source < (0.8 if seen.ahead else 0.5) * self._elapsed:
            return None
        seconds = max(self._by_workers, self._consumer)
        text = f"reading it took {self._share(source)}, and the workers wait for it; make it faster: move what it does "
        text += "for each item into fn, or into a stage of its own. The most there is to gain is shown."
        return self._piece("source", seconds, text)

    def consumer(self) -> Advice | None:
        body = self._body
        if body < 0.3 * self._elapsed or self._busy >= _BUSY or self._serial:
            return None
        seconds = max((self._work + body) / self.seen.concurrency, self._source)
        text = f"the body of your loop took {self._share(body)}, and the workers rest meanwhile; "
        text += "move what it does into fn."
        return self._piece("consumer", seconds, text)

    def window(self) -> Advice | None:
        seen = self.seen
        seconds = max(self._elapsed - seen.idle_behind_head / seen.concurrency, self._source, self._body)
        wanted = ceil(seen.concurrency * (1 + seen.longest / max(self._each, 1e-9)))
        if wanted <= seen.window or self._serial or self._throttled > 0.1 * self._elapsed:
            return None
        idle = seen.idle_behind_head / (self._elapsed * seen.concurrency)
        text = f"it was full (window={seen.window}) behind a slow item, and workers were idle, {idle:.0%} of their time"
        text += f"; use window={wanted}."
        return self._piece("window", seconds, text)

    def workers(self) -> Advice | None:
        seen, busy = self.seen, self._busy
        if busy < _BUSY or self._throttled > 0.1 * self._elapsed or self.calls < 4 * seen.concurrency:
            return None
        if self._serial:
            seconds = max(self._work / _THREADS, self._source, self._body)
            text = f'calls take {self._share(self._work)}, one at a time; if they wait, use executor="thread", '
            return self._piece("workers", seconds, text + f"concurrency={_THREADS}.")
        text = f"they were busy {busy:.0%} of the time"
        more = 2 * seen.concurrency
        if seen.kind == "process":
            more = min(more, seen.cpus)
            if more <= seen.concurrency:
                return None
            text += "; "
        else:
            text += "; if calls wait (for a network, a disk, a service), "
        seconds = max(self._work / more, self._source, self._body)
        wider = f" and window={2 * more}" if seen.window < 2 * more else ""
        return self._piece("workers", seconds, text + f"use concurrency={more}{wider}.")
