"""How far one ordered consumer goes: the window against stragglers, for a thousand workers, in virtual time.

python docs/examples/cluster_simulation.py --workers 1000 --rounds 30

Each call is a task of asyncio that sleeps as long as the item takes. The event loop has a virtual clock, so sleeping
costs nothing, and what runs is inturn itself: its window, its order, its back-pressure. Durations are log-normal with
a median of one second; ``--spread 1`` means that one item in a thousand takes more than 22 seconds.

For each window the program prints the share of the workers that was busy until the last item was started, and how many
results waited for their turn, on average.
"""

import argparse
import asyncio
import random
from collections.abc import Iterator

from inturn import ordered_amap
from inturn.testing import Schedule


async def simulate(workers: int, window: int, items: int, spread: float, per_item: float) -> tuple[float, float]:
    """Return the share of busy workers, and the mean number of results that waited for their turn."""
    dice = random.Random(7)
    loop = asyncio.get_running_loop()
    started = last = loop.time()
    busy = waited = 0.0
    ended: dict[int, float] = {}

    def source() -> Iterator[tuple[int, float]]:
        nonlocal last
        for number in range(items):
            last = loop.time()
            yield number, dice.lognormvariate(0, spread)

    async def call(item: tuple[int, float]) -> int:
        nonlocal busy
        number, seconds = item
        await asyncio.sleep(seconds)
        busy += seconds
        ended[number] = loop.time()
        return number

    async with ordered_amap(call, source(), concurrency=workers, window=window) as run:
        async for number in run:
            waited += loop.time() - ended.pop(number)
            if per_item:
                await asyncio.sleep(per_item)  # what the loop's body takes
        total = loop.time() - started
    share = busy / workers / total if last == started else min(1.0, busy / workers / (last - started))
    return share, waited / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20, help="items per worker")
    parser.add_argument("--spread", type=float, default=1.0, help="of the durations: sigma of the log-normal")
    parser.add_argument("--per-item", type=float, default=0.0, help="seconds that the consumer takes for a result")
    parser.add_argument("--windows", default="1,2,4,8", help="in items per worker")
    options = parser.parse_args()
    shares = {}
    print("window per worker   busy workers   results that wait")
    for times in map(int, options.windows.split(",")):
        items = options.workers * options.rounds
        window = options.workers * times
        share, waiting = Schedule().run(simulate(options.workers, window, items, options.spread, options.per_item))
        shares[times] = share
        print(f"{times:17}   {share:11.0%}    {waiting:16,.0f}", flush=True)
    worst, best = min(shares.values()), max(shares.values())
    print(f"gained: a wider window keeps {best:.0%} of the workers busy in place of {worst:.0%}")


if __name__ == "__main__":
    main()
