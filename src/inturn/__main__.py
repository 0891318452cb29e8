"""``python -m inturn``: `ordered_map` at work on real files.

Compresses files in parallel into one archive, in order, and again with a plain loop; compares the two archives, which
must be identical, and the times. The archive is a sequence of gzip members, one per file, without time stamps;
``zcat`` reads it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from . import Stats, ordered_map

_WINDOW = 256  # files differ in size by orders of magnitude: hold many, so that no worker waits behind a big one
_NOT_OURS = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}


class Figures(NamedTuple):
    """What was measured in one pass over the files."""

    first_s: float
    total_s: float
    size: int
    sha256: str


def gzip_member(path: Path) -> bytes:
    """Return the file as one gzip member without a time stamp."""
    return gzip.compress(path.read_bytes(), mtime=0)


def files(path: Path, pattern: str = "*") -> Iterator[Path]:
    """Yield the file, or every file below the directory; `OSError` if there is neither."""
    if path.is_dir():
        yield from (each for each in sorted(path.rglob(pattern)) if each.is_file())
    else:
        path.stat()
        yield path


def standard_library() -> Iterator[Path]:
    """Yield the Python files of the standard library, without its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    return (path for path in files(root, "*.py") if _NOT_OURS.isdisjoint(path.relative_to(root).parts))


def write(members: Iterable[bytes], sink: BinaryIO | None) -> Figures:
    """Write the members in the order in which they come."""
    started, first_s, size, digest = time.perf_counter(), 0.0, 0, hashlib.sha256()
    for member in members:
        first_s = first_s or time.perf_counter() - started
        size += len(member)
        digest.update(member)
        if sink is not None:
            sink.write(member)
    return Figures(first_s, time.perf_counter() - started, size, digest.hexdigest())


def one_line(stats: Stats) -> None:
    """Show progress on a terminal that has no tqdm."""
    total = stats.total or 0
    print(f"\r{stats.delivered} of {total} files", end="\n" if stats.delivered == total else "", file=sys.stderr)


def run(options: argparse.Namespace) -> int:
    """Compress twice, compare, and print the figures; return the exit status."""
    paths = [each for path in options.paths for each in files(path)] if options.paths else list(standard_library())
    if not paths:
        raise ValueError("no files to compress")
    if options.output and any(options.output.resolve() == path.resolve() for path in paths):
        raise ValueError(f"{options.output} is one of the files to compress")
    read = sum(len(path.read_bytes()) for path in paths)  # so that neither pass pays for a cold cache
    progress = find_spec("tqdm") is not None or (one_line if sys.stderr.isatty() else False)
    settings: dict[str, Any] = {"executor": options.executor, "concurrency": options.concurrency, "progress": progress}
    members = ordered_map(gzip_member, paths, window=_WINDOW, **settings)
    with options.output.open("wb") if options.output else nullcontext() as sink, members:
        ours = write(members, sink)
    plain = write(map(gzip_member, paths), None)

    print(f"{len(paths)} files, {read / 1e6:.1f} MB, compressed to {ours.size / 1e6:.1f} MB")
    print(f"plain loop   first result {plain.first_s * 1e3:7.1f} ms   total {plain.total_s:6.2f} s")
    print(f"ordered_map  first result {ours.first_s * 1e3:7.1f} ms   total {ours.total_s:6.2f} s", end="   ")
    print(f"{plain.total_s / ours.total_s:.2f} times as fast ({os.cpu_count()} CPUs, {options.executor})")
    same = ours.sha256 == plain.sha256
    print(f"output       {'the same, byte for byte' if same else 'DIFFERENT'} (sha256 {ours.sha256[:16]})", flush=True)
    return 0 if same else 1


def main() -> int:
    """Read the command line and run; return the exit status."""
    if sys.argv[1:2] == ["prove"]:
        from .testing import _prove as prove

        return _guarded(prove.main, sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="python -m inturn",
        description=(__doc__ or "").partition("\n\n")[2],
        epilog="`python -m inturn prove` shows what inturn promises, beside the standard library.",
    )
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="file or directory; by default Python's standard library"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the archive to this file; by default it is discarded"
    )
    parser.add_argument(
        "-c", "--concurrency", type=int, metavar="N", help="number of calls at once; by default inturn chooses"
    )
    parser.add_argument(
        "-e", "--executor", choices=["thread", "serial"], default="thread", help="the default is %(default)s"
    )
    return _guarded(run, parser.parse_args())


def _guarded(command: Callable[[Any], int], options: Any) -> int:
    """The exit status of the command; of an error that is the user's affair one line is shown."""
    try:
        return command(options)
    except KeyboardInterrupt:
        print("inturn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the program that reads our output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError) as error:
        name = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        print(f"inturn: {name}{getattr(error, 'strerror', None) or error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
