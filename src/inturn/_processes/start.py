"""How a worker process is started.

`multiprocessing` starts it, with three additions.

*Fork and locks.* A worker that replaces another one, or is started late, is forked while the
threads of other slots run. A forked child has one thread and a copy of every lock; a lock that
another thread held at that moment stays locked in the child for ever: the child's next import may
hang. What does not work: to fork only before there are threads (workers are replaced later);
``forkserver`` always (the initializer would have to be picklable, and users may ask for ``fork``);
to reset locks in the child (those of the user's modules are unknown). What works: our threads take
such locks only where they run code of the user, that is, where they pickle and unpickle, which may
import modules. There a slot holds a lock of its own (`user_code_lock`). The thread that forks takes
the locks of all slots first (`starting`), so that no slot is inside code of the user. The thread
that pulls from the source waits in C while workers are forked. The fork waits for slots for at most
`_FORK_WAIT_S`: code of the user may never end.

*Warnings.* Since Python 3.12 ``os.fork`` warns if there are other threads. For the reason above
ours do no harm, so the warning is suppressed.

*Ctrl-C.* A worker must not receive SIGINT before it has set its own handler. A child inherits the
signal mask, so SIGINT is blocked while it is started. A child of a fork server inherits that
server's mask: there the first object that the child unpickles makes it ignore SIGINT.
"""

from __future__ import annotations

import importlib
import multiprocessing
import operator
import os
import signal
import sys
import threading
import weakref
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from multiprocessing import popen_fork, util
from types import FunctionType
from typing import Any, Final

from inturn._base.clock import clock
from inturn._core.threads import CallThread
from inturn._transport.pickling import Main

__all__ = [
    "GUARD",
    "NO_GUARD",
    "choose_method",
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

_PIPES: Final = 4  # more than a client of the fork server opens to start a process
_FORK_WAIT_S: Final = 0.25  # how long a fork waits for slots that run code of the user, in seconds

owned: Final[set[Any]] = set()
"""Descriptors of the parent's side, to be closed in any forked child.

Each has a ``close``. Changed only while `_forking` is held.
"""

_forking = threading.Lock()

_user_code_locks: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def user_code_lock() -> Any:
    """A new lock, for a slot to hold while it runs code of the user."""
    lock = threading.Lock()
    with _forking:
        _user_code_locks.add(lock)
    return lock


@contextmanager
def starting(method: str) -> Generator[None]:
    """To be held while a worker is started, and while `owned` changes."""
    with _forking:
        if method != "fork":
            yield
            return
        until = clock() + _FORK_WAIT_S
        held = [each for each in list(_user_code_locks) if each.acquire(timeout=max(0.0, until - clock()))]
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
        try:
            each.close()
        except (OSError, BufferError):  # another thread of the parent was reading this memory
            pass
    owned.clear()
    _user_code_locks.clear()


# ---- start methods -------------------------------------------------------------------------------


def choose_method(wanted: str | None) -> str:
    """The start method (guarantee 28): what ``multiprocessing`` would use, with one exception.

    Where the process has threads that are not ours, it is ``forkserver`` instead of ``fork``.
    """
    if wanted is not None:
        return wanted
    methods = multiprocessing.get_all_start_methods()
    method = multiprocessing.get_start_method(allow_none=True) or methods[0]
    if method == "fork" and "forkserver" in methods and _has_other_threads():
        return "forkserver"
    return method


def _has_other_threads() -> bool:
    me = threading.current_thread()
    return any(
        each is not me and not isinstance(each, CallThread) and not each.name.startswith("inturn-")
        for each in threading.enumerate()
    )


def main_of_workers(method: str) -> Main:
    """What workers know of the module ``__main__``.

    In a worker `multiprocessing` imports a script, or the module of ``python -m``. It imports no
    file ``__main__.py`` (of a package, a directory or an archive), and for a notebook or
    ``python -c`` there is nothing to import.
    """
    if method == "fork":
        return Main.SAME
    from multiprocessing import spawn

    data: dict[str, Any] = spawn.get_preparation_data("")
    name = data.get("init_main_from_name")
    if name is not None:
        imported = name != "__main__" and not name.endswith(".__main__")
    else:
        imported = _importable(data.get("init_main_from_path"))
    return Main.SAME if imported else Main.OWN_WORKER


def _importable(path: str | None) -> bool:
    """Whether a worker imports the main module from this path; ``<stdin>`` is no file."""
    return path is not None and os.path.isfile(path) and os.path.splitext(os.path.basename(path))[0] != "ipython"  # noqa: PTH113, PTH119, PTH122


def new_process(method: str, name: str, target: Any, args: tuple[Any, ...]) -> Any:
    """Start a process that does not receive SIGINT (guarantee 14); call it only within `starting`.

    Raises:
        OSError: The system refuses another process or descriptor.
        RuntimeError: The fork server cannot import the main module.
    """
    if method == "forkserver":
        from multiprocessing import forkserver

        server: Any = forkserver._forkserver
        path = _main_path()
        if path is not None and not _importable(path) and server._preload_modules == ["__main__"]:
            server.set_forkserver_preload([])  # not `__main__`, the default: its import would end the server
        for attempt in (1, 2):
            forkserver.ensure_running()
            _have_descriptors()
            context: Any = multiprocessing.get_context(method)
            process = context.Process(name=_IgnoringName(name), target=target, args=args)
            try:
                process.start()
            except (ConnectionError, EOFError):  # the server was killed: a new one is tried once
                if attempt == 2:
                    raise RuntimeError(SERVER_DIED) from None
            else:
                return process
    context = multiprocessing.get_context(method)
    kind: Any = _ForkProcess if method == "fork" else context.Process
    process = kind(name=_WorkerName(name), target=target, args=args)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return process


class _Ignoring:
    """When it is unpickled, the process ignores SIGINT. It needs the standard library only."""

    def __reduce__(self) -> tuple[Any, ...]:
        return signal.signal, (signal.SIGINT, signal.SIG_IGN)


class _Main:
    """When it is unpickled, it is the main module of that process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("__main__",)


class _MainImported:
    """When it is unpickled, `multiprocessing` no longer tries to import the main module.

    `multiprocessing` compares ``__main__.__file__`` with the path. Used if it cannot be imported.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (_Main(), "__file__", self._path)


class _WorkerName(str):
    """The name of a process, which runs code when it is unpickled.

    Every start method sends the name among the first objects, before it imports the main module.
    """

    __slots__ = ()

    ignores_interrupts = False

    def __reduce__(self) -> tuple[Any, ...]:
        first: list[Any] = [_Ignoring()] if self.ignores_interrupts else []
        path = _main_path()
        if path is not None and not _importable(path):
            first.append(_MainImported(path))
        return operator.getitem, ((*first, str(self)), len(first))


class _IgnoringName(_WorkerName):
    """The name of a process that a fork server forks."""

    __slots__ = ()

    ignores_interrupts = True


def _main_path() -> str | None:
    """Where `multiprocessing` would import the main module from, whether it exists or not."""
    from multiprocessing import process

    main = sys.modules["__main__"]
    path: str | None = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None:
        return None
    start: str | None = process.ORIGINAL_DIR  # type: ignore[attr-defined]
    return os.path.normpath(path if start is None else os.path.join(start, path))  # noqa: PTH118


def _fork() -> int:
    return os.fork()


# `warnings` shows nothing for a caller whose module has no name (as for modules at exit).
_fork_quietly: Final = FunctionType(_fork.__code__, {"os": os, "__name__": None})


def _pipe(undo: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        undo.callback(os.close, end)
    return ends


def _have_descriptors() -> None:
    """Raise `OSError` if too few descriptors are left.

    A client of the fork server that runs out of them half-way leaks some, and the server writes a
    traceback to stderr.
    """
    with ExitStack() as undo:
        for _ in range(_PIPES):
            _pipe(undo)


class _ForkPopen(popen_fork.Popen):
    def _launch(self, process_obj: Any) -> None:
        with ExitStack() as undo:
            ours = _pipe(undo)
            childs = _pipe(undo)
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


class _ForkProcess(multiprocessing.get_context("fork").Process):  # type: ignore[misc]
    @staticmethod
    def _Popen(process_obj: Any) -> _ForkPopen:  # noqa: N802 - multiprocessing names it so
        return _ForkPopen(process_obj)


os.register_at_fork(after_in_child=_after_fork)
