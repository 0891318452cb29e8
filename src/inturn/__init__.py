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
from ._model.processes import Processes, WorkerDied
from ._model.stats import Stats
from ._model.threads import Threads

if _t.TYPE_CHECKING:
    from ._api.aflat_map import ordered_aflat_map
    from ._api.amap import ordered_amap
    from ._api.flat_map import ordered_flat_map
    from ._api.gather import ordered_gather
    from ._model.report import Report

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
    "Report": "_model.report",
    "ordered_aflat_map": "_api.aflat_map",
    "ordered_amap": "_api.amap",
    "ordered_flat_map": "_api.flat_map",
    "ordered_gather": "_api.gather",
}


def __getattr__(name: str) -> _t.Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
