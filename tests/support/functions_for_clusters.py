"""Functions that the workers of a cluster import."""

import os
import signal
from typing import Any

from clusters import Place


def kill_at(place: Place, bad: frozenset[int], i: int) -> int:
    """Items that are bad kill their worker, each time."""
    place.say(i)
    if i in bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def kill_once(place: Place, bad: int, i: int) -> int:
    """As if somebody killed the worker: the item is not to blame."""
    place.say(i)
    if i == bad and len(place.heard(bad)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def stay_at(place: Place, slow: frozenset[int], i: int) -> int:
    """Items that are slow wait until somebody says go."""
    place.say(i)
    if i in slow:
        place.wait("go")
    return i


def task_of_dask(i: int) -> Any:
    from distributed import get_worker

    return get_worker().get_current_task()


def task_of_ray(i: int) -> Any:
    import ray

    context = ray.get_runtime_context()
    return f"{context.get_task_name()}-{context.get_task_id()}"


class Lacking:
    """A worker cannot make one: it has no such module."""

    def __call__(self, i: int) -> int:
        return i

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, ("no_such_module",)
