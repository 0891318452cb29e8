"""Async runs behind the interface of synchronous ones, so that the contract suite can be run over them.

The loop is the consumer's: it runs inside `next` and `close` only. So plain functions of the suite are called in the consumer's
thread, by tasks, or, with an executor, in its workers, which go on while the loop stands still.
"""

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import wait
from typing import Any

from inturn import ordered_amap

_GLANCE_S = 0.01  # seconds after which a thread checks whether it has to drive the loop itself

_open: set[asyncio.AbstractEventLoop] = set()
"""Loops that are not closed: so a collection that finds a run in a cycle ends the run before its loop is garbage."""


class InLoop:
    """An iterator over an async run, in an event loop of its own, which ends with it."""

    def __init__(self, run: Any, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._run = run
        self._loop = make_loop()
        _open.add(self._loop)
        self._loop.slow_callback_duration = 60.0  # calls that block it are what it is for
        self._driving = threading.Lock()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return self._do(self._run.__anext__())
        except StopAsyncIteration:
            pass
        raise StopIteration

    def close(self) -> None:
        """From anywhere: another thread asks the loop, and a call in the loop's thread does not wait for itself."""
        self._do(self._run.aclose())

    def _do(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run the coroutine to its end; return its result or raise its error. One thread at a time drives the loop."""
        loop, outcome = self._loop, []
        if asyncio._get_running_loop() is loop:
            return _first_step(coro)
        if self._driving.acquire(blocking=False):
            try:
                _drive(loop, _into(outcome, coro))
            finally:
                self._driving.release()
        else:
            future = asyncio.run_coroutine_threadsafe(_into(outcome, coro), loop)
            while not wait([future], _GLANCE_S).done:
                if self._driving.acquire(blocking=False):  # it has been left in the midst of this
                    try:
                        _drive(loop, asyncio.wait([asyncio.wrap_future(future, loop=loop)]))
                    finally:
                        self._driving.release()
            future.result()
        value, error = outcome.pop()
        try:
            if error is None:
                return value
            raise error
        finally:
            del value, error  # an error's traceback may hold this frame

    @property
    def trace(self) -> Any:
        return self._run.trace

    def _repr_html_(self) -> str:
        return self._run._repr_html_()

    def __enter__(self) -> "InLoop":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def end(self) -> None:
        """Close the loop as `asyncio.run` does."""
        loop = self._loop
        if not loop.is_closed():
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                _drive(loop, asyncio.wait(tasks))
            _drive(loop, loop.shutdown_asyncgens())
            loop.close()
            _open.discard(loop)

    def __del__(self) -> None:
        del self._run
        self.end()

    @property
    def indexed(self) -> bool:
        return self._run.indexed

    @property
    def stats(self) -> Any:
        return self._run.stats

    def __repr__(self) -> str:
        return repr(self._run)

    def __reduce__(self) -> Any:
        return self._run.__reduce__()


async def _into(outcome: list[tuple[Any, BaseException | None]], coro: Coroutine[Any, Any, Any]) -> None:
    """What becomes of the coroutine; not of the task, which a frame of `run_until_complete` keeps, and an error that."""
    try:
        outcome.append((await coro, None))
    except BaseException as error:
        outcome.append((None, error))


def _first_step(coro: Coroutine[Any, Any, Any]) -> Any:
    """For a caller inside the loop, which cannot wait: take the first step only."""
    try:
        coro.send(None)
    except StopIteration as stop:
        return stop.value
    coro.close()
    return None


def _drive(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any]) -> Any:
    """Run it in this loop, though this may be a call inside another loop, which is blocked meanwhile."""
    outer = asyncio._get_running_loop()
    task = None if outer is None else asyncio.current_task(outer)
    if task is not None:
        asyncio.tasks._leave_task(outer, task)
    asyncio._set_running_loop(None)
    try:
        return loop.run_until_complete(coro)
    finally:
        asyncio._set_running_loop(outer)
        if task is not None:
            asyncio.tasks._enter_task(outer, task)


def in_loop(
    fn: Callable[..., Any],
    *iterables: Any,
    executor: Any = None,
    make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    **settings: Any,
) -> InLoop:
    """As `ordered_map`; without an executor the calls are made by tasks."""
    if executor is not None:
        return InLoop(ordered_amap(fn, *iterables, executor=executor, **settings), make_loop)

    async def call(*args: Any) -> Any:
        return fn(*args)

    return InLoop(ordered_amap(functools.update_wrapper(call, fn), *iterables, **settings), make_loop)
