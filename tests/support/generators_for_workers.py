"""Generator functions that a worker process can import: what the tests of flat maps run there."""

import os
import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from functions_for_workers import Oops, Unreadable


class NoWayBack:
    """Pickles, and does not unpickle."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def steps(x: int) -> Iterator[tuple[int, int]]:
    """Zero to four elements."""
    for n in range(x % 5):
        yield x, n


def counting(x: Any) -> Iterator[int]:
    yield from count()


def numbers(n: int) -> range:
    return range(n)


def same(x: Any) -> Any:
    return x


def letters(a: str, b: int) -> list[str]:
    return [a] * b


def breaks_after(n: int, x: Any) -> Iterator[tuple[Any, int]]:
    for k in range(n):
        yield x, k
    raise Oops(x)


def dies_after(n: int, bad: int, x: int) -> Iterator[tuple[int, int]]:
    """Is killed once its elements have been taken: with a buffer of one the last of them is on its way before."""
    for k in range(n):
        yield x, k
    if x == bad:
        os.kill(os.getpid(), signal.SIGKILL)


def exits(x: Any) -> Iterator[Any]:
    yield x
    os._exit(0)


def dies_while_it_is_closed(x: Any) -> Iterator[int]:
    try:
        yield from count()
    finally:
        os._exit(3)


def stuck_after(n: int, bad: int, x: int) -> Iterator[tuple[int, int]]:
    for k in range(n):
        yield x, k
    if x == bad:
        time.sleep(3600)


def notes(directory: str, x: Any) -> Iterator[int]:
    """Endless; writes a line for each element, and a last one when it is closed."""
    path = Path(directory) / str(x)
    with path.open("w", buffering=1) as file:
        try:
            for n in count():
                file.write(f"{n}\n")
                yield n
        finally:
            file.write("closed\n")


def never_closes(x: Any) -> Iterator[int]:
    try:
        yield from count()
    finally:
        time.sleep(3600)


def busy(x: Any) -> Iterator[int]:
    yield 0
    time.sleep(3600)


def flaky(directory: str, fails: int, x: Any) -> Iterator[Any]:
    """Fails so often, then makes two elements; it counts with files, as each attempt may run in a process of its own."""
    attempt = len(list(Path(directory).iterdir()))
    if attempt < fails:
        (Path(directory) / str(attempt)).touch()
        raise Oops(x)
    yield x
    yield x


def flaky_head(directory: str, fails: int, x: int) -> Iterator[Any]:
    return flaky(directory, fails, x) if x == 0 else iter([x] * 20)


def dies_at_first(directory: str, x: int) -> Iterator[int]:
    """Takes its process with it the first two times that item 0 runs; the others make more than their buffer holds."""
    attempt = len(list(Path(directory).iterdir()))
    if x == 0 and attempt < 2:
        (Path(directory) / str(attempt)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    for _ in range(20):
        yield x


def stuck_at_first(directory: str, x: int) -> Iterator[int]:
    """Does not come back the first two times that item 0 runs; the others make more than their buffer holds.

    Each attempt leaves a file, whose name begins with the item.
    """
    attempt = len(list(Path(directory).glob(f"{x}-*")))
    (Path(directory) / f"{x}-{attempt}").touch()
    if x == 0 and attempt < 2:
        time.sleep(3600)
    for _ in range(20):
        yield x


def unpicklable(x: Any) -> Iterator[Any]:
    yield x
    yield lambda: x


def no_way_back(x: Any) -> Iterator[Any]:
    yield x
    yield NoWayBack()
    yield x


def blobs(size: int, x: int) -> Iterator[Any]:
    for n in range(10):
        yield bytes([x + n]) * size
        yield [bytearray(size), x + n]


def aliases(x: Any) -> Iterator[list[int]]:
    shared: list[int] = []
    for n in range(5):
        shared.append(n)
        yield shared


def paced(seconds: float, x: Any) -> Iterator[tuple[Any, int]]:
    for n in range(5):
        yield x, n
        if n == 3:
            time.sleep(seconds)


def pid(x: Any) -> list[int]:
    return [os.getpid()]


class Token:
    """Something that can be pickled, and referred to weakly."""


def yields_unreadable(x):
    yield Unreadable(x)


def large_then_slow(n: int) -> Iterator[Any]:
    yield bytes(100_000)
    for i in range(n):
        time.sleep(0.0015)
        yield i


def large_for_ever(closed: str) -> Iterator[bytes]:
    try:
        while True:
            yield bytes(100_000)
    finally:
        Path(closed).touch()
