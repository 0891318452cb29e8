"""Writes down what happens in one run, and asks its script. The run's `Job` knows it as its watcher."""

from __future__ import annotations

from typing import Any

from inturn._core.consumer import AGAIN, LEFT_OUT, Raised
from inturn._core.flat_job import FlatJob
from inturn._core.job import Job

from ._book import Book, Order
from ._timeline import Event

__all__ = ["RunRecord"]


class RunRecord:
    """One run of a schedule: its number, its rule, and its part of the events; its time is that of the schedule."""

    def __init__(self, book: Book, job: Job) -> None:
        self._number = -1  # until it begins
        self._book = book
        self._job = job
        self._flat = isinstance(job, FlatJob)
        self._rule: Order = min
        self._seen = 0  # items that were recorded as pulled
        job.watcher = self
        job.clock = book.clock

    def begin(self) -> None:
        """The first ``next``."""
        self._number, self._rule = self._book.begin_run()

    def choose(self, indices: list[int]) -> int:
        """Which of these, in ascending order, takes the next step."""
        try:
            return self._rule(indices)
        except BaseException:  # of a function of the user's: what is under way goes on in plain order
            self._rule = min
            raise

    def record(self, what: str, index: int, attempt: int = 1) -> None:
        self._book.events.append(Event(self._book.now, what, index, attempt, self._number))

    def pulled(self) -> None:
        while self._seen < self._job.window.pulled:
            self.record("pulled", self._seen)
            self._seen += 1

    def delivered(self, index: int, outcome: Any, /) -> None:
        gone = self._job.window.taken > index  # else its turn is not over
        if type(outcome) is Raised:
            self.record("raised", index)
        elif outcome is LEFT_OUT:
            self.record("done" if self._flat else "left out", index)
        elif outcome is not AGAIN:
            self.record("delivered", index)
            if self._flat and gone:
                self.record("done", index)
