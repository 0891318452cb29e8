"""Four stages that run at once: the sound track of a film is transcribed, translated, spoken again and mixed.

No model is at work here: the film "speaks" in tones, one for each letter. The stages work as real ones do:

- `transcribe` computes, so it runs in worker processes: it hears the letters in the sound. It fails on noise.
- `translate` asks a service, so it is `async def`. The service allows so many calls per second, and it does not know
  every word.
- `speak` waits for a voice that is made elsewhere, so it runs in threads.
- `mix` computes, so it runs in the same worker processes.

The worker processes are kept, as a service keeps them: they are started before the film arrives.
Each stage holds no more than its window. A segment that is lost in one stage goes through the later ones as a
`Failure`, and is silent in the new film, which is in order. At the end a `Report` names each lost segment once.

    python docs/examples/video_translation.py [FILE.wav]

It writes the film, translates it, listens to the result, and compares the time from the arrival of the film to the end
of its last segment with the time that the slowest stage needs by itself.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import random
import sys
import time
import wave
from array import array
from collections.abc import Iterator
from pathlib import Path

from inturn import Failure, Processes, Report, ordered_amap, ordered_map

RATE = 8_000  # samples per second, mono, 16 bits each
LETTER = 320  # samples: 40 ms of sound
LETTERS = 6  # of a segment; shorter words are followed by silence
SEGMENTS = 80
SERVICE_S = 0.2  # seconds that the translation service takes for a word
VOICE_S = 0.02  # seconds that the voice takes for a letter
CALLS_PER_SECOND = 20  # that the translation service allows
ASKED_AT_ONCE = 8

ENGLISH = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
DICTIONARY = ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix", "onze", "douze"]
FRENCH = dict(zip(ENGLISH, DICTIONARY, strict=True))
BARS = sys.stderr.isatty() and importlib.util.find_spec("tqdm") is not None  # a bar for each stage


# ---- the film ------------------------------------------------------------------------------------


def word_of(number: int) -> str:
    """What is said in a segment; an empty text where there is only noise."""
    if number % 29 == 11:
        return ""
    return "umm" if number % 17 == 5 else ENGLISH[number % len(ENGLISH)]


def pitch(letter: str) -> float:
    return 300.0 + 50.0 * (ord(letter) - ord("a"))  # in Hz


def sound(word: str) -> array[int]:
    """The samples of a word, a tone for each letter."""
    samples = array("h")
    for letter in word:
        step = 2 * math.pi * pitch(letter) / RATE
        samples.extend(round(9_000 * math.sin(step * n)) for n in range(LETTER))
    samples.extend([0] * (LETTER * LETTERS - len(samples)))
    return samples


def noise(number: int) -> array[int]:
    chance = random.Random(number)
    return array("h", (chance.randint(-9_000, 9_000) for _ in range(LETTER * LETTERS)))


def write(path: Path, parts: list[array[int]]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        for samples in parts:
            file.writeframes(little_endian(samples).tobytes())


class Film:
    """The segments of a film, read one at a time. It knows how many there are, so the bars show a total."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        with wave.open(str(self.path)) as file:
            return file.getnframes() // (LETTER * LETTERS)

    def __iter__(self) -> Iterator[array[int]]:
        with wave.open(str(self.path)) as file:
            while data := file.readframes(LETTER * LETTERS):
                yield little_endian(array("h", data))


def little_endian(samples: array[int]) -> array[int]:
    if sys.byteorder == "big":
        samples = samples[:]
        samples.byteswap()
    return samples


# ---- the stages ----------------------------------------------------------------------------------


def transcribe(samples: array[int]) -> str:
    """Hear the letters: of each piece of sound, the tone that it contains most of (Goertzel's algorithm)."""
    word = ""
    for start in range(0, len(samples), LETTER):
        piece = samples[start : start + LETTER]
        total = sum(sample * sample for sample in piece)
        if not total:
            break  # silence: the word has ended
        strengths = {letter: strength(piece, pitch(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"}
        letter = max(strengths, key=strengths.__getitem__)
        if strengths[letter] < total * LETTER / 4:
            raise ValueError("nothing can be understood")
        word += letter
    return word


def strength(samples: array[int], hertz: float) -> float:
    factor = 2 * math.cos(2 * math.pi * hertz / RATE)
    last, before = 0.0, 0.0
    for sample in samples:
        last, before = sample + factor * last - before, last
    return last * last + before * before - factor * last * before


asked: list[float] = []  # when each call of the service began


async def translate(word: str) -> str:
    asked.append(time.perf_counter())
    await asyncio.sleep(SERVICE_S)
    try:
        return FRENCH[word]
    except KeyError:
        raise LookupError(f"no translation of {word!r}") from None


def speak(word: str) -> array[int]:
    time.sleep(VOICE_S * len(word))
    return sound(word)


def mix(samples: array[int]) -> array[int]:
    """Fade the voice in and out, so that nothing clicks."""
    count = len(samples)
    return array("h", (round(s * min(1.0, n / 40, (count - n) / 40)) for n, s in enumerate(samples)))


def come_up(number: int) -> None:
    """The first item of a worker process; long enough that the other one has to come up for its own."""
    time.sleep(0.05)


# ---- all of it -----------------------------------------------------------------------------------


async def dub(film: Path, dubbed: Path, workers: Processes) -> str:
    """Run the four stages; return what was gained."""
    began = time.perf_counter()
    heard = ordered_map(
        transcribe, Film(film), executor=workers, concurrency=2, on_error="return", name="transcribe", progress=BARS
    )
    translated = ordered_amap(
        translate,
        heard,
        concurrency=ASKED_AT_ONCE,
        window=4 * CALLS_PER_SECOND,  # so wide that it never waits for a later stage: it is the slowest
        limit=CALLS_PER_SECOND,
        on_error="return",
        pass_failures=True,
        name="translate",
        progress=BARS,
    )
    spoken = ordered_amap(
        speak, translated, executor="thread", concurrency=4, pass_failures=True, name="speak", progress=BARS
    )
    mixed = ordered_amap(mix, spoken, executor=workers, concurrency=2, pass_failures=True, name="mix", progress=BARS)
    async with mixed:  # closes all four stages, however it is left
        parts = [part async for part in mixed]
    seconds = time.perf_counter() - began

    silence = array("h", [0] * (LETTER * LETTERS))
    write(dubbed, [silence if isinstance(part, Failure) else part for part in parts])
    print(Report(parts))

    # What each stage needs if it never has to wait for another one.
    alone = {run: run.stats.busy * run.stats.elapsed for run in mixed.stages}
    one_call = alone[translated] * ASKED_AT_ONCE / len(asked)
    alone[translated] = max(alone[translated], (len(asked) - 1) / CALLS_PER_SECOND + one_call)
    print("stage       alone  waited for the stage before it, after it")
    for run, needed in alone.items():
        stats = run.stats
        name = repr(run).split("'")[1]
        print(f"{name:10} {needed:4.1f} s {stats.blocked_on_source:22.1f} s {stats.blocked_on_consumer:8.1f} s")
    slowest = max(alone.values())
    ratio = seconds / slowest
    print(f"all together: {seconds:.2f} s, {ratio:.2f} times the {slowest:.2f} s of the slowest stage alone")
    return f"four stages at once took {seconds:.1f} s; one after the other they take {sum(alone.values()):.1f} s"


def check(dubbed: Path) -> None:
    """Listen to the new film: every segment says what it should."""
    for number, samples in enumerate(Film(dubbed)):
        wanted = FRENCH.get(word_of(number), "")
        assert transcribe(samples) == wanted, number
    print(f"{number + 1} segments, in order")


if __name__ == "__main__":
    new = Path(sys.argv[1] if len(sys.argv) > 1 else "dubbed.wav")
    old = new.with_suffix(".original.wav")
    write(old, [sound(word_of(number)) if word_of(number) else noise(number) for number in range(SEGMENTS)])
    with Processes(max_workers=2) as kept:  # for both stages that compute
        started = time.perf_counter()
        list(ordered_map(come_up, range(2), executor=kept, concurrency=2, chunksize=1))
        print(f"before the film arrives: {time.perf_counter() - started:.2f} s to start two worker processes")
        gained = asyncio.run(dub(old, new, kept))
    check(new)
    print(f"gained: {gained}")
