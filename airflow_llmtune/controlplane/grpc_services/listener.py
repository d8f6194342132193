"""The DB manager's address: open from the start, served by gRPC from the first connection on.

Importing gRPC takes longer than the control plane needs to start, and most runs push nothing. So the address belongs
to a plain listener, which passes bytes on to a gRPC server that is made when it is first needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

DB_MANAGER_PORT = 6789
"""Also of a Suggestion's Service, whose name leads here inside pods."""

EARLY_STOPPING_PORT = 6788

_TRIES = 10
_CHUNK_BYTES = 64 << 10
_LOOPBACK = "127.0.0.1"

StartServer = Callable[[], Awaitable[tuple[Any, int]]]
"""Starts a gRPC server on a free port of 127.0.0.1; returns it, to be stopped, and the port."""

log = logging.getLogger(__name__)


class LazyListener:
    def __init__(self, start_server: StartServer) -> None:
        self._start_server = start_server
        self._starting = asyncio.Lock()
        self._server: tuple[Any, int] | None = None
        self._listeners: list[asyncio.Server] = []
        self._relays: set[asyncio.Task[None]] = set()

    async def start(self, seed: str) -> str:
        """Listen on a loopback address of one's own; returns it with its port.

        The same seed tries the same addresses, so that a control plane that is started again is found again. Where
        only 127.0.0.1 can be bound, the port is any free one, and there is none for early stopping.
        """
        for host in _addresses(seed):
            with contextlib.suppress(OSError):
                found = await self._listen(host, DB_MANAGER_PORT)
                with contextlib.suppress(OSError):
                    await self._listen(host, EARLY_STOPPING_PORT)
                return found
        return await self._listen(_LOOPBACK, 0)

    async def _listen(self, host: str, port: int) -> str:
        listener = await asyncio.start_server(self._accept, host, port)
        self._listeners.append(listener)
        address, bound = listener.sockets[0].getsockname()
        return f"{address}:{bound}"

    async def stop(self) -> None:
        for listener in self._listeners:
            listener.close()
        for task in self._relays:
            task.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)
        for listener in self._listeners:
            await listener.wait_closed()
        if self._server is not None:
            (server, _), self._server = self._server, None
            await server.stop(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._relay(reader, writer))
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with _closing(writer):
                inner_reader, inner_writer = await asyncio.open_connection(_LOOPBACK, await self._port())
                async with _closing(inner_writer), asyncio.TaskGroup() as both:
                    both.create_task(_pass_on(reader, inner_writer))
                    both.create_task(_pass_on(inner_reader, writer))
        except Exception:
            log.exception("a connection to the DB manager could not be served")

    async def _port(self) -> int:
        async with self._starting:
            if self._server is None:
                self._server = await self._start_server()
            return self._server[1]


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> Any:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side ends; the other is told."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    writer.close()


def _addresses(seed: str) -> list[str]:
    drawn = random.Random(hashlib.sha256(seed.encode()).digest())  # noqa: S311  an address, no secret
    return [f"127.{drawn.randint(1, 254)}.{drawn.randint(0, 255)}.{drawn.randint(1, 254)}" for _ in range(_TRIES)]
