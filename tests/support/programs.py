"""Python programs of their own: some `say` lines and are sent signals, some are those of `docs/examples`."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import inturn
from waiting import HANG_S, HOUR, TENFOLD, absence

COVERED = any(name.startswith("COVERAGE_PROCESS") for name in os.environ)  # programs that tests start are measured

PRELUDE = f'''
HANG_S, HOUR = {HANG_S}, {HOUR}
import gc, itertools, os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from inturn import SKIP, Retry, Threads, ordered_map, retry, sentinel

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def sleep_on():
    while True:
        time.sleep(0.05)  # in parts: Python does not notice a signal that comes just before a sleep begins

pulled = threading.Event()
def counting():
    """0, 1, 2, …; `pulled` says that the third has been."""
    for i in itertools.count():
        if i == 2:
            pulled.set()
        yield i
'''


class Script:
    """A Python process of its own, in a process group of its own, that `say`s lines and may be sent signals."""

    def __init__(self, body: str) -> None:
        paths = [str(Path(inturn.__file__).parents[1]), str(Path(__file__).parent)]
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-W", "error", "-c", PRELUDE + body],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.begin = time.monotonic()
        self.took_to_say = 0.0

    def wait_for(self, word: str) -> None:
        assert self.process.stdout is not None
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if line.split()[:1] == [word]:
                self.took_to_say = self.took_to_say or time.monotonic() - self.begin
                return
        self.process.wait()
        assert self.process.stderr is not None
        raise AssertionError(f"{word!r} was never said: {seen}\n{self.process.stderr.read()}")

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self._until_it_waits()
        self.begin = time.monotonic()
        os.killpg(self.process.pid, number)

    def _until_it_waits(self) -> None:
        """Until the main thread waits: what a signal meets before is not the same each time."""
        before = None
        for _ in range(100):  # it may be busy for good
            absence(0.02)
            try:
                status = Path(f"/proc/{self.process.pid}/status").read_text()
            except FileNotFoundError:  # another system than Linux, where this has to do
                return absence(0.2)
            now = re.findall(r"^(State:\tS|voluntary_ctxt_switches:.*)", status, re.MULTILINE)
            if len(now) == 2 and now == before:
                return None
            before = now
        return None

    @property
    def soon_s(self) -> float:
        """Seconds within which the end has to come that guarantee 14 promises in one.

        Ten times that, or ten times as long as this very program took to come up, if the machine is as slow as that.
        """
        return TENFOLD * max(1.0, self.took_to_say)

    def end(self) -> "Script":
        """Waits for the end; then `out`, `err`, `code`, and `seconds` since the start or the last interrupt."""
        try:
            self.out, self.err = self.process.communicate(timeout=HANG_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler then shows where it hangs
            out, err = self.process.communicate()
            raise AssertionError(f"the process does not end\n{out}\n{err}") from None
        self.seconds = time.monotonic() - self.begin
        self.code = self.process.returncode
        self.lines = self.out.split("\n")[:-1]
        return self

    def __enter__(self) -> "Script":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def run_example(
    name: str, *arguments: str, cwd: Path, pace: float = 1.0, settings: dict[str, object] | None = None
) -> str:
    """What a program of `docs/examples` prints, if every sleep takes `pace` times as long, with other constants.

    With other constants it is imported, and its `demonstrate` is run.
    """
    directory = Path(__file__).parents[2] / "docs" / "examples"
    code = f"""
import asyncio, importlib, runpy, sys, time
sleep, later = time.sleep, asyncio.sleep
time.sleep = lambda seconds: sleep(seconds * {pace})
asyncio.sleep = lambda seconds, *result: later(seconds * {pace}, *result)
sys.argv = {[name, *arguments]}
if __name__ == "__main__":
    if {settings}:
        example = importlib.import_module({name!r})
        vars(example).update({settings})
        asyncio.run(example.demonstrate())
    else:
        runpy.run_path({str(directory / name)!r} + ".py", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(inturn.__file__).parents[1]), str(directory)])},
    )
    said = [
        line for line in done.stderr.splitlines() if not line.startswith("Executing ")
    ]  # in debug mode: it is loaded
    assert not said, done.stderr
    assert done.returncode == 0
    return done.stdout


EXECUTORS = {
    "thread": "executor='thread'",
    "timeout": "executor='thread', timeout=HOUR",
    "live": "executor='thread', live=True",
    "borrowed": "executor=ThreadPoolExecutor(2)",
    "callable": "executor=ThreadPoolExecutor",
    "serial": "executor='serial'",
}
