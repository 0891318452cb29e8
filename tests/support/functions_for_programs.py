"""What the workers of the programs in `processes/test_nothing_is_left.py` run."""

import os
import signal
import time

__all__ = ["announced", "announced_briefly", "crash", "hold"]


def announced(directory: str) -> None:
    """Say who runs, by the name of a file, and take an hour."""
    with open(f"{directory}/{os.getpid()}", "w"):
        pass
    time.sleep(3600)


def announced_briefly(directory: str) -> None:
    """Say who runs; the first two wait for each other, so that there are two."""
    with open(f"{directory}/{os.getpid()}", "w"):
        pass
    while len(os.listdir(directory)) < 2:
        time.sleep(0.001)


def hold(data: bytes) -> bytes:
    return data


def crash(i: int) -> int:
    """Die of a signal at one item of three."""
    if i % 3 == 1:
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)[i % 9 // 3]
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)  # under nohup the tests ignore SIGHUP, and so would this process
        os.kill(os.getpid(), number)
    return i
