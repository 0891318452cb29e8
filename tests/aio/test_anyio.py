"""Runs inside cancel scopes of anyio, which cancel a task again at every turn of the loop until it leaves the scope."""

import asyncio

import anyio
import pytest
from starlette.responses import StreamingResponse

from event_loops import Steps
from functions_for_workers import Oops
from inturn import ordered_aflat_map, ordered_amap, ordered_gather

TURNS = 50  # of the loop, which a cleanup takes


class Work:
    """Calls, generators and a source whose cleanup awaits, and says whether it has come to its end."""

    def __init__(self):
        self.began, self.cleaned, self.cut_short = Steps(), [], []

    async def clean(self, name):
        try:
            for _ in range(TURNS):
                await asyncio.sleep(0)
        except BaseException:
            self.cut_short.append(name)
            raise
        self.cleaned.append(name)

    async def call(self, x):
        try:
            self.began.add(x)
            await asyncio.Event().wait()
        finally:
            await self.clean(x)

    async def shielded(self, x):
        try:
            self.began.add(x)
            await asyncio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self.clean(x)

    async def generator(self, x):
        try:
            self.began.add(x)
            yield b"element"
            await asyncio.Event().wait()
        finally:
            await self.clean(x)

    async def source(self):
        try:
            yield 1
            yield 2
            self.began.add("source")
            await asyncio.Event().wait()
        finally:
            await self.clean("source")

    def consumer(self, name):
        if name == "gather":
            return ordered_gather(self.call, [1, 2, 3], concurrency=3)
        if name == "flat":
            return drain(ordered_aflat_map(self.generator, [1, 2, 3], concurrency=3))
        source = self.source() if name == "source" else [1, 2, 3]
        return drain(ordered_amap(self.shielded if name == "shielded" else self.call, source, concurrency=3))


async def drain(results):
    async with results:
        async for _ in results:
            pass


NAMES = ["call", "shielded", "flat", "gather", "source"]


class Counted:
    """Awaits a coroutine, and counts how often it is resumed."""

    def __init__(self, coro):
        self._coro = coro
        self.resumed = 0

    def __await__(self):
        step, given = self._coro.send, None
        while True:
            self.resumed += 1
            try:
                waits_for = step(given)
            except StopIteration as stop:
                return stop.value
            try:
                given = yield waits_for
                step = self._coro.send
            except BaseException as error:
                step, given = self._coro.throw, error


@pytest.mark.parametrize("name", NAMES)
def test_g30_a_cancel_scope_around_the_loop_leaves_every_cleanup_to_its_end(run, name):
    async def main():
        work = Work()
        with anyio.CancelScope() as scope:

            async def cancel():
                await work.began.wait(3)
                scope.cancel()

            canceller = asyncio.create_task(cancel())
            consumer = Counted(work.consumer(name))
            await consumer
        await canceller
        assert scope.cancelled_caught
        assert len(work.cleaned) == 3
        assert not work.cut_short
        assert consumer.resumed < TURNS / 2  # it sleeps while anyio cancels it again and again
        assert not asyncio.current_task().cancelling()

    run(main)


@pytest.mark.parametrize("name", NAMES)
def test_g30_a_time_limit_of_anyio_around_the_loop(run, name):
    async def main():
        work = Work()
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.05):
                await work.consumer(name)
        assert not work.cut_short
        assert len(work.cleaned) == len({*work.began.seen, *work.cleaned})
        await asyncio.sleep(0)  # nothing is left of the cancellation

    run(main)


def test_g30_an_error_beside_the_run_in_a_task_group(run):
    async def main():
        work = Work()

        async def fail():
            await work.began.wait(3)
            raise Oops

        with pytest.raises(ExceptionGroup) as caught:
            async with anyio.create_task_group() as group:
                group.start_soon(fail)
                group.start_soon(work.consumer, "call")
        assert caught.group_contains(Oops)
        assert sorted(work.cleaned) == [1, 2, 3]
        assert not work.cut_short

    run(main)


def test_g30_a_run_that_is_closed_inside_a_cancelled_scope(run):
    async def main():
        work = Work()
        results = ordered_amap(work.call, range(3), concurrency=3)
        head = asyncio.create_task(anext(results))
        await work.began.wait(3)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await results.aclose()
        assert scope.cancelled_caught
        assert sorted(work.cleaned) == [0, 1, 2]
        await asyncio.wait([head])
        assert isinstance(head.exception(), StopAsyncIteration)

    run(main)


@pytest.mark.parametrize("version", ["2.0", "2.4"])  # of the protocol, which decides how a server tells it
@pytest.mark.parametrize("name", ["call", "flat"])
def test_g30_a_starlette_response_whose_client_goes_away(run, name, version):
    """Starlette sends from a task group of anyio, which it cancels when the client is gone."""

    async def main():
        work, sent = Work(), Steps()

        async def fn(x):
            return b"first" if x == 0 else await work.call(x)

        async def body():
            run = ordered_amap(fn, range(4)) if name == "call" else ordered_aflat_map(work.generator, range(4))
            async with run as chunks:
                async for chunk in chunks:
                    yield chunk

        async def receive():
            await sent.wait(2)
            await work.began.wait(3)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.add(message["type"])

        scope = {"type": "http", "asgi": {"spec_version": version}, "method": "GET", "headers": []}
        response = StreamingResponse(body())
        served = asyncio.create_task(response(scope, receive, send))
        if version == "2.4":  # the server's own doing: it cancels the application
            await receive()
            served.cancel()
        await asyncio.wait([served])
        assert len(work.cleaned) >= 3
        assert not work.cut_short
        await response.body_iterator.aclose()

    run(main)
