"""How each library is asked for an ordered map.

Each function is called with ``fn, items, workers, consume``: it starts its workers, gives `consume` the iterator of
results, and leaves nothing behind. A peer that is not installed does not take part.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import inturn

from .harness import NotYet, present

Consume = Callable[[Iterable[Any]], Any]
Peer = Callable[[Callable[..., Any], Iterable[Any], int, Consume], Any]


def ours(fn: Callable[..., Any], items: Iterable[Any], workers: int, consume: Consume, **options: Any) -> Any:
    with inturn.ordered_map(fn, items, concurrency=workers, **options) as results:
        return consume(results)


def our_processes() -> Peer:
    """Return `ours` on processes; raise `NotYet` if there are none."""
    try:
        inturn.ordered_map(abs, [], executor="process").close()
    except ValueError:
        raise NotYet('executor="process"') from None
    return partial(ours, executor="process")


def feature(name: str) -> Any:
    """Return the library's function of that name, or raise `NotYet`."""
    try:
        return getattr(inturn, name)
    except AttributeError:
        raise NotYet(name) from None


def plain(fn: Callable[..., Any], items: Iterable[Any], workers: int, consume: Consume) -> Any:
    return consume(map(fn, items))


def _executor_map(kind: str, fn: Any, items: Any, workers: int, consume: Consume, **options: Any) -> Any:
    import concurrent.futures

    with getattr(concurrent.futures, kind)(workers) as executor:
        return consume(executor.map(fn, items, **options))


def _pool_imap(kind: str, fn: Any, items: Any, workers: int, consume: Consume, chunksize: int = 1) -> Any:
    from multiprocessing import Pool
    from multiprocessing.pool import ThreadPool

    with (ThreadPool if kind == "thread" else Pool)(workers) as pool:
        return consume(pool.imap(fn, items, chunksize))


def _streamable(fn: Any, items: Any, workers: int, consume: Consume) -> Any:
    from streamable import stream

    return consume(stream(items).map(fn, concurrency=workers))


def _joblib(backend: str, fn: Any, items: Any, workers: int, consume: Consume) -> Any:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    parallel = Parallel(n_jobs=workers, backend=backend, return_as="generator")
    try:
        return consume(parallel(delayed(fn)(item) for item in items))
    finally:
        if backend == "loky":  # else its workers and threads stay for minutes
            get_reusable_executor().shutdown(wait=True)


def _mpire(kind: str, fn: Any, items: Any, workers: int, consume: Consume) -> Any:
    import tqdm
    from mpire import WorkerPool

    tqdm.tqdm.monitor_interval = 0  # else a thread stays
    one = [(item,) for item in items] if isinstance(items, list) and items and isinstance(items[0], tuple) else items
    with WorkerPool(n_jobs=workers, start_method="threading" if kind == "thread" else "fork") as pool:
        return consume(pool.imap(fn, one))


def _pebble(kind: str, fn: Any, items: Any, workers: int, consume: Consume) -> Any:
    import pebble

    with (pebble.ThreadPool if kind == "thread" else pebble.ProcessPool)(max_workers=workers) as pool:
        return consume(pool.map(fn, items).result())


def _loky(fn: Any, items: Any, workers: int, consume: Consume) -> Any:
    from loky import ProcessPoolExecutor

    with ProcessPoolExecutor(workers) as executor:
        return consume(executor.map(fn, items))


def _pypeln(kind: str, fn: Any, items: Any, workers: int, consume: Consume) -> Any:
    import pypeln

    flavour = getattr(pypeln, kind)
    return consume(flavour.ordered(flavour.map(fn, items, workers=workers)))


def _installed(peers: dict[str, tuple[str, Peer]]) -> dict[str, Peer]:
    return {name: peer for name, (module, peer) in peers.items() if not module or present(module)}


THREADS: dict[str, Peer] = _installed(
    {
        "Executor.map": ("", partial(_executor_map, "ThreadPoolExecutor")),
        "ThreadPool.imap": ("", partial(_pool_imap, "thread")),
        "ThreadPool.imap(chunksize=64)": ("", partial(_pool_imap, "thread", chunksize=64)),
        "streamable": ("streamable", _streamable),
        "joblib": ("joblib", partial(_joblib, "threading")),
        "mpire": ("mpire", partial(_mpire, "thread")),
        "pebble": ("pebble", partial(_pebble, "thread")),
        "pypeln": ("pypeln", partial(_pypeln, "thread")),
    }
)

if sys.version_info >= (3, 14):

    def _buffered_map(fn: Any, items: Any, workers: int, consume: Consume) -> Any:
        return _executor_map("ThreadPoolExecutor", fn, items, workers, consume, buffersize=2 * workers)

    THREADS["Executor.map(buffersize=)"] = _buffered_map

PROCESSES: dict[str, Peer] = _installed(
    {
        "Executor.map": ("", partial(_executor_map, "ProcessPoolExecutor")),
        "Executor.map(chunksize=64)": ("", partial(_executor_map, "ProcessPoolExecutor", chunksize=64)),
        "Pool.imap": ("", partial(_pool_imap, "process")),
        "Pool.imap(chunksize=64)": ("", partial(_pool_imap, "process", chunksize=64)),
        "joblib": ("joblib", partial(_joblib, "loky")),
        "loky": ("loky", _loky),
        "mpire": ("mpire", partial(_mpire, "process")),
        "pebble": ("pebble", partial(_pebble, "process")),
        "pypeln": ("pypeln", partial(_pypeln, "process")),
    }
)
