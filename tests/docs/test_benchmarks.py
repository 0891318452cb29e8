"""The benchmarks are no tests, but their command works, and their page knows each of their rows."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

ROWS = """
import runpy
runpy.run_path("tests/bench/__main__.py", run_name="benchmarks")
from bench import harness
print(*sorted(harness.ROWS, key=harness.in_order))
"""


def test_all_rows_are_run_in_their_order_and_described_by_the_docs():
    done = subprocess.run([sys.executable, "-c", ROWS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = done.stdout.split()
    numbered = [row for row in rows if row[0] == "P"]
    assert numbered == sorted(numbered, key=lambda row: int(row[1:]))
    pages = "".join((ROOT / "docs" / page).read_text() for page in ("benchmarks.md", "tuning.md"))
    assert [row for row in rows if f"\n| {row} |" not in pages and f"--rows {row} " not in pages] == []
