"""Text to speech, sentence by sentence: the first sound after one frame, not after one sentence.

A voice makes audio in frames of 20 ms, faster than it is spoken, but not by much, and it needs a moment before each
sentence. Here no model is at work: `speak` waits as long as one would and hums what it reads. Everything else is as
in earnest: sentences are synthesised side by side, frames are played in order while they are made, and the file is a
real WAV.

    python docs/examples/text_to_speech.py [FILE.wav]

It does the same again in the usual way, a list of frames per sentence, and compares.
"""

from __future__ import annotations

import math
import sys
import time
import wave
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inturn import ordered_flat_map

RATE = 16_000  # samples per second, mono, 16 bits each
FRAME_S = 0.02  # seconds of sound in a frame
LATENCY_S = 0.08  # seconds that the voice thinks before a sentence
PACE = 0.3  # seconds of work per second of sound
WORKERS = 4

TEXT = """It was a bright cold day in April, and the clocks were striking thirteen.
The hallway smelt of boiled cabbage and old rag mats.
Outside, even through the shut window pane, the world looked cold.
Down in the street little eddies of wind were whirling dust and torn paper into spirals.
There seemed to be no colour in anything."""


def speak(sentence: str) -> Iterator[bytes]:
    """Yield the frames of a sentence as they are made: per letter one, a tone, or silence between words."""
    time.sleep(LATENCY_S)
    for letter in sentence:
        time.sleep(FRAME_S * PACE)
        yield frame(letter)


def frame(letter: str) -> bytes:
    """Return 20 ms of sound: 320 samples of 16 bits, little-endian."""
    pitch = 110.0 * 2 ** ((ord(letter.lower()) - ord("a")) % 24 / 12) if letter.isalpha() else 0.0
    count = round(RATE * FRAME_S)
    samples = array(
        "h",
        (round(9_000 * math.sin(math.pi * n / count) * math.sin(2 * math.pi * pitch * n / RATE)) for n in range(count)),
    )
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


def lists(sentences: Iterable[str]) -> Iterator[bytes]:
    """The usual pattern: collect the frames of each sentence in a list, play it when its turn comes."""
    with ThreadPoolExecutor(WORKERS) as executor:
        for frames in executor.map(lambda sentence: list(speak(sentence)), sentences):
            yield from frames


def play(frames: Iterable[bytes], path: Path) -> tuple[float, float]:
    """Write the frames to a WAV file as they come; return the seconds to the first one and to the last."""
    started, first_s = time.perf_counter(), 0.0
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        for samples in frames:
            first_s = first_s or time.perf_counter() - started
            file.writeframes(samples)
    return first_s, time.perf_counter() - started


def main(path: Path) -> None:
    sentences = TEXT.splitlines()
    with ordered_flat_map(speak, sentences, concurrency=WORKERS) as frames:
        live = play(frames, path)
    usual = play(lists(sentences), path.with_suffix(".usual.wav"))

    with wave.open(str(path)) as file:
        seconds = file.getnframes() / file.getframerate()
    print(f"{len(sentences)} sentences, {seconds:.1f} s of sound in {path}")
    print(f"a list per sentence  first sound after {usual[0] * 1e3:5.0f} ms, all after {usual[1]:4.1f} s")
    print(f"ordered_flat_map     first sound after {live[0] * 1e3:5.0f} ms, all after {live[1]:4.1f} s")
    same = path.read_bytes() == path.with_suffix(".usual.wav").read_bytes()
    print(f"the two files are {'the same' if same else 'DIFFERENT'}, byte for byte")
    print(f"gained: sound began after {live[0] / usual[0]:.0%} of the time that a list per sentence takes")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "speech.wav"))
