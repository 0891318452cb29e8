"""What can happen to a worker process: functions and items that die, at every stage and in every way."""

import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def segfault() -> None:
    import faulthandler

    faulthandler.disable()  # its report would be printed
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(1)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def killed_from_outside() -> None:
    """Another process kills this one, which waits for it."""
    import subprocess

    subprocess.Popen(["kill", "-9", str(os.getpid())], start_new_session=True)
    signal.pause()


def exit_0() -> None:
    os._exit(0)


def exit_1() -> None:
    os._exit(1)


def out_of_memory() -> None:
    """As the kernel's killer does it: a signal, without warning, in the midst of an allocation."""
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 29, 1 << 29))
    hoard = []
    try:
        while True:
            hoard.append(bytearray(1 << 24))
    except MemoryError:
        kill_self()


WAYS: dict[str, tuple[Callable[[], None], int]] = {
    "SIGSEGV": (segfault, -signal.SIGSEGV),
    "SIGKILL": (kill_self, -signal.SIGKILL),
    "outside": (killed_from_outside, -signal.SIGKILL),
    "exit0": (exit_0, 0),
    "exit1": (exit_1, 1),
    "memory": (out_of_memory, -signal.SIGKILL),
}


def die(way: str) -> None:
    WAYS[way][0]()
    raise AssertionError("still alive")


class DiesUnpickled:
    """An item, or a result, whose unpickling is the end of a process other than `home`."""

    def __init__(self, way: str, home: int) -> None:
        self.way = way
        self.home = home

    def __reduce__(self) -> tuple[Any, ...]:
        return revive, (self.way, self.home)


def revive(way: str, home: int) -> "DiesUnpickled":
    if os.getpid() != home:
        die(way)
    return DiesUnpickled(way, home)


class DiesPickled:
    """A result whose pickling is the end of the process."""

    def __init__(self, way: str) -> None:
        self.way = way

    def __reduce__(self) -> tuple[Any, ...]:
        die(self.way)
        raise AssertionError


def note_run(directory: str, i: int) -> None:
    """Leave a trace of one run of item i: a byte in a file of its own."""
    fd = os.open(f"{directory}/{i}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, b".")
    os.close(fd)


def runs(directory: Any) -> dict[int, int]:
    return {int(path.name): path.stat().st_size for path in Path(directory).iterdir()}


def victim(directory: str, bad: int, stage: str, way: str, i: Any) -> Any:
    """Run item i; at the bad one, die in the given way at the given stage."""
    if isinstance(i, DiesUnpickled):
        raise AssertionError("it has survived its unpickling")
    note_run(directory, i)
    if i == bad:
        if stage == "running":
            die(way)
        if stage == "result":
            return DiesPickled(way)
    return i * 10


def dies_between(directory: str, bad: int, way: str, i: int) -> int:
    """Item `bad` returns; its process dies while no item runs, when the consumer has `delivered` that result."""
    import threading

    note_run(directory, i)
    if i == bad:
        threading.Thread(target=_die_when_it_is_delivered, args=(directory, way), daemon=True).start()
    return i * 10


def delivered(directory: object) -> None:
    Path(f"{directory}.delivered").touch()


def _die_when_it_is_delivered(directory: str, way: str) -> None:
    while not os.path.exists(f"{directory}.delivered"):
        time.sleep(0.002)
    die(way)


def hold_the_gil(seconds: float) -> None:
    """Take time in C, and let no other thread run."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
