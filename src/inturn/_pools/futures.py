"""What the futures of executors that are not ours tell."""

from __future__ import annotations

from typing import Any

__all__ = ["check_future", "copy_of", "drives", "tells_of_the_end"]


def check_future(future: Any) -> None:
    """Refuse what a ``submit`` has returned if it cannot tell of its end: a mock answers to every name, but not so."""
    try:
        known = isinstance(future.done(), bool) and callable(future.add_done_callback)
    except AttributeError:
        known = False
    if not known:
        raise TypeError(f"submit() of executor= must return a future, got {type(future).__name__}: {future!r}")


def tells_of_the_end(error: BaseException) -> bool:
    """Whether it is the executor that has failed, not the call."""
    from concurrent.futures import BrokenExecutor

    return isinstance(error, BrokenExecutor)


def drives(future: Any) -> bool:
    """Whether the future does its work when it is asked for its result, instead of by a thread or a process."""
    from concurrent.futures import Future

    return isinstance(future, Future) and type(future).result is not Future.result


def copy_of(error: BaseException) -> BaseException:
    """A copy for each item, so that the notes of one are not those of all.

    No code of the error's class runs: its constructor may want other arguments, or do something.
    """
    kind = type(error)
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    try:
        twin: BaseException = base.__new__(kind, *error.args)
        base.__init__(twin, *error.args)
        vars(twin).update({name: value for name, value in vars(error).items() if name != "__notes__"})
    except Exception:  # a layout of its own
        return error
    twin.__cause__ = error.__cause__
    return twin
