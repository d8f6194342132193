"""How fast one change reaches a thousand watchers of one kind."""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import time
from dataclasses import dataclass, field

from benchmarks.creation import CONFIG_MAPS, config_map
from benchmarks.http_connection import Address, Connection
from benchmarks.served import Served

_NAME = re.compile(rb'"name":\s*"event-(\d+)"')
_WAIT_SECONDS = 60.0
# Handshakes at a time: all at once would overrun the listen queue.
_OPENING = 50


@dataclass
class Deliveries:
    """When each event was sent, and how long each delivery took."""

    expected: int
    sent: dict[int, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    def arrived(self, data: bytes) -> None:
        now = time.monotonic()
        self.seconds += [now - self.sent[int(match[1])] for match in _NAME.finditer(data)]
        if len(self.seconds) >= self.expected:
            self.complete.set()


class Watcher(asyncio.Protocol):
    """Looks for names in what arrives and does nothing else, since a thousand of these share one core."""

    def __init__(self, request: bytes, deliveries: Deliveries) -> None:
        self._request = request
        self._deliveries = deliveries
        self._rest = b""
        self.opened = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self.opened.set_result(None)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._deliveries.arrived(line)


async def open_watchers(address: Address, count: int, deliveries: Deliveries, since: str) -> list[Watcher]:
    path = f"{CONFIG_MAPS}?watch=1&resourceVersion={since}"
    request = address.head("GET", path, b"", {})
    loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(_OPENING)

    async def one() -> Watcher:
        async with gate:
            _, watcher = await loop.create_connection(
                lambda: Watcher(request, deliveries), address.host, address.port, ssl=address.trust
            )
            await watcher.opened
            return watcher

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def fan_out(served: Served, watchers: int, events: int, pause: float) -> dict[str, float]:
    """``pause`` between events: the delay of an unhurried stream, or with 0 the most that is delivered."""
    deliveries = Deliveries(watchers * events)
    async with Connection(served.address) as connection:
        listed = (await connection.ask("GET", f"{CONFIG_MAPS}?limit=1")).json()
    begin = time.monotonic()
    opened = await open_watchers(served.address, watchers, deliveries, listed["metadata"]["resourceVersion"])
    opening = time.monotonic() - begin
    async with Connection(served.address) as connection:
        cpu, begin = served.cpu_seconds(), time.monotonic()
        for number in range(events):
            deliveries.sent[number] = time.monotonic()
            await connection.ask("POST", CONFIG_MAPS, config_map(f"event-{number}"))
            await asyncio.sleep(pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(deliveries.complete.wait(), _WAIT_SECONDS)
        seconds, cpu = time.monotonic() - begin, served.cpu_seconds() - cpu
    for watcher in opened:
        watcher.transport.abort()
    async with Connection(served.address) as connection:
        await connection.ask("DELETE", CONFIG_MAPS)
    centiles = statistics.quantiles(deliveries.seconds, n=100)
    return {
        "opening_s": opening,
        "delivered": len(deliveries.seconds) / deliveries.expected,
        "events_per_s": len(deliveries.seconds) / seconds,
        "p50_ms": centiles[49] * 1000,
        "p99_ms": centiles[98] * 1000,
        "cpu_us_per_event": cpu / len(deliveries.seconds) * 1_000_000,
    }
