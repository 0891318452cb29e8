"""How a worker process is started.

`multiprocessing` starts it, with four additions.

*Fork and locks.* A worker that is started late is forked while the threads of other slots run. A
lock that one of them holds at that moment stays locked in the child for ever: the child's next
import may hang. What works: our threads take such locks only where they run code of the user, that
is, where they pickle and unpickle, which may import modules, and where they ask a policy. There a
slot holds a lock of its own (`user_code_lock`), and the thread that forks takes the locks of all
slots first (`starting`), for at most `_FORK_WAIT_S`: code of the user may never end. The thread
that pulls from the source waits in C meanwhile. So our threads do no harm: the warning that
``os.fork`` gives since Python 3.12 is suppressed.

*Ctrl-C.* A worker must not receive SIGINT before it has set its own handler. A child inherits the
signal mask, so SIGINT is blocked while it is started. A child of a fork server inherits that
server's mask: there the first object that the child unpickles makes it ignore SIGINT.

*Imports.* What a worker imports takes it longer than all else of its start. A fork server that we
start imports it once, beside what the program wants it to, and is safe from Ctrl-C meanwhile (see
`fork_server`). Before 3.13.1, it does not use the program's ``sys.path``, so it could find another
inturn than the program.

*A main module that cannot be imported* is not looked for (`main_of_workers`).
"""

from __future__ import annotations

import importlib
import multiprocessing
import operator
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import popen_fork, resource_tracker, util
from pathlib import Path
from types import FunctionType
from typing import Any, Final, Self

from inturn._base.clock import clock
from inturn._core.threads import CallThread
from inturn._model.processes import Processes
from inturn._transport.by_name import Call
from inturn._transport.pickling import Main, dumps

__all__ = [
    "GUARD",
    "NO_GUARD",
    "Setup",
    "choose_method",
    "drop_user_code_lock",
    "main_of_workers",
    "new_process",
    "owned",
    "starting",
    "user_code_lock",
]

NO_GUARD: Final = 78
"""The exit code of a worker whose ``__main__`` starts a run while the worker imports it."""

GUARD: Final = 'put the code that starts it under `if __name__ == "__main__":`'
SERVER_DIED: Final = f"the fork server ended while it imported the main module; if that starts a run, {GUARD}"

_IN_SERVER: Final = "inturn._processes.fork_server"
_SERVER_HAS_OUR_PATH: Final = sys.version_info >= (3, 13, 1)
_PIPES: Final = 4  # more than a client of the fork server opens to start a process
_FORK_WAIT_S: Final = 0.25  # how long a fork waits for slots that run code of the user, in seconds

owned: Final[set[Any]] = set()
"""Descriptors of the parent's side, to be closed in any forked child; `_forking` guards it."""

_forking = threading.Lock()

_user_code_locks: Final[set[Any]] = set()


def user_code_lock() -> Any:
    """A new lock, for a slot to hold while it runs code of the user."""
    lock = threading.Lock()
    with _forking:
        _user_code_locks.add(lock)
    return lock


def drop_user_code_lock(lock: Any) -> None:
    """The slot leaves: one atomic step, which waits for no fork."""
    _user_code_locks.discard(lock)


@contextmanager
def starting(method: str = "") -> Generator[None]:
    """To be held while a worker is started, and while `owned` changes."""
    with _forking:
        locks = list(_user_code_locks) if method == "fork" else []
        until = clock() + _FORK_WAIT_S
        held = [each for each in locks if each.acquire(timeout=max(0.0, until - clock()))]
        try:
            yield
        finally:
            for each in held:
                each.release()


def _after_fork() -> None:
    """In any forked child: renew the lock, and close the descriptors of the parent's side."""
    global _forking
    _forking = threading.Lock()
    for each in owned:
        with suppress(OSError, BufferError):  # another thread of the parent was reading this memory
            each.close()
    owned.clear()
    _user_code_locks.clear()


def choose_method(wanted: str | None) -> str:
    """The start method (guarantee 28): with threads that are not ours, ``forkserver`` instead of ``fork``."""
    if wanted is not None:
        return wanted
    methods = multiprocessing.get_all_start_methods()
    method = multiprocessing.get_start_method(allow_none=True) or methods[0]
    if method != "fork" or "forkserver" not in methods:
        return method
    others = {each for each in threading.enumerate() if not isinstance(each, CallThread)}
    others -= {threading.current_thread()}
    return "fork" if all(each.name.startswith("inturn-") for each in others) else "forkserver"


def main_of_workers(method: str) -> tuple[Main, str | None]:
    """What workers know of the main module, and the path where they would look for it in vain.

    They import no file ``__main__.py``; for a notebook or ``python -c`` there is nothing to import.
    """
    if method == "fork":
        return Main.SAME, None
    from multiprocessing import spawn

    data: dict[str, Any] = spawn.get_preparation_data("")
    name, path = data.get("init_main_from_name"), data.get("init_main_from_path")
    if name is not None:
        return Main.OWN_WORKER if name.rpartition(".")[2] == "__main__" else Main.SAME, None
    # ``<stdin>`` is no file; `Path.is_file` may raise
    if path is not None and os.path.isfile(path) and Path(path).stem != "ipython":  # noqa: PTH113
        return Main.SAME, None
    return Main.OWN_WORKER, path


def new_process(method: str, name: str, target: Any, args: tuple[Any, ...]) -> Any:
    """Start a process that does not receive SIGINT (guarantee 14); call it only within `starting`."""
    first: list[Call] = []
    if method == "forkserver":
        first.append(Call(signal.signal, signal.SIGINT, signal.SIG_IGN))
    _, path = main_of_workers(method)
    if path is not None:  # `multiprocessing` does not import a main module that has this path already
        first.append(Call(setattr, Call(importlib.import_module, "__main__"), "__file__", path))
    context: Any = multiprocessing.get_context(method)
    if method != "forkserver":
        process = context.Process(name=_WorkerName(name, first), target=target, args=args)
        if method == "fork":
            process._Popen = _ForkPopen
        else:
            resource_tracker.ensure_running()  # its start may unblock SIGINT
        with _sigint_blocked():
            process.start()
        return process
    for _ in range(2):
        _run_fork_server(path)
        spare = [multiprocessing.Pipe() for _ in range(_PIPES)]  # a client that lacks some leaks others
        del spare
        process = context.Process(name=_WorkerName(name, first), target=target, args=args)
        try:
            process.start()
        except (ConnectionError, EOFError):  # the server was killed: a new one is tried once
            continue
        return process
    raise RuntimeError(SERVER_DIED)


def _run_fork_server(path: str | None) -> None:
    """See to it that there is a fork server."""
    from multiprocessing import forkserver

    server: Any = forkserver._forkserver
    if path is not None and server._preload_modules == ["__main__"]:
        server._preload_modules = []  # not `__main__`, the default: its import would end the server
    if not _SERVER_HAS_OUR_PATH:
        forkserver.ensure_running()
        return
    if _IN_SERVER not in server._preload_modules:
        server._preload_modules = [*server._preload_modules, _IN_SERVER]
    resource_tracker.ensure_running()  # as above
    with _sigint_blocked():
        forkserver.ensure_running()


@contextmanager
def _sigint_blocked() -> Generator[None]:
    """What is started meanwhile begins with SIGINT blocked."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class Setup:
    """What a worker does first and last: its initializer, the arguments of that, and its finalizer.

    `multiprocessing` pickles it as an argument of the process: only then can locks be handed on.
    """

    def __init__(self, settings: Processes, main: Main) -> None:
        self._calls = settings.initializer, settings.initargs, settings.finalizer
        self._main = main

    def __call__(self) -> tuple[Callable[..., object] | None, tuple[Any, ...], Callable[[], object] | None]:
        return self._calls

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (pickle.loads, dumps(self._calls, self._main))  # the worker calls it


class _WorkerName(str):
    """The name of a process; when it is unpickled, `first` is unpickled before.

    Every start method sends the name among the first objects, before it imports the main module.
    """

    __slots__ = ("_first",)

    _first: list[Call]

    def __new__(cls, name: str, first: list[Call]) -> Self:
        self = super().__new__(cls, name)
        self._first = first
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return operator.getitem, ((*self._first, str(self)), len(self._first))


def _fork() -> int:
    return os.fork()


# `warnings` shows nothing for a caller whose module has no name (as for modules at exit).
_fork_quietly: Final = FunctionType(_fork.__code__, {"os": os, "__name__": None})


class _ForkPopen(popen_fork.Popen):
    def _launch(self, process_obj: Any) -> None:
        with ExitStack() as undo:
            ours = os.pipe()
            undo.callback(util.close_fds, *ours)  # type: ignore[attr-defined]
            childs = os.pipe()
            undo.callback(util.close_fds, *childs)  # type: ignore[attr-defined]
            self.pid = _fork_quietly()
            undo.pop_all()
        if not self.pid:
            code = 1
            try:
                os.close(ours[0])
                os.close(childs[1])
                code = process_obj._bootstrap(parent_sentinel=childs[0])
            finally:
                os._exit(code)
        os.close(ours[1])
        os.close(childs[0])
        self.finalizer = util.Finalize(self, util.close_fds, (ours[0], childs[1]))  # type: ignore[attr-defined]
        self.sentinel = ours[0]


os.register_at_fork(after_in_child=_after_fork)
