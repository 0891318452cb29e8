"""Text to speech with asyncio: the voice is a service, and the text is still being written while it is spoken.

As `text_to_speech`, but `speak` is an async generator function, as a client of a streaming service is, and the
sentences come from an async generator, as those of a language model do: one now and then. They are spoken in order,
several at once, and the first sound comes after one frame of the first sentence.

    python docs/examples/text_to_speech_async.py [FILE.wav]

It does the same again in the usual way, a list of frames per sentence, and compares.
"""

from __future__ import annotations

import asyncio
import sys
import time
import wave
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

from text_to_speech import FRAME_S, LATENCY_S, PACE, RATE, TEXT, WORKERS, frame

from inturn import ordered_aflat_map, ordered_amap

WRITING_S = 0.15  # seconds that each sentence takes to be written


async def sentences() -> AsyncIterator[str]:
    """Yield the text as it is written."""
    for sentence in TEXT.splitlines():
        await asyncio.sleep(WRITING_S)
        yield sentence


async def speak(sentence: str) -> AsyncIterator[bytes]:
    """Yield the frames of a sentence as the service sends them."""
    await asyncio.sleep(LATENCY_S)
    for letter in sentence:
        await asyncio.sleep(FRAME_S * PACE)
        yield frame(letter)


async def spoken(sentence: str) -> list[bytes]:
    """The usual pattern: the frames of a sentence in a list."""
    return [samples async for samples in speak(sentence)]


async def lists() -> AsyncIterator[bytes]:
    async with ordered_amap(spoken, sentences(), concurrency=WORKERS) as results:
        async for frames in results:
            for samples in frames:
                yield samples


async def play(frames: AsyncIterable[bytes], path: Path) -> tuple[float, float]:
    """Write the frames to a WAV file as they come; return the seconds to the first one and to the last."""
    started, first_s = time.perf_counter(), 0.0
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        async for samples in frames:
            first_s = first_s or time.perf_counter() - started
            file.writeframes(samples)
    return first_s, time.perf_counter() - started


async def main(path: Path) -> float:
    async with ordered_aflat_map(speak, sentences(), concurrency=WORKERS) as frames:
        live = await play(frames, path)
    usual = await play(lists(), path.with_suffix(".usual.wav"))
    print(f"a list per sentence  first sound after {usual[0] * 1e3:5.0f} ms, all after {usual[1]:4.1f} s")
    print(f"ordered_aflat_map    first sound after {live[0] * 1e3:5.0f} ms, all after {live[1]:4.1f} s")
    return live[0] / usual[0]


if __name__ == "__main__":
    wav = Path(sys.argv[1] if len(sys.argv) > 1 else "speech.wav")
    share = asyncio.run(main(wav))
    same = wav.read_bytes() == wav.with_suffix(".usual.wav").read_bytes()
    print(f"the two files are {'the same' if same else 'DIFFERENT'}, byte for byte")
    print(f"gained: sound began after {share:.0%} of the time that a list per sentence takes")
