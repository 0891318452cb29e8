"""Coroutine functions and async generator functions that the async tests run."""

import asyncio

from event_loops import Steps
from functions_for_workers import Oops


async def double(x):
    return 2 * x


async def double_later(x):
    await asyncio.sleep(0)
    return 2 * x


async def oops(x):
    raise Oops(x)


class Calls:
    """Calls that wait for ever, and say when they begin, when they are cancelled and when they have cleaned up."""

    def __init__(self, cleanup=2):
        self.steps = Steps()
        self.cleanup = cleanup
        self.cut_short = 0

    async def __call__(self, x):
        self.steps.add(("began", x))
        try:
            await asyncio.Event().wait()
        finally:
            try:
                for _ in range(self.cleanup):
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.cut_short += 1
                raise
            finally:
                self.steps.add(("ended", x))

    @property
    def ended(self):
        return sum(name == "ended" for name, _ in self.steps.seen)


async def steps(x):
    """Zero to four elements, of which the second and the fourth take a turn of the loop."""
    for n in range(x % 5):
        if n % 2:
            await asyncio.sleep(0)
        yield x, n
