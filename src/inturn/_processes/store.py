"""The worker processes of a run, or of a ``with`` block: see `inturn._pools.store`.

An idle worker has nothing of a run that is over. It may have the ``fn`` of runs that are open
(``known``): a slot that has to leave for another run leaves it there, since ``fn`` travels once per
worker and may have a state of its own (guarantee 25). When a run ends, idle workers forget it at
once, those that a slot has between two of its chunks (``to_forget``). A worker may be idle before
it is up, if the run that has started it is over.
"""

from __future__ import annotations

import _thread
import sys

from inturn._model.processes import Processes
from inturn._model.threads import Threads
from inturn._model.workers import Block
from inturn._pools.store import Share, Store
from inturn._pools.worker_threads import ThreadStore

from .handle import Handle
from .worker import Ask

__all__ = ["ProcessStore"]


class ProcessStore(Store[Handle]):
    def __init__(self, workers: Processes, *, name: str, least: int, block: Block | None) -> None:
        super().__init__(least=least, most=workers.max_workers, block=block)
        # A copy: the store must not keep the user's object, whose last reference ends the store.
        self.settings = Processes(*workers._settings())
        self.threads = ThreadStore(Threads(), name=name, least=sys.maxsize, block=block)

    def close(self, *, wait: bool) -> None:
        super().close(wait=wait)
        self.threads.close(wait=wait)

    def _choice(self, share: Share) -> int:
        best = super()._choice(share)
        for position, worker in enumerate(self._idle):
            if share.number in worker.known:
                return position
            if worker.is_up and not self._idle[best].is_up:
                best = position
        return best

    def _cleaned(self, share: Share, worker: Handle) -> bool:
        if share.job.stopped:
            if not worker.unanswered:  # else it may have to read its memory yet
                worker.down.shrink()
            worker.to_forget.append(share.number)
        return worker.forget()

    def end(self, share: Share) -> None:
        super().end(share)
        if self.keeps:
            with self.lock:
                for worker in list(self._all):
                    if share.number in worker.known:
                        worker.to_forget.append(share.number)
                for worker in self._idle:
                    worker.forget()

    def _end_idle(self) -> bool:
        try:
            _thread.start_new_thread(self._end_here, ())  # one step: it may be called from anywhere
        except RuntimeError:  # no thread can be had, or the interpreter is shutting down
            return False
        return True

    def _end_here(self) -> None:
        with self.lock:
            workers, self._idle = self._idle, []
        for worker in workers:
            worker.begin_grace()
            worker.send((0, Ask.END, None))
        for worker in workers:
            worker.end()
            self.remove(worker)
        super()._end_here()
