"""The error for an option that a function does not have: it says what to write instead, where that is known.

Imported only when it is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from inspect import signature
from typing import Any, Final

__all__ = ["RETRY", "RUN", "unexpected"]


def _table(rows: dict[str, str]) -> dict[str, str]:
    return {name: cure for cure, names in rows.items() for name in names.split()}


_LEAVE_OUT: Final = "leave it out, results always come in the order of the items"

RUN: Final = _table(
    {
        "concurrency=": "max_workers workers n_workers num_workers n_jobs jobs threads pool_size task_limit "
        "max_concurrency max_concurrent max_at_once",
        'executor="process", concurrency=': "processes",
        "window=": "buffersize buffer_size prefetch lookahead queue_size max_pending",
        "chunksize=": "chunk_size batch_size batchsize",
        "executor=": "pool backend",
        "executor=Processes(initializer=…) or Threads(initializer=…)": "initializer",
        "executor=Processes(initargs=…) or Threads(initargs=…)": "initargs",
        "executor=Processes(finalizer=…) or Threads(finalizer=…)": "finalizer",
        "executor=Processes(start_method=…)": "start_method mp_context",
        "executor=Processes(max_tasks_per_worker=…)": "max_tasks_per_worker max_tasks_per_child maxtasksperchild",
        "executor=Threads(name=…)": "thread_name_prefix",
        "on_error=": "on_exception error_handler errors",
        'on_error="return"': "return_exceptions",
        "on_error=retry(attempts=…)": "retry retries attempts tries max_attempts max_retries backoff",
        "limit= (calls per second)": "rate rate_limit ratelimit max_per_second limiter throttle",
        "name=": "desc description label",
        "progress=": "progress_bar show_progress bar tqdm callback",
        "progress=tqdm(total=…)": "total",
        _LEAVE_OUT: "ordered keep_order preserve_order",
    }
)
"""By the name of the option elsewhere: what to write here."""

RETRY: Final = _table(
    {
        "attempts=": "tries retries max_attempts max_tries max_retries times",
        "on=": "exceptions exception retry_on errors",
        "backoff=": "delay wait sleep pause initial",
        "max_backoff=": "max_delay max_wait",
        "factor=": "multiplier exponent",
    }
)


def unexpected(function: Callable[..., Any], given: dict[str, Any]) -> TypeError:
    """The error for the first of these options, which the function does not have."""
    table = RETRY if function.__name__ == "retry" else RUN
    parameters = signature(function).parameters.values()
    options = [each.name for each in parameters if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)]
    name = next(iter(given))
    cure = table.get(name, "")
    if cure.partition("=")[0] not in options and cure != _LEAVE_OUT:
        near = get_close_matches(name, options, 1, 0.75)
        cure = f"{near[0]}=" if near else ""
    message = f"{function.__name__}() got an unexpected keyword argument {name!r}"
    if cure and cure != _LEAVE_OUT:
        cure = f"write {cure}"
    return TypeError(f"{message}: {cure}" if cure else message)
