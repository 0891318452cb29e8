"""The soak: rounds of random runs, for as long as one likes.

In each round one run, or several at once in several threads, are carried out (see `plans`). A round is drawn from the
seed and its number only, so that ``--seed N --round R`` makes it again. What happens in it still depends on the machine.
After each round the threads, child processes and descriptors are as many as before; now and then nothing of any run may
be in memory, and in the end the memory has not grown.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import multiprocessing
import os
import random
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inturn._engine.lanes import NO_LANE

from .plans import DRIVERS, Plan, draw
from .runs import Shared, carry_out

HANG_S = 600.0  # a round that takes longer hangs, also on a machine that is busy
LEAVE_S = 30.0  # what has been ended is gone by then
LOOK_EVERY = 50  # rounds between two looks at the memory
OF_A_RUN = {"Job", "FlatJob", "Run", "FlatRun", "Window", "LaneWindow", "Chunk", "Lane", "OrderedMap", "OrderedAmap"}
GROWTH_MB = 30.0  # of memory, from the first look to the last


class Soak:
    def __init__(self, seed: int, drivers: tuple[str, ...]) -> None:
        self.seed = seed
        self.drivers = drivers
        self.shared = Shared()
        self.helpers = ThreadPoolExecutor(3)
        list(self.helpers.map(time.sleep, [0.1] * 3))
        self.runs: Counter[str] = Counter()
        self.results = 0
        self.memory: list[float] = []
        self.before: dict[str, int] = {}

    def round(self, number: int) -> None:
        """One round.

        Raises:
            AssertionError: A run was wrong, or something is left of it.
        """
        rng = random.Random(f"{self.seed}/{number}")
        alone = rng.random() < 0.5
        drivers = self.drivers if alone else tuple(each for each in self.drivers if "fork" not in each.split())
        if not drivers:
            return
        plans = [draw(rng, drivers, signals=slot == 0) for slot in range(1 if alone else rng.randint(2, 4))]
        with self.shared.keep():
            errors = self._carry_out(plans, number, rng)
        if errors:
            for plan, error in errors:
                print(f"\nwrong: {plan}")
                traceback.print_exception(error)
            raise AssertionError("a run was wrong")
        self._all_gone(plans)

    def _carry_out(self, plans: list[Plan], number: int, rng: random.Random) -> list[tuple[Plan, BaseException]]:
        """Run them at once, the first one in this thread; those that went wrong."""
        errors: list[tuple[Plan, BaseException]] = []
        futures = [
            self.helpers.submit(carry_out, plan, random.Random(f"{self.seed}/{number}/{slot}"), self.shared)
            for slot, plan in enumerate(plans)
            if slot
        ]
        for plan, future in zip(plans, [None, *futures], strict=True):
            try:
                if future is None:
                    carry_out(plan, rng, self.shared)
                else:
                    future.result()
            except BaseException as error:
                errors.append((plan, error))
            self.runs[plan.driver] += 1
            self.results += len(plan.items)
        return errors

    def _all_gone(self, plans: list[Plan]) -> None:
        until = time.monotonic() + LEAVE_S
        while any(now > self.before[name] for name, now in belongings().items()):
            gc.collect()
            if time.monotonic() > until:
                faulthandler.dump_traceback()
                print(descriptors(), flush=True)
                print_referrers(objects_left())
                raise AssertionError(f"left behind: {belongings()}, before: {self.before}, of {plans}")
            time.sleep(0.005)

    def look(self) -> None:
        """Nothing of any run is in memory, or will be soon: a call that was given up may just be ending."""
        until = time.monotonic() + LEAVE_S
        while left := objects_left():
            if time.monotonic() > until:
                print_referrers(left)
                raise AssertionError(f"{len(left)} objects are left")
            del left  # else they are left for our sake
            time.sleep(0.005)
        self.memory.append(resident_mb())


def objects_left() -> list[object]:
    gc.collect()
    return [
        each
        for each in gc.get_objects()
        if type(each).__qualname__ in OF_A_RUN
        and type(each).__module__.partition(".")[0] == "inturn"
        and each is not NO_LANE
    ]


def print_referrers(left: list[object]) -> None:
    for each in left:
        print(f"{each!r} is referred to by {[who for who in gc.get_referrers(each) if who is not left]}", flush=True)


class Watchdog(threading.Thread):
    """Ends the program if a round takes too long, and tells which one it was."""

    def __init__(self, seed: int) -> None:
        super().__init__(daemon=True)
        self.seed = seed
        self.number = 0
        self._goes_on = threading.Event()
        self.start()

    def feed(self, number: int) -> None:
        self.number = number
        self._goes_on.set()

    def run(self) -> None:
        while self._goes_on.wait(HANG_S):
            self._goes_on.clear()
        faulthandler.dump_traceback()
        print(f"\nround {self.number} of seed {self.seed} hangs", flush=True)
        os._exit(1)


def belongings() -> dict[str, int]:
    """How many threads, descriptors and child processes there are."""
    if sys.platform != "linux":
        return {"threads": threading.active_count(), "children": len(multiprocessing.active_children())}
    multiprocessing.active_children()  # reaps those that have ended
    children: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            children.update((task / "children").read_text().split())
        except OSError:  # a thread that has ended, or a kernel without it
            pass
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "children": len(children),
    }


def descriptors() -> list[str]:
    """What each of them is."""
    shown = []
    for path in Path("/proc/self/fd").iterdir() if sys.platform == "linux" else ():
        try:
            shown.append(f"{path.name}: {path.readlink()}")
        except OSError:  # that of the directory itself
            pass
    return shown


def resident_mb() -> float:
    if sys.platform != "linux":
        return 0.0
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/soak", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long; the default is %(default)s")
    parser.add_argument("--seed", type=int, default=None, help="the default is a new one each time")
    parser.add_argument("--round", type=int, default=None, metavar="R", help="only this round, again and again")
    parser.add_argument("--drivers", default="", metavar="A,B", help=f"only these of: {', '.join(DRIVERS)}")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    drivers = tuple(each for each in DRIVERS if not options.drivers or each in options.drivers.split(","))
    warnings.simplefilter("ignore")  # some runs are dropped unclosed, and some processes are forked beside threads
    print(f"python tests/soak --seed {seed}, Python {sys.version.split()[0]}, for {options.seconds:g} s", flush=True)
    soak = Soak(seed, drivers)
    watchdog = Watchdog(seed)
    soak.before = belongings()
    begun = time.monotonic()
    number = last = 0
    try:
        while time.monotonic() - begun < options.seconds:
            last = number if options.round is None else options.round
            print(f"\rround {last}", end="", flush=True) if sys.stdout.isatty() else None
            watchdog.feed(last)
            soak.round(last)
            number += 1
            if number % LOOK_EVERY == 0:
                soak.look()
        soak.look()
        assert soak.memory[-1] < soak.memory[0] + GROWTH_MB, f"the memory has grown: {soak.memory} MB"
    except BaseException:
        print(f"\nin round {last}; to make it again: python tests/soak --seed {seed} --round {last}", flush=True)
        raise
    seconds = time.monotonic() - begun
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(soak.runs.items()))
    print(f"{number} rounds in {seconds:.0f} s: {soak.runs.total()} runs over {soak.results} items ({kinds})")
    print(f"memory {soak.memory[0]:.0f} MB at the first look, {soak.memory[-1]:.0f} MB at the last; nothing is left")
    soak.helpers.shutdown()
    soak.shared.close()
    return 0
