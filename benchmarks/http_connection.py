"""One kept HTTPS connection that does little else than count bytes: a full client would be what is measured."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Address:
    """Where a server is and what it asks for."""

    host: str
    port: int
    token: str
    trust: ssl.SSLContext

    def head(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        if body:
            headers = {"Content-Type": "application/json", **headers, "Content-Length": str(len(body))}
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            f"Authorization: Bearer {self.token}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RequestError(Exception):
    """The server did not do what the benchmark needs."""


class Connection:
    def __init__(self, address: Address) -> None:
        self._address = address

    async def __aenter__(self) -> Self:
        at = self._address
        # A list of 10,000 objects is longer than a stream reader's usual bound for one line.
        self._reader, self._writer = await asyncio.open_connection(at.host, at.port, ssl=at.trust, limit=2**20)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        # Without TLS's farewell, for which the server would be waited for.
        self._writer.transport.abort()

    async def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Raises RequestError for an answer of 400 and above."""
        self._writer.write(self._address.head(method, path, body, headers or {}))
        line = await self._reader.readline()
        if not line:
            raise RequestError(f"{method} {path}: the server has closed the connection")
        status, found = int(line.split()[1]), await self._headers()
        answer = Answer(status, found, await self._body(found))
        if status >= 400:
            raise RequestError(f"{method} {path}: {status} {answer.body[:500].decode(errors='replace')}")
        return answer

    async def events(self, path: str) -> AsyncIterator[Any]:
        """The events of a watch, one by one, until the server ends it."""
        self._writer.write(self._address.head("GET", path, b"", {}))
        await self._reader.readline()
        await self._headers()
        rest = b""
        while size := int(await self._reader.readline() or b"0", 16):
            *lines, rest = (rest + await self._reader.readexactly(size)).split(b"\n")
            await self._reader.readline()
            for line in lines:
                yield json.loads(line)

    async def _headers(self) -> dict[str, str]:
        found = {}
        while line := (await self._reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            found[name.lower()] = value.strip()
        return found

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self._reader.readexactly(int(headers.get("content-length", 0)))
        parts = []
        while size := int(await self._reader.readline(), 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readline()
        await self._reader.readline()
        return b"".join(parts)
