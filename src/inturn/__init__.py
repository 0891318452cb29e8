"""Ordered parallel iterators: run a function over items in parallel, get the results in turn.

>>> from inturn import ordered_map
>>> for text in ordered_map(str.upper, ["a", "b", "c"], concurrency=2):
...     print(text)
A
B
C
"""

from ._api import ordered_map
from ._api_aflat import ordered_aflat_map
from ._api_async import ordered_amap
from ._api_flat import ordered_flat_map
from ._api_gather import ordered_gather
from ._outcome import Failure
from ._policy import SKIP, Retry, retry, sentinel
from ._processes import Processes, WorkerDied
from ._report import Report
from ._stats import Stats
from ._threads import Threads

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
