"""The programs in `docs/examples` run, and do what they say."""

import subprocess
import sys
import wave
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.mark.parametrize("name", ["text_to_speech", "text_to_speech_async"])
def test_text_to_speech_writes_a_real_wav_file_and_the_first_sound_comes_early(name, tmp_path):
    out = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), "speech.wav"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the two files are the same, byte for byte" in out.stdout
    first = {
        line.split("first sound")[0].strip(): float(line.split("after")[1].split()[0])
        for line in out.stdout.splitlines()
        if "first sound" in line
    }
    usual, ours = first["a list per sentence"], min(value for key, value in first.items() if key.startswith("ordered"))
    assert ours < usual
    with wave.open(str(tmp_path / "speech.wav")) as file:
        assert file.getnframes() / file.getframerate() > 5.0
