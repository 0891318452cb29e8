"""Ordered parallel iterators: run a function over items in parallel, get the results in turn.

>>> from inturn import ordered_map
>>> for text in ordered_map(str.upper, ["a", "b", "c"], concurrency=2):
...     print(text)
A
B
C
"""

import typing as _t

from ._api.map import ordered_map
from ._model.outcome import Failure
from ._model.policy import SKIP, Retry, retry, sentinel
from ._model.policy import RetryPolicy as RetryPolicy  # this one and `Skip` are for annotations of one's own policies
from ._model.policy import Skip as Skip
from ._model.processes import Processes, WorkerDied
from ._model.stats import Stats
from ._model.threads import Threads
from ._sync.driver import OrderedMap

if _t.TYPE_CHECKING:
    from ._aio.driver import OrderedAmap
    from ._aio.flat import OrderedAflatMap
    from ._api.aflat_map import ordered_aflat_map
    from ._api.amap import ordered_amap
    from ._api.flat_map import ordered_flat_map
    from ._api.gather import ordered_gather
    from ._model.limit import Limiter
    from ._model.recorder import TraceItem as TraceItem
    from ._model.report import Report
    from ._model.trace import Trace as Trace
    from ._sync.flat import OrderedFlatMap

__all__ = [
    "SKIP",
    "Failure",
    "Limiter",
    "OrderedAflatMap",
    "OrderedAmap",
    "OrderedFlatMap",
    "OrderedMap",
    "Processes",
    "Report",
    "Retry",
    "Stats",
    "Threads",
    "WorkerDied",
    "ordered_aflat_map",
    "ordered_amap",
    "ordered_flat_map",
    "ordered_gather",
    "ordered_map",
    "retry",
    "sentinel",
]
__version__ = "0.1.0"

_WHERE = {  # imported when first asked for, so that `import inturn` stays light
    "Limiter": "_model.limit",
    "OrderedAflatMap": "_aio.flat",
    "OrderedAmap": "_aio.driver",
    "OrderedFlatMap": "_sync.flat",
    "Report": "_model.report",
    "Trace": "_model.trace",  # what `run.trace` is, and what it consists of: for annotations
    "TraceItem": "_model.recorder",
    "ordered_aflat_map": "_api.aflat_map",
    "ordered_amap": "_api.amap",
    "ordered_flat_map": "_api.flat_map",
    "ordered_gather": "_api.gather",
}


def _public(thing: _t.Any) -> _t.Any:
    """Where a thing is defined does not concern its users: not in a pickle, nor in a message or in ``help``."""
    thing.__module__ = __name__
    if not isinstance(thing, type):  # a function: its overloads tell the types, to type checkers and editors
        thing.__annotations__ = {}
    return thing


def __getattr__(name: str) -> _t.Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = _public(getattr(import_module(f".{_WHERE[name]}", __name__), name))
    if name in __all__:
        globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


for _class in (Failure, OrderedMap, Processes, Retry, RetryPolicy, Skip, Stats, Threads, WorkerDied):
    _public(_class)
for _function in (ordered_map, retry, sentinel):
    _public(_function)
