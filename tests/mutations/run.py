"""Breaks the library on purpose: does a test notice?

Each mutation is applied to a copy of `src`, and the test that is named with it is run on that copy. A mutation is caught
if the test fails, or does not end. First all these tests are run on `src` as it is: they must pass. Two run at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .listed import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "contributing.md"
BEGIN, END = "<!-- mutations: begin -->\n", "<!-- mutations: end -->\n"
LIMIT_S = 120.0  # for the test of one mutation
HANG_S = 40  # after which pytest ends the test of a mutation: it waits for what does not come
FAILED, PASSED = 1, 0  # exit statuses of pytest; others say that it could not run the test

PROGRAM = """
import sys, pytest, inturn
assert inturn.__file__.startswith(sys.argv[1]), inturn.__file__
sys.exit(pytest.main(sys.argv[2:]))
"""


def apply(mutation: Mutation, src: Path) -> None:
    """Replace the text in this copy of `src`.

    Raises:
        ValueError: It does not occur exactly once.
    """
    found = []
    for path in (src / "inturn" / mutation.wing).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        found += [(path, text)] * text.count(mutation.old)
    if len(found) != 1:
        raise ValueError(f"{mutation.old!r} occurs {len(found)} times in {mutation.wing}: {mutation.what}")
    ((path, text),) = found
    mutated = text.replace(mutation.old, mutation.new)
    compile(mutated, str(path), "exec")
    path.write_text(mutated, encoding="utf-8")


def check(mutation: Mutation) -> tuple[bool, str, float]:
    """Whether the mutation is caught, how, and the seconds that took."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as directory:
        src = Path(directory).resolve() / "src"
        shutil.copytree(ROOT / "src", src, ignore=shutil.ignore_patterns("__pycache__"))
        apply(mutation, src)
        begun = time.monotonic()
        status, out = pytest(src, [mutation.test], LIMIT_S, f"--timeout={HANG_S}")
        seconds = time.monotonic() - begun
    if status is None:
        return True, "it hangs", seconds
    if status == FAILED or "! KeyboardInterrupt" in out:
        return True, "it fails", seconds
    return False, f"SURVIVES (exit status {status})\n{out}" if status != PASSED else "SURVIVES", seconds


def pytest(src: Path, tests: list[str], limit_s: float, *arguments: str) -> tuple[int | None, str]:
    """The exit status of pytest on this copy of `src`, or None if it did not end, and what it has printed."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            PROGRAM,
            str(src),
            "-qx",
            "-pno:cacheprovider",
            *arguments,
            *map("tests/{}".format, tests),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(src), "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_PROFILE": "unshrunk"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=limit_s)
        return process.returncode, out
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)  # workers of a library that is broken may stay
        except ProcessLookupError:
            pass
        process.communicate()


def table() -> str:
    """The list for `docs/contributing.md`."""
    rows = ["| what is broken | in | the test that fails |", "| --- | --- | --- |"]
    rows += [f"| {each.what} | `{each.wing}` | `{each.test.rpartition('::')[2]}` |" for each in MUTATIONS]
    return "\n".join(rows) + "\n"


def write() -> None:
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}{table()}{END}{rest.partition(END)[2]}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/mutations", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument(
        "words", nargs="*", help="only mutations whose description, wing or test has one of these words"
    )
    parser.add_argument("--write", action="store_true", help="only write the list into docs/contributing.md")
    parser.add_argument("-n", type=int, default=2, metavar="N", help="how many run at once; the default is %(default)s")
    options = parser.parse_args()
    if options.write:
        write()
        return 0
    chosen = [each for each in MUTATIONS if not options.words or any(word in " ".join(each) for word in options.words)]
    tests = sorted({each.test for each in chosen})
    status, out = pytest(ROOT / "src", tests, LIMIT_S * 4, "-n", str(options.n))
    if status != PASSED:
        print(out, "\nthe tests do not pass on src as it is", sep="")
        return 2
    survived = 0
    with ThreadPoolExecutor(options.n) as pool:
        for mutation, (caught, how, seconds) in zip(chosen, pool.map(check, chosen), strict=True):
            survived += not caught
            print(f"{how:<9} {seconds:5.1f} s  {mutation.what} ({mutation.test.rpartition('::')[2]})", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutations are caught")
    return 1 if survived else 0
