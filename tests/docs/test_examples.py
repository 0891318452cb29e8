"""The programs in `docs/examples` run, and do what they say, at whatever pace."""

import os
import wave

import pytest

from programs import run_example

# How long whatever the examples wait for takes: a service ten times faster, as it is, ten times slower (half a minute each).
PACES = [0.1, 1, *([10] if os.environ.get("INTURN_LONG_TESTS") == "1" else [])]


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("name", ["text_to_speech", "text_to_speech_async"])
def test_text_to_speech_writes_a_real_wav_file_and_the_first_sound_comes_early(name, pace, tmp_path):
    out = run_example(name, "speech.wav", cwd=tmp_path, pace=pace)
    assert "the two files are the same, byte for byte" in out
    first = {
        line.split("first sound")[0].strip(): float(line.split("after")[1].split()[0])
        for line in out.splitlines()
        if "first sound" in line
    }
    usual, ours = first["a list per sentence"], min(value for key, value in first.items() if key.startswith("ordered"))
    assert ours < usual  # it is a sixth of it
    with wave.open(str(tmp_path / "speech.wav")) as file:
        assert file.getnframes() / file.getframerate() > 5.0  # seconds of sound, not of time
