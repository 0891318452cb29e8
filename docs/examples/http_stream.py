"""Stream CPU-bound results over HTTP, in order, while the server goes on answering others.

`GET /primes` has the largest prime factor of one number after another found by worker processes, without end, and
sends each line as soon as it is ready and its turn has come (chunked transfer encoding, one line of JSON each).
`GET /ping` is answered at once, meanwhile too. A client that goes away ends the work: the run is left, its workers end.

    python docs/examples/http_stream.py            starts the server, talks to it, and checks what it says
    python docs/examples/http_stream.py serve      serves on http://127.0.0.1:8080 (try: curl -N http://127.0.0.1:8080/primes)

Only asyncio and the library; a real server would be one of the frameworks, whose streaming responses take the very
same `async for`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from inturn import Processes, ordered_amap

FIRST, COUNT, WORKERS = 10**11 + 1, 40, 2
PROCESSES = Processes(start_method="spawn")  # forked ones would have the connections too, and keep them open


def largest_prime_factor(number: int) -> int:
    """Trial division: some hundredths of a second of pure Python, or much less if the number has small factors."""
    factor, rest = 2, number
    while factor * factor <= rest:
        while rest % factor == 0 and rest > factor:
            rest //= factor
        factor += 1
    return rest


# ---- the server ----------------------------------------------------------------------------------


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
        path = head[1] if len(head) == 3 else b""
        if path == b"/primes":
            await send_primes(writer)
        elif path == b"/ping":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\npong\n")
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client has gone
    finally:
        writer.close()


async def send_primes(writer: asyncio.StreamWriter) -> None:
    """Send a line for each number, in order, as it comes from the worker processes."""
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    async with ordered_amap(
        largest_prime_factor, itertools.count(FIRST), executor=PROCESSES, concurrency=WORKERS, indexed=True
    ) as results:
        async for index, factor in results:
            line = json.dumps({"number": FIRST + index, "factor": factor}).encode() + b"\n"
            writer.write(b"%x\r\n%s\r\n" % (len(line), line))
            await writer.drain()  # a slow client holds up the run; one that has gone away ends it, by an error


# ---- a client ------------------------------------------------------------------------------------


async def get(port: int, path: str) -> AsyncIterator[bytes]:
    """Request a path; yield the lines of the body as they arrive, without their chunks' frames."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b"200 OK" not in head:
            raise ConnectionError(head.decode().split("\r\n")[0])
        if b"Content-Length: " in head:
            yield await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split()[0]))
            return
        while size := int(await reader.readline(), 16):
            yield (await reader.readexactly(size + 2))[:-2]
    finally:
        writer.close()


async def ping(port: int) -> float:
    """Ask for a ping; return how many seconds it took."""
    started = time.perf_counter()
    async for body in get(port, "/ping"):
        assert body == b"pong\n"
    return time.perf_counter() - started


async def demonstrate() -> None:
    """Start the server and be two clients of it at once: one reads the stream, the other pings after each line."""
    answers: set[asyncio.Task[None]] = set()

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(answer(reader, writer))
        answers.add(task)
        await task

    server = await asyncio.start_server(noted, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    started, arrivals, waits, numbers = time.perf_counter(), [], [], []
    async with aclosing(get(port, "/primes")) as lines:
        async for line in lines:  # which would never begin if the results were collected first: there is no last one
            arrivals.append(time.perf_counter() - started)
            result = json.loads(line)
            numbers.append(result["number"])
            assert result["number"] % result["factor"] == 0
            waits.append(await ping(port))
            if len(numbers) == COUNT:
                break  # the client goes away
    await asyncio.gather(*answers)  # that of the stream too: its work ends with the client
    server.close()
    await server.wait_closed()

    assert numbers == [*range(FIRST, FIRST + COUNT)], "the results are in order"
    print(f"{len(numbers)} results in order: the first after {arrivals[0]:.2f} s, the last after {arrivals[-1]:.2f} s")
    print(f"{len(waits)} other requests answered meanwhile, in {1e3 * sorted(waits)[len(waits) // 2]:.1f} ms (median)")
    share = arrivals[0] / arrivals[-1]
    print(f"gained: a stream without end; its first line came after {share:.0%} of the time of these {len(numbers)}")


async def serve(port: int) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    print(f"serving on http://127.0.0.1:{port}")
    async with server:
        await server.serve_forever()


if __name__ == "__main__":  # worker processes import this file
    main = partial(serve, 8080) if sys.argv[1:] == ["serve"] else demonstrate
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
