"""``python -m inturn prove``: promises of the README, kept on this machine, beside the standard library.

Each scenario is a function that does one thing with inturn or with the standard library, measures
it, and returns whether the promise is kept, and the figures in words. It runs in a process of its
own, since the standard library hangs in some of them: a process that takes too long is killed with
all its children. What the standard library does never counts as a miss.
"""

from __future__ import annotations

import argparse
import contextvars
import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from multiprocessing import set_start_method
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Final, NamedTuple

from inturn import Failure, WorkerDied, __version__, ordered_map, retry

__all__ = ["SCENARIOS", "Measured", "child", "main"]

_WAIT_S: Final = 1.5  # how long a slow head, a slow source and a worker of the standard library wait
_LIMIT_S: Final = 10.0  # for one side of a scenario
_DEADLOCK_S: Final = 2.0  # for the one that never ends
_ROW: Final = "{:<15} {:<31} {}"


class Measured(NamedTuple):
    """What one side has done: whether that keeps the promise, and the figures, in 31 characters."""

    kept: bool
    text: str


# ---- the scenarios, each with both sides ---------------------------------------------------------


def _results(
    ours: bool, fn: Any, items: Any, *, workers: int = 2, executor: Any = "thread", theirs: Any = (), **options: Any
) -> Iterator[Any]:
    """Those of `ordered_map` with these options, or of `Executor.map` with `theirs`."""
    if ours:
        with ordered_map(fn, items, executor=executor, concurrency=workers, **options) as results:
            yield from results
    else:
        with (ThreadPoolExecutor if executor == "thread" else ProcessPoolExecutor)(workers) as pool:
            yield from pool.map(fn, items, **dict(theirs))


def slow_head(ours: bool) -> Measured:
    """What is done, and held, behind the first item, which ends when 63 others have? ThreadPool.imap."""
    done: list[int] = []
    enough = threading.Event()

    def call(item: int) -> None:
        if item == 0:
            enough.wait(_WAIT_S)
            time.sleep(0.1)  # time for others, if nothing bounds them
            return
        done.append(item)
        if len(done) == 63:
            enough.set()

    if ours:
        with ordered_map(call, count(), concurrency=4, window=64) as results:
            next(results)
            held = len(done)
    else:
        with ThreadPool(4) as pool:
            next(pool.imap(call, range(20_000)))
            held = len(done)
    return Measured(held == 63, f"{held} done and held behind it")


def bounded_source(ours: bool) -> Measured:
    """Items that are read and not yet delivered. Executor.map; from Python 3.14 on with buffersize."""
    read: list[int] = []

    def source(items: Any) -> Iterator[int]:
        for item in items:
            read.append(item)
            yield item

    items = count() if ours else range(20_000)
    bound = {"buffersize": 16} if sys.version_info >= (3, 14) else {}
    results = _results(ours, abs, source(items), workers=4, theirs=bound, window=16)
    most = max(len(read) - delivered for delivered, _ in zip(range(100), results, strict=False))
    return Measured(most <= 16, f"at most {most} read ahead")


def killed_worker(ours: bool) -> Measured:
    """A worker process is killed by SIGKILL. ProcessPoolExecutor.map."""
    results: list[Any] = []
    try:
        results.extend(_results(ours, _killed_at_3, range(8), executor="process", on_error="return"))
    except BrokenExecutor as error:
        return Measured(False, f"{len(results)} of 8, {type(error).__name__}")
    failures = [each for each in results if isinstance(each, Failure)]
    kept = [*results[:3], *results[4:]] == [0, 1, 2, 4, 5, 6, 7] and isinstance(failures[0].error, WorkerDied)
    return Measured(kept, f"{8 - len(failures)} of 8 results, names item {failures[0].index}")


def _killed_at_3(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def ctrl_c(ours: bool) -> Measured:
    """Ctrl-C, while two worker processes are busy for 1.5 s each. ProcessPoolExecutor.map.

    Whoever runs this waits for two lines, and sends SIGINT to the process group.
    """
    list(_results(ours, _busy, range(8), executor="process"))
    return Measured(False, "not interrupted")


def _busy(item: int) -> int:
    os.write(1, b"busy\n")
    time.sleep(_WAIT_S)
    return item


def live_source(ours: bool) -> Measured:
    """The source's next item comes only after 1.5 s, or when the last result is here. Executor.map."""
    arrived = [threading.Event(), threading.Event()]
    came = [0.0, 0.0]
    waits: list[float] = []

    def source() -> Iterator[int]:
        for item in range(2):
            came[item] = time.perf_counter()
            yield item
            arrived[item].wait(_WAIT_S)

    for item in _results(ours, abs, source(), live=True):
        waits.append(time.perf_counter() - came[item])
        arrived[item].set()
    return Measured(max(waits) < _WAIT_S, f"results after {max(waits) * 1e3:.1f} ms at most")


def nesting(ours: bool) -> Measured:
    """A map inside a map on one pool of two threads. Executor.map."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        mapped: Any = partial(ordered_map, executor=pool) if ours else pool.map
        results = list(mapped(lambda item: sum(mapped(abs, range(item))), range(8)))
    ms = (time.perf_counter() - begun) * 1e3
    return Measured(results == [sum(range(item)) for item in range(8)], f"{len(results)} of 8 sums in {ms:.1f} ms")


def leaving(ours: bool) -> Measured:
    """`break`, and the end of the `with` block, after the first of 200 results. Executor.map."""
    calls: list[int] = []

    def call(item: int) -> None:
        calls.append(item)
        time.sleep(0.01)

    if ours:
        with ordered_map(call, range(200), concurrency=4, window=8) as results:
            for _ in results:
                break
    else:
        with ThreadPoolExecutor(4) as pool:
            named = pool.map(call, range(200))
            for _ in named:
                break
    made, left = len(calls), threading.active_count() - 1
    return Measured(made <= 10 and not left, f"{made} of 200 calls, {left} threads left")


def retries(ours: bool) -> Measured:
    """Every second item fails at its first attempt. Executor.map."""
    tried: list[int] = []

    def call(item: int) -> int:
        tried.append(item)
        if item % 2 and tried.count(item) == 1:
            raise ConnectionError("try again")
        return item

    policy = retry(attempts=3, on=ConnectionError, backoff=0.01)
    results: list[int] = []
    with suppress(ConnectionError):
        results.extend(_results(ours, call, range(8), on_error=policy))
    return Measured(results == list(range(8)), f"{len(results)} of 8 results, {len(tried)} calls")


def error(ours: bool) -> Measured:
    """Item 5 fails first of all. Executor.map."""
    failed = threading.Event()

    def call(item: int) -> int:
        if item == 5:
            failed.set()
            raise LookupError("not found")
        failed.wait(_WAIT_S)
        return item

    results: list[int] = []
    notes = ""
    try:
        results.extend(_results(ours, call, range(8), workers=8))
    except LookupError as caught:
        notes = " ".join(getattr(caught, "__notes__", ()))
    named = "names item 5" if "item 5:" in notes else "names no item"
    return Measured(results == [0, 1, 2, 3, 4] and "item 5:" in notes, f"{len(results)} of 5 before it, {named}")


def context(ours: bool) -> Measured:
    """A context variable that is set by the consumer, and then by each call. Executor.map."""
    variable = contextvars.ContextVar("variable", default="nothing")

    def call(item: int) -> bool:
        seen = variable.get()
        variable.set(f"that of item {item}")
        return seen == "yours"

    variable.set("yours")
    seen = sum(_results(ours, call, range(8)))
    return Measured(seen == 8, f"{seen} of 8 calls see yours")


SCENARIOS: Final[dict[str, Callable[[bool], Measured]]] = {
    "slow head": slow_head,
    "bounded source": bounded_source,
    "killed worker": killed_worker,
    "Ctrl-C": ctrl_c,
    "live source": live_source,
    "nesting": nesting,
    "break": leaving,
    "retry": retries,
    "error": error,
    "context": context,
}
_POSIX: Final = ("killed worker", "Ctrl-C")


# ---- one side of a scenario, in a process of its own ---------------------------------------------

_CODE: Final = "import sys; from inturn.testing._prove import child; child(*sys.argv[1:])"


def child(name: str, side: str, method: str) -> None:
    """Run one side of a scenario; print the outcome."""
    if method:
        set_start_method(method)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    measured = SCENARIOS[name](side == "inturn")
    print(json.dumps(measured), flush=True)


def _measure(name: str, side: str, method: str, limit_s: float) -> tuple[Measured, str]:
    """Run one side of a scenario in a process; what it has measured, and its stderr."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(  # noqa: S603 - it runs this file
        [sys.executable, "-c", _CODE, name, side, method],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    begun = 0.0
    late = threading.Event()

    def kill() -> None:
        late.set()
        _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))

    timer = threading.Timer(max(0.0, limit_s), kill)
    timer.start()
    try:
        if name == "Ctrl-C":
            assert process.stdout is not None
            for _ in range(2):
                process.stdout.readline()
            begun = time.perf_counter()
            _signal(process, signal.SIGINT)
        out, err = process.communicate()  # to the end of the last process that could write
        seconds = time.perf_counter() - begun
    except BaseException:
        kill()
        raise
    finally:
        timer.cancel()
    if late.is_set():
        return Measured(False, f"killed: no end in {limit_s:.1f} s"), err
    if name == "Ctrl-C":
        shown = err.count("Traceback (most recent call last)")
        text = f"gone in {seconds:.1f} s, {shown} traceback{'s' * (shown != 1)}"
        return Measured(process.returncode == -signal.SIGINT and shown == 1, text), err
    try:
        return Measured(*json.loads(out.splitlines()[-1])), err
    except (IndexError, ValueError):
        return Measured(False, f"exit status {process.returncode}"), err


def _signal(process: subprocess.Popen[str], number: int) -> None:
    """To the process and all its children, as a terminal does it."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


# ---- the command ---------------------------------------------------------------------------------


def run(names: list[str], method: str, seconds: float) -> int:
    """Print one line for each scenario; return the exit status."""
    begun = time.perf_counter()
    until = begun + seconds
    print(f"inturn {__version__}, Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} CPUs\n")
    print(_ROW.format("", "inturn", "standard library"), flush=True)
    kept = 0
    for name in names:
        ours, err = _measure(name, "inturn", method, min(_LIMIT_S, until - time.perf_counter()))
        limit_s = _DEADLOCK_S if name == "nesting" else _LIMIT_S
        theirs, _ = _measure(name, "standard", method, min(limit_s, until - time.perf_counter()))
        print(_ROW.format(name, ours.text, theirs.text), flush=True)
        kept += ours.kept
        if not ours.kept:
            print(f"MISSED: {name}\n{textwrap.indent(err, '    ')}", flush=True)
    print(f"\n{kept} of {len(names)} promises kept, in {time.perf_counter() - begun:.1f} s", flush=True)
    return 0 if kept == len(names) else 1


def _described(name: str) -> str:
    text = (SCENARIOS[name].__doc__ or "").partition("\n")[0]
    return textwrap.fill(f"{name:<15} {text}", 79, subsequent_indent=" " * 16)


def main(argv: list[str]) -> int:
    """Read the command line and run; return the exit status."""
    names = [name for name in SCENARIOS if os.name == "posix" or name not in _POSIX]
    parser = argparse.ArgumentParser(
        prog="python -m inturn prove",
        description="Show promises of inturn being kept on this machine, beside the standard\n"
        "library. The exit status is 1 if inturn does not keep one. The lines, and what is\n"
        "used of the standard library:\n\n" + "\n".join(map(_described, names)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="run only these")
    parser.add_argument(
        "--start-method", choices=["fork", "forkserver", "spawn"], default="", help="of worker processes"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="for all of it; the default is %(default)s")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in names:
            parser.error(f"there is no {name!r}; there are {', '.join(map(repr, names))}")
    return run(options.names or names, options.start_method, options.seconds)
