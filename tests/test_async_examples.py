"""The async examples of the documentation run, and say what they should."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def test_g32_an_http_server_streams_results_of_processes_and_goes_on_answering():
    """The example itself checks the order, that lines come one by one, and that other requests are answered."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "http_stream.py"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert not [line for line in said if not line.startswith("Executing ")]  # in debug mode: the machine is loaded
    assert "40 results in order" in done.stdout
    assert "other requests answered meanwhile" in done.stdout
