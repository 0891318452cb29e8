"""The programs in `docs/examples` run, and do what they say, at whatever pace."""

import gzip
import hashlib
import itertools
import os
import threading
import time
import wave
from contextlib import contextmanager
from pathlib import Path

import pytest

from programs import run_example

NAP_S = 0.05
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

# How long whatever the examples wait for takes: a service ten times faster, as it is, ten times slower (half a minute each).
PACES = [0.1, 1, *([10] if os.environ.get("INTURN_LONG_TESTS") == "1" else [])]


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("name", ["text_to_speech", "text_to_speech_async"])
def test_text_to_speech_writes_a_real_wav_file_and_the_same_in_the_usual_way(name, pace, tmp_path):
    out = run_example(name, "speech.wav", cwd=tmp_path, pace=pace)
    assert "the two files are the same, byte for byte" in out
    assert out.splitlines()[-1].startswith("gained: "), out
    with wave.open(str(tmp_path / "speech.wav")) as file:
        assert file.getnframes() / file.getframerate() > 5.0  # seconds of sound, not of time


SHOWN_ELSEWHERE = {
    "api_calls",
    "text_to_speech",
    "text_to_speech_async",
    "video_translation",
}  # have a test of their own


@pytest.mark.parametrize("name", sorted({path.stem for path in EXAMPLES.glob("*.py")} - SHOWN_ELSEWHERE))
def test_each_example_runs_without_arguments_and_ends_with_a_line_that_says_what_was_gained(name, tmp_path):
    out = run_example(name, cwd=tmp_path, pace=0.1)
    assert out.splitlines()[-1].startswith("gained: "), out


def test_the_parallel_gzip_reads_any_directory(tmp_path):
    (tmp_path / "files").mkdir()
    for number in range(40):
        (tmp_path / "files" / f"{number:02}.py").write_text(f"number = {number}\n" * number)
    out = run_example("gzip_files", str(tmp_path / "files"), str(tmp_path / "all.gz"), cwd=tmp_path)
    assert out.startswith("40 files, ")
    expected = "".join(f"number = {number}\n" * number for number in range(40))
    assert gzip.decompress((tmp_path / "all.gz").read_bytes()).decode() == expected


def test_the_checksums_are_those_of_the_files_in_their_order(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text(f"{number}")
    out = run_example("checksums", str(tmp_path), cwd=tmp_path)
    expected = [f"{hashlib.sha256(str(n).encode()).hexdigest()}  {tmp_path / f'{n}.txt'}" for n in range(4)]
    assert out.splitlines()[:4] == expected


@pytest.mark.long
@contextmanager
def how_late():
    """How many times as long as it should a thread takes that sleeps again and again, meanwhile: 1 on an idle machine."""
    over, begun, naps = threading.Event(), time.monotonic(), itertools.count()

    def sleep():
        while not over.wait(NAP_S):
            next(naps)

    thread = threading.Thread(target=sleep)
    thread.start()
    try:
        yield lambda: (time.monotonic() - begun) / (NAP_S * (next(naps) + 1))
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("pace", PACES)
def test_g38_four_stages_take_as_long_as_the_slowest_and_each_lost_segment_is_named_once(pace, tmp_path):
    for attempt in range(3):  # a machine that stands still for a moment has another try
        with how_late() as late:
            out = run_example("video_translation", "film.wav", cwd=tmp_path, pace=pace)
            slowed = max(1.0, late())  # the service is called 20 times a second: on a busy machine, later each time
        assert "80 segments, in order" in out
        assert out.splitlines()[-1].startswith("gained: "), out
        assert "72 of 80 successful (90.0 %), 8 failed (translate 5, transcribe 3):" in out
        lost = [line.split()[1:4] for line in out.splitlines() if line.startswith("  item ")]
        assert lost == [
            [str(number), "in", f"{'transcribe' if number % 29 == 11 else 'translate'}:"]
            for number in range(80)
            if number % 29 == 11 or number % 17 == 5
        ]
        ratio = float(out.partition("all together: ")[2].split()[2])  # from the arrival of the film to its end
        if ratio <= 1.1 * slowed:
            break
        assert attempt < 2, out
