"""Checksums of a directory tree, in the order of the files, as `sha256sum` writes them.

The tree is walked while files are read: the first line is printed long before the last file has been found, and at
most `WINDOW` files are under way, however large the tree is. A file that cannot be read is a line of its own in its
place, and ends nothing.

    python docs/examples/checksums.py [DIRECTORY]

Without an argument it reads the package `email` of Python's standard library, and a file that is not there. It does the
same again in a plain loop, and compares.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from inturn import Failure, ordered_map

WORKERS = 8  # reading waits for the disk, or for a network
WINDOW = 16


def walk(root: Path) -> Iterator[Path]:
    """Yield the files below a directory, one after the other, sorted."""
    with os.scandir(root) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False) and entry.name != "__pycache__":
            yield from walk(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def checksum(path: Path) -> str:
    """Return the line of a file."""
    with path.open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path}"


def unreadable(failure: Failure) -> str:
    """Return the line that takes the place of a file that cannot be read."""
    return f"{'unreadable: ' + type(failure.error).__name__:64}  {failure.item}"


def counted(paths: Iterable[Path], found: list[Path]) -> Iterator[Path]:
    """Pass the paths on, and note how far the walk is."""
    for path in paths:
        found.append(path)
        yield path


def plainly(path: Path) -> str:
    try:
        return checksum(path)
    except OSError as error:
        return f"{'unreadable: ' + type(error).__name__:64}  {path}"


def main(root: Path, more: list[Path]) -> None:
    found: list[Path] = []
    lines: list[str] = []
    first = 0
    started = time.perf_counter()
    source = counted(chain(more, walk(root)), found)
    with ordered_map(checksum, source, concurrency=WORKERS, window=WINDOW, on_error=unreadable) as results:
        for line in results:
            first = first or len(found)
            lines.append(line)
            if len(lines) <= 5:
                print(line)
    ours = time.perf_counter() - started
    assert len(found) == len(lines), "each file has a line"
    assert first <= WINDOW, "so many files are under way at most"

    started = time.perf_counter()
    usual = [plainly(path) for path in chain(more, walk(root))]
    plain = time.perf_counter() - started
    assert lines == usual, "the lines are those of the plain loop, in its order"

    failed = sum(line.startswith("unreadable") for line in lines)
    print(f"... {len(lines)} lines in the order of the files, {failed} of them unreadable")
    print(f"plain loop {plain:.3f} s, ordered_map {ours:.3f} s (on files that are in memory; a disk gains more)")
    print(f"gained: the first line was there when {first} of {len(found)} files had been found, and no error ended it")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), [])
    else:
        main(Path(sysconfig.get_path("stdlib"), "email"), [Path("no-such-file")])
