"""``executor="process"``: its settings, and the error of an item whose worker died.

Nothing of ``multiprocessing`` is imported before a run wants processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inturn._base import checks

from .workers import Workers

__all__ = ["Processes", "WorkerDied"]


class WorkerDied(RuntimeError):
    """The worker process died while it ran this item.

    Attributes:
        index: Position of the item in the source, from 0.
        exitcode: The exit code; the negative of the signal's number where a signal killed it; None if nobody knows.
        signal: The signal that killed it (``signal.SIGKILL``, …), else None.
    """

    def __init__(self, index: int, exitcode: int | None, signal: int | None = None) -> None:
        super().__init__(index, exitcode, signal)
        self.index: int = index
        self.exitcode: int | None = exitcode
        self.signal: int | None = signal

    def __str__(self) -> str:
        if self.signal is not None:
            hint = " (out of memory, perhaps)" if self.signal == 9 else ""
            how = f"was killed by {getattr(self.signal, 'name', f'signal {self.signal}')}{hint}"
        elif self.exitcode is None:
            how = "ended"
        else:
            how = f"exited with code {self.exitcode}"
        return f"the worker process {how} while it ran item {self.index}"

    @classmethod
    def of(cls, index: int, exitcode: int | None) -> WorkerDied:
        if exitcode is None or exitcode >= 0:
            return cls(index, exitcode)
        import signal as signals  # not at the top: `import inturn` stays light

        try:
            return cls(index, exitcode, signals.Signals(-exitcode))
        except ValueError:  # a real-time signal has no name
            return cls(index, exitcode, -exitcode)


class Processes(Workers):
    """``executor="process"`` with settings.

    Args:
        initializer: Called once in each worker process before its first item, where it may keep what items share (a
            model, a connection) in a module's global variable. If it fails three times in a row, the run ends with its
            error.
        initargs: Its arguments. What `multiprocessing` hands on when it starts a process (a lock, a queue, a shared
            value of the same start method) may be among them.
        finalizer: Called without arguments in each worker process when it leaves in good order: at the end of the run,
            or when it has run `max_tasks_per_worker` items. It has the half second that running items have. It is not
            called in a worker that is killed, that dies, or whose initializer failed. If it raises,
            `threading.excepthook` shows the error, and nothing else comes of it.
        start_method: ``"fork"``, ``"forkserver"`` or ``"spawn"``. None: what ``multiprocessing`` would use, but
            ``"forkserver"`` in place of ``"fork"`` where the process has other threads.
        max_tasks_per_worker: After so many items a worker process makes room for a fresh one, against leaks in
            libraries. None: never.
        max_workers: The most worker processes at once. None: as many as the `concurrency` of a run; in a `with` block,
            at least the CPUs that this process may use, and as many as the highest `concurrency` of a run.

    As a context manager, it keeps its workers: in the block, all runs that are given it as `executor` share them,
    fairly, one after the other, at once or nested. So the initializer runs once per worker, not once per run. Leaving
    the block ends the workers, and open runs: their next ``next`` raises `RuntimeError`. Outside of a block, the
    workers live for one run. A worker costs 5 to 200 ms to start; a run on workers that are up costs about 1 ms.

    >>> import inturn
    >>> list(inturn.ordered_map(abs, [-1, 2, -3], executor=inturn.Processes(max_tasks_per_worker=100)))
    [1, 2, 3]
    >>> with inturn.Processes(max_workers=2) as workers:
    ...     for numbers in [[-1, 2], [3, -4]]:
    ...         print(list(inturn.ordered_map(abs, numbers, executor=workers)))
    [1, 2]
    [3, 4]
    """

    __slots__ = ("max_tasks_per_worker", "start_method")

    _parameters = ("initializer", "initargs", "finalizer", "start_method", "max_tasks_per_worker", "max_workers")
    _ends_calls = True

    def __init__(
        self,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: Callable[[], object] | None = None,
        start_method: str | None = None,
        max_tasks_per_worker: int | None = None,
        max_workers: int | None = None,
    ) -> None:
        super().__init__(initializer, initargs, finalizer, max_workers)
        self.start_method: str | None = checks.text("start_method", start_method)
        self.max_tasks_per_worker: int | None = checks.at_least_one("max_tasks_per_worker", max_tasks_per_worker)
