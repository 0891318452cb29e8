"""How a worker process is started: which start method, and what has to hold still meanwhile.

What ``multiprocessing`` does is used as it is, but for three things:

- *fork while slots run.* A worker that is replaced, or started late, is forked while the threads of other slots
  exist. A slot holds its `awake_lock` while it runs code of the user (pickling and unpickling, with all the imports
  that this may bring), and a thread that forks takes the locks of all slots first. Besides, the thread that pulls
  waits in C while workers are forked. So no lock of the interpreter or of a module is copied while it is held.
- *silence.* ``os.fork`` warns about threads, since Python 3.12. These threads are ours and hold still.
- *Ctrl-C.* A worker that is still being born must not see it: its signal mask is inherited, or where a server forks it,
  set by the first thing that it unpickles.
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
from time import perf_counter as clock
from types import FunctionType
from typing import Any, Final

from inturn._core.threads import CallThread
from inturn._transport.pickling import Main

__all__ = ["GUARD", "NO_GUARD", "awake_lock", "choose_method", "main_of_workers", "new_process", "owned", "starting"]

NO_GUARD: Final = 78
"""The exit code of a worker whose ``__main__`` starts a run while it is being imported."""

GUARD: Final = 'put the code that starts it under `if __name__ == "__main__":`'
SERVER_DIED: Final = f"the fork server ended while it imported the main module; if that starts a run, {GUARD}"

_PIPES: Final = 4  # as many as a forkserver's client opens on its way to a process, and more
_PATIENCE_S: Final = 0.25  # how long a fork waits for slots that run code of the user

owned: Final[set[Any]] = set()
"""What a forked child, a worker or not, has no business with: the parent's ends, and the memory it shares with workers.

Each has a ``close``. Changed while `_forking` is held only.
"""

_forking = threading.Lock()

_awake: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def awake_lock() -> Any:
    """The lock that a slot holds while it runs code of the user; needed where workers are forked."""
    lock = threading.Lock()
    with _forking:
        _awake.add(lock)
    return lock


@contextmanager
def starting(method: str) -> Generator[None]:
    """While a worker is started, and while descriptors of ours are opened or closed."""
    with _forking:
        if method != "fork":
            yield
            return
        until = clock() + _PATIENCE_S
        held = [each for each in list(_awake) if each.acquire(timeout=max(0.0, until - clock()))]
        try:
            yield
        finally:
            for each in held:
                each.release()


def _after_fork() -> None:
    """In a forked child, ours or another's, nothing is held, and nothing kept of what its parent lets go."""
    global _forking
    _forking = threading.Lock()
    for each in owned:
        try:
            each.close()
        except (OSError, BufferError):  # memory that another thread was just reading
            pass
    owned.clear()
    _awake.clear()


# ---- start methods -------------------------------------------------------------------------------


def choose_method(wanted: str | None) -> str:
    """What ``multiprocessing`` would use; ``forkserver`` instead of ``fork`` beside threads that are not ours.

    Guarantee 28.
    """
    if wanted is not None:
        return wanted
    methods = multiprocessing.get_all_start_methods()
    method = multiprocessing.get_start_method(allow_none=True) or methods[0]
    if method == "fork" and "forkserver" in methods and _others():
        return "forkserver"
    return method


def _others() -> bool:
    me = threading.current_thread()
    return any(
        each is not me and not isinstance(each, CallThread) and not each.name.startswith("inturn-")
        for each in threading.enumerate()
    )


def main_of_workers(method: str) -> Main:
    """Whether a worker has the module ``__main__`` as it is here.

    `multiprocessing` imports a script, or the module of ``python -m``, for it. It imports no ``__main__.py`` (of a
    package, a directory or an archive), and has nothing to import for a notebook or ``python -c``.
    """
    if method == "fork":
        return Main.SAME
    from multiprocessing import spawn

    data: dict[str, Any] = spawn.get_preparation_data("")
    name = data.get("init_main_from_name")
    if name is not None:
        there = name != "__main__" and not name.endswith(".__main__")
    else:
        there = _importable(data.get("init_main_from_path"))
    return Main.SAME if there else Main.OWN_WORKER


def _importable(path: str | None) -> bool:
    """Whether a main module from there is imported by a worker; a program from standard input is called a file, too."""
    return path is not None and os.path.isfile(path) and os.path.splitext(os.path.basename(path))[0] != "ipython"  # noqa: PTH113, PTH119, PTH122


def new_process(method: str, name: str, target: Any, args: tuple[Any, ...]) -> Any:
    """Start a process; within `starting` only.

    Raises:
        OSError: No further process or descriptor can be had.
        RuntimeError: The fork server cannot import the main module.
    """
    if method == "forkserver":
        from multiprocessing import forkserver

        server: Any = forkserver._forkserver
        path = _main_path()
        if path is not None and not _importable(path) and server._preload_modules == ["__main__"]:
            server.set_forkserver_preload([])  # the default, which would be the end of the server
        for attempt in (1, 2):
            forkserver.ensure_running()
            _have_descriptors()
            context: Any = multiprocessing.get_context(method)
            process = context.Process(name=_IgnoringName(name), target=target, args=args)
            try:
                process.start()
            except (ConnectionError, EOFError):  # killed, which a new one makes up for, or it cannot be had
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
    """Unpickling it makes a process ignore SIGINT; it takes nothing but the standard library."""

    def __reduce__(self) -> tuple[Any, ...]:
        return signal.signal, (signal.SIGINT, signal.SIG_IGN)


class _Main:
    """Is unpickled as the main module of the one who unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("__main__",)


class _MainImported:
    """Unpickling it makes `multiprocessing` believe that a main module which cannot be imported has been."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (_Main(), "__file__", self._path)


class _WorkerName(str):
    """A name of a process, among the first things that it is sent."""

    __slots__ = ()

    ignores_interrupts = False

    def __reduce__(self) -> tuple[Any, ...]:
        first: list[Any] = [_Ignoring()] if self.ignores_interrupts else []
        path = _main_path()
        if path is not None and not _importable(path):
            first.append(_MainImported(path))
        return operator.getitem, ((*first, str(self)), len(first))


class _IgnoringName(_WorkerName):
    """Of a process that is forked by a server, whose signal mask is not ours."""

    __slots__ = ()

    ignores_interrupts = True


def _main_path() -> str | None:
    """What `multiprocessing` would import as a worker's main module, without looking whether it is there."""
    from multiprocessing import process

    main = sys.modules["__main__"]
    path: str | None = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None:
        return None
    start: str | None = process.ORIGINAL_DIR  # type: ignore[attr-defined]
    return os.path.normpath(path if start is None else os.path.join(start, path))  # noqa: PTH118


def _fork() -> int:
    return os.fork()


# A warning is not shown where the module of its caller has no name, as happens when the interpreter exits.
_fork_quietly: Final = FunctionType(_fork.__code__, {"os": os, "__name__": None})


def _pipe(undo: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        undo.callback(os.close, end)
    return ends


def _have_descriptors() -> None:
    """Fail now if there are too few: a client that fails half-way loses some, and its server complains on stderr."""
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
