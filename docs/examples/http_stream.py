"""Stream CPU-bound results over HTTP, in order, while the server goes on answering others.

`GET /primes` has the largest prime factor of a range of numbers found by worker processes, and sends each line as
soon as it is ready and its turn has come (chunked transfer encoding, one line of JSON each). `GET /ping` is answered
at once, meanwhile too. A client that goes away ends the work: the run is left, its workers end.

    python docs/examples/http_stream.py            starts the server, talks to it, and checks what it says
    python docs/examples/http_stream.py serve      serves on http://127.0.0.1:8080 (try: curl -N http://127.0.0.1:8080/primes)

Only asyncio and the library; a real server would be one of the frameworks, whose streaming responses take the very
same `async for`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from functools import partial

from inturn import ordered_amap

FIRST, COUNT, WORKERS = 10**11 + 1, 40, 2


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
    numbers = range(FIRST, FIRST + COUNT)
    async with ordered_amap(
        largest_prime_factor, numbers, executor="process", concurrency=WORKERS, indexed=True
    ) as results:
        async for index, factor in results:
            line = json.dumps({"number": numbers[index], "factor": factor}).encode() + b"\n"
            writer.write(b"%x\r\n%s\r\n" % (len(line), line))
            await writer.drain()  # a slow client holds up the run: its window fills, and the workers rest
    writer.write(b"0\r\n\r\n")


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


async def pings(port: int, waits: list[float]) -> None:
    """Ask for a ping again and again, and note how long each took."""
    while True:
        started = time.perf_counter()
        async for body in get(port, "/ping"):
            assert body == b"pong\n"
        waits.append(time.perf_counter() - started)
        await asyncio.sleep(0.01)


async def demonstrate() -> None:
    """Start the server and be two clients of it at once."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    waits: list[float] = []
    other = asyncio.create_task(pings(port, waits))
    started, arrivals, numbers = time.perf_counter(), [], []
    async for line in get(port, "/primes"):
        arrivals.append(time.perf_counter() - started)
        result = json.loads(line)
        numbers.append(result["number"])
        assert result["number"] % result["factor"] == 0
    other.cancel()
    await asyncio.wait([other])
    server.close()
    await server.wait_closed()

    assert numbers == [*range(FIRST, FIRST + COUNT)], "the results are in order"
    assert arrivals[-1] - arrivals[0] > 0.1, "they came one by one"
    assert waits, "others were answered"
    print(f"{len(numbers)} results in order: the first after {arrivals[0]:.2f} s, the last after {arrivals[-1]:.2f} s")
    print(f"{len(waits)} other requests answered meanwhile, in {1e3 * sorted(waits)[len(waits) // 2]:.1f} ms (median)")


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
