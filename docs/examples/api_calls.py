"""Call a service that allows 200 calls per second, keep its rules, and lose nothing.

The service runs in this program, on a port of its own. It refuses the 201st call of any second, now and then asks all
clients to be quiet for a second (429 with Retry-After), fails sometimes (503), does not know every item (404), and
takes 5 to 30 ms to answer, but every hundredth time half a second. It counts what its clients do.

The client asks for 800 items, in order: with threads, then with asyncio. All it needs for that is a `Limiter` and a
`retry` policy, the same in both cases.

    python docs/examples/api_calls.py
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from inturn import Failure, Limiter, Report, Threads, ordered_amap, ordered_map, retry

QUOTA = 200  # calls per second
QUIET_S = 1  # what Retry-After says
UNDER_WAY_S = 0.3  # so long after it has asked to be quiet the service forgives calls that were under way
ITEMS = range(800)


# ---- the service ---------------------------------------------------------------------------------


class Service(ThreadingHTTPServer):
    """It keeps the books of its clients."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self._lock = threading.Lock()
        self._random = random.Random(7)
        self.port = self.server_address[1]
        self.latency_s = 0.0  # of all answers together
        self.new_client()

    def new_client(self) -> None:
        """Begin new books."""
        self._arrivals: deque[float] = deque()  # of the last second
        self._quiet_since = self._quiet_until = 0.0
        self.first = self.last = self.closed_s = self.latency_s = 0.0
        self.calls = self.served = self.over = self.inside = self.pauses = 0

    def arrives(self) -> tuple[int, float]:
        """Count a call; return the status of its answer, and Retry-After or the latency in seconds."""
        with self._lock:
            now = time.perf_counter()
            self.calls += 1
            if now < self._quiet_until:
                self.inside += now > self._quiet_since + UNDER_WAY_S
                return 429, self._quiet_until - now
            self.first, self.last = self.first or now, now
            while self._arrivals and self._arrivals[0] <= now - 1:
                self._arrivals.popleft()
            if len(self._arrivals) == QUOTA:
                self.over += 1
                return 429, self._arrivals[0] + 1 - now
            self._arrivals.append(now)
            self.served += 1
            if self.served in {250, 600}:
                self._quiet_since, self._quiet_until = now, now + QUIET_S
                self.closed_s += QUIET_S
                self.pauses += 1
                return 429, QUIET_S
            if self._random.random() < 0.02:
                return 503, 0
            latency = 0.5 if self.served % 100 == 0 else self._random.uniform(0.005, 0.030)
            self.latency_s += latency
            return 200, latency

    def used(self) -> float:
        """The share of the quota that was used while the service was open."""
        return self.served / (QUOTA * (self.last - self.first - self.closed_s))


class Answer(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer is one packet
    server: Service

    def do_GET(self) -> None:
        status, seconds = self.server.arrives()
        if status == 200:
            time.sleep(seconds)
            status = 404 if self.path.endswith("13") else 200
        body = f"answer {self.path[1:]}".encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", f"{seconds:.3f}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


# ---- what both clients have ----------------------------------------------------------------------


class ServiceError(Exception):
    """The service has not answered 200."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after = retry_after


limiter = Limiter(QUOTA - 1)  # at most rate * per + burst = 200 starts in any second


def is_temporary(failure: Failure) -> bool:
    """Not 404: the service will not know the item next time either."""
    return isinstance(failure.error, ServiceError) and failure.error.status in {429, 503}


def seconds_asked_for(failure: Failure) -> float | None:
    """Do what Retry-After says, with all calls, not only with this one."""
    seconds: float | None = failure.error.retry_after  # type: ignore[attr-defined]
    if seconds is None:
        return None  # the growing pause
    limiter.pause(seconds)
    return 0.0  # the item itself waits for the limiter, as all others


POLICY = retry(attempts=10, on=is_temporary, after=seconds_asked_for, backoff=0.05, then="return")


# ---- with threads --------------------------------------------------------------------------------


def with_threads(service: Service, items: Iterable[int]) -> Report[str]:
    local = threading.local()  # a connection for each thread

    def connect() -> None:
        local.connection = HTTPConnection("127.0.0.1", service.port)

    def disconnect() -> None:
        local.connection.close()

    def ask(item: int) -> str:
        local.connection.request("GET", f"/{item}")
        response = local.connection.getresponse()
        body: str = response.read().decode()
        if response.status != 200:
            retry_after = response.headers["Retry-After"]
            raise ServiceError(response.status, None if retry_after is None else float(retry_after))
        return body

    return Report(
        ordered_map(
            ask,
            items,
            executor=Threads(initializer=connect, finalizer=disconnect),
            concurrency=64,  # the limit, not this number, is to be what holds the calls up
            window=1000,  # so many items may be behind a slow one
            limit=limiter,
            on_error=POLICY,
            indexed=True,
        )
    )


# ---- with asyncio --------------------------------------------------------------------------------


async def with_tasks(service: Service, items: Iterable[int]) -> Report[str]:
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []  # connections that are not in use

    async def ask(item: int) -> str:
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(f"GET /{item} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        body = (await reader.readexactly(int(headers["Content-Length"]))).decode()
        idle.append((reader, writer))
        if " 200 " not in status:
            retry_after = headers.get("Retry-After")
            raise ServiceError(int(status.split()[1]), None if retry_after is None else float(retry_after))
        return body

    run = ordered_amap(ask, items, concurrency=64, window=1000, limit=limiter, on_error=POLICY, indexed=True)
    async with run:
        report: Report[str] = Report([pair async for pair in run])
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    return report


# ---- what came of it -----------------------------------------------------------------------------


def tell(name: str, service: Service, report: Report[str], seconds: float) -> None:
    known = [item for item in ITEMS if not str(item).endswith("13")]
    assert report.successful == [f"answer {item}" for item in known], "all answers are there, in order"
    assert [failure.item for failure in report.failed] == [item for item in ITEMS if str(item).endswith("13")]
    print(f"{name}: {len(ITEMS)} items in order in {seconds:.1f} s, nothing lost. {str(report).splitlines()[0]}")
    print(f"  the service counted {service.calls} calls: {service.over} over its quota of {QUOTA} per second,")
    print(
        f"  {service.inside} inside its {service.pauses} times of silence; {service.used():.0%} of the quota was used"
    )
    print(f"gained: one call after the other would have waited {service.latency_s:.0f} s for the answers alone")


def main() -> None:
    with Service() as service:
        serving = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            started = time.perf_counter()
            report = with_threads(service, ITEMS)
            tell("threads", service, report, time.perf_counter() - started)
            time.sleep(1)
            service.new_client()
            started = time.perf_counter()
            report = asyncio.run(with_tasks(service, ITEMS))
            tell("asyncio", service, report, time.perf_counter() - started)
        finally:
            service.shutdown()
            serving.join()


if __name__ == "__main__":
    main()
