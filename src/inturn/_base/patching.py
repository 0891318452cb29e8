"""gevent and eventlet put their own in the place of `threading` and others ("monkey patching"); what works then.

Patched before this library is imported, threads are green ones, and all that waits lets other ones run. Patched after,
this library would mix both kinds and wait for ever.
"""

from __future__ import annotations

import threading
from typing import Final

__all__ = ["no_processes", "not_since_import"]

_LOCK: Final[object] = threading.Lock
_GREEN: Final = frozenset({"gevent", "eventlet"})  # other tools, such as profilers, put locks there that work as ever


def not_since_import() -> None:
    """Refuse threads that were patched after the import."""
    if threading.Lock is not _LOCK and _patcher() in _GREEN:
        raise RuntimeError(
            f"{_patcher()} has patched threading after inturn was imported: patch first, and import inturn then"
        )


def no_processes() -> None:
    """Refuse worker processes of the library's own: pipes and `select` of patched modules are not the system's."""
    if _patcher() in _GREEN:
        raise RuntimeError(
            f'executor="process" does not work with threads that {_patcher()} has patched: '
            "use executor=concurrent.futures.ProcessPoolExecutor"
        )


def _patcher() -> str:
    return str(getattr(threading.Lock, "__module__", None)).partition(".")[0]
