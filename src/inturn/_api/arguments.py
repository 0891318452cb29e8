"""What ``fn``, the sources and ``executor`` may be, for type checkers."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from types import ModuleType
from typing import Any, Concatenate, Literal, Protocol, TypeVar

from inturn._model.processes import Processes
from inturn._model.threads import Threads

from .executors import MakesPools

__all__ = ["ExecutorLike", "FlatExecutorLike", "Function", "Function2", "Source"]

A = TypeVar("A")
B = TypeVar("B")
R = TypeVar("R")

Source = Iterable[A] | AsyncIterable[A]
# Called with an A, or with more than that. The first form is there for overloaded functions, such as `round`.
Function = Callable[[A], R] | Callable[Concatenate[A, ...], R]
Function2 = Callable[[A, B], R] | Callable[Concatenate[A, B, ...], R]


class Submits(Protocol):
    """An executor that is passed in, as far as this library is concerned."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any: ...


FlatExecutorLike = Literal["thread", "process", "serial"] | Threads | Processes | MakesPools
# A Dask client has a `submit`, too; the module is `ray`.
ExecutorLike = FlatExecutorLike | Literal["interpreter"] | Submits | ModuleType | Callable[[int], Submits]
