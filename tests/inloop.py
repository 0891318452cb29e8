"""Async runs in the dress of synchronous ones, so that the contract suite can be run over them.

The loop is the consumer's: it runs inside `next` and `close` only. So plain functions of the suite are called in the consumer's
thread, or, with an executor, in its workers, which go on while the loop rests.
"""

import asyncio
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inturn import ordered_amap


class InLoop:
    """An iterator over an async run, in an event loop of its own."""

    def __init__(self, run: Any, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.run = run
        self.indexed = run.indexed
        self._make = make_loop
        self._loop: asyncio.AbstractEventLoop | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._loop is None:
            self._loop = self._make()
        elif self._loop.is_closed():
            raise StopIteration
        try:
            return self._loop.run_until_complete(anext(self.run))
        except StopAsyncIteration:
            self._end()
        except BaseException:
            self._end()
            raise
        raise StopIteration

    def close(self) -> None:
        """From `fn` too, if it runs in the loop's thread; from no other thread while `next` runs."""
        if self._loop is None:
            self._loop = self._make()
        if self._loop.is_closed():
            return
        closing = self.run.aclose()
        if asyncio._get_running_loop() is self._loop:
            try:
                closing.send(None)  # it does not wait for its own call
            except StopIteration:
                return
        self._loop.run_until_complete(closing)
        self._end()

    def _end(self) -> None:
        assert self._loop is not None
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def __enter__(self) -> "InLoop":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self.close()

    @property
    def stats(self) -> Any:
        return self.run.stats

    def __repr__(self) -> str:
        return repr(self.run)


def in_loop(
    fn: Callable[..., Any],
    *iterables: Any,
    executor: Any = None,
    make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    **settings: Any,
) -> InLoop:
    """As `ordered_map`; without an executor the calls are made by tasks."""
    for option in ("chunksize", "live"):
        if settings.pop(option, None):
            pytest.skip(f"ordered_amap has no {option}")
    if executor is not None:
        return InLoop(ordered_amap(fn, *iterables, executor=executor, **settings), make_loop)

    async def call(*args: Any) -> Any:
        return fn(*args)

    return InLoop(ordered_amap(functools.update_wrapper(call, fn), *iterables, **settings), make_loop)
