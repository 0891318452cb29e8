"""Ordered parallel iterators: run a function over items in parallel, get the results in turn.

>>> from inturn import ordered_map
>>> for text in ordered_map(str.upper, ["a", "b", "c"], concurrency=2):
...     print(text)
A
B
C
"""

import typing as _t

from ._api import ordered_map
from ._outcome import Failure
from ._policy import SKIP, Retry, retry, sentinel
from ._processes import Processes, WorkerDied
from ._stats import Stats
from ._threads import Threads

if _t.TYPE_CHECKING:
    from ._api_aflat import ordered_aflat_map
    from ._api_async import ordered_amap
    from ._api_flat import ordered_flat_map
    from ._api_gather import ordered_gather
    from ._report import Report

__all__ = [
    "SKIP",
    "Failure",
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
    "Report": "_report",
    "ordered_aflat_map": "_api_aflat",
    "ordered_amap": "_api_async",
    "ordered_flat_map": "_api_flat",
    "ordered_gather": "_api_gather",
}


def __getattr__(name: str) -> _t.Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
