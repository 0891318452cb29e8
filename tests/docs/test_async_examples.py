"""The async examples of the documentation run, and say what they should."""

import pytest

from programs import run_example


@pytest.mark.parametrize("pace", [0.1, 1, 10])
def test_g32_an_http_server_streams_results_of_processes_and_goes_on_answering(pace, tmp_path):
    """The example itself checks the order, and that others are answered between two lines of a stream without end."""
    first = round(10**11 * pace**2) + 1  # trial division takes as long as its square root says
    out = run_example("http_stream", cwd=tmp_path, settings={"FIRST": first})
    assert "40 results in order" in out
    assert "40 other requests answered meanwhile" in out
