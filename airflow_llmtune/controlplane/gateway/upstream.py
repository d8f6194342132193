"""The connection to a pod: one request, its answer as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
from yarl import URL

from airflow_llmtune.controlplane.gateway.endpoints import Endpoint
from airflow_llmtune.controlplane.gateway.request import Headers

_CONNECT_SECONDS = 5.0
_STATUSES = range(200, 600)
"""Of answers to requests that ask for no other protocol; what the server can send on."""
_NO_HEADERS_OF_ITS_OWN = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


class NotConnectedError(Exception):
    """Nothing has been sent."""


class NoAnswerError(Exception):
    """The connection ended before the first byte of an answer."""


class BadAnswerError(Exception):
    """What came was no HTTP, or it broke off."""


class TooSlowError(Exception):
    """No answer began in time."""


@dataclass(frozen=True)
class Call:
    """What a pod is asked."""

    method: str
    path: str
    query: str
    headers: Headers
    timeout_seconds: float | None


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Headers
    body: AsyncIterator[bytes]


class Upstream:
    """A connection for each request: on loopback that costs a fraction of a millisecond, while one that is kept may
    be closed by a server that stops just as the next request is sent on it.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @contextlib.asynccontextmanager
    async def call(self, endpoint: Endpoint, call: Call, body: AsyncIterator[bytes] | None) -> AsyncIterator[Answer]:
        """The answer's body is read within the block; leaving it early ends the connection."""
        response = await self._begin(endpoint, call, body)
        try:
            if response.status not in _STATUSES:
                raise BadAnswerError(f"its status is {response.status}")
            yield Answer(response.status, _headers(response), _pieces(response))
        finally:
            response.close()

    async def _begin(self, endpoint: Endpoint, call: Call, body: AsyncIterator[bytes] | None) -> aiohttp.ClientResponse:
        url = URL.build(
            scheme="http",
            host=endpoint.address,
            port=endpoint.port,
            path=call.path,
            query_string=call.query,
            encoded=True,
        )
        try:
            async with asyncio.timeout(call.timeout_seconds):
                return await self._opened().request(
                    call.method, url, headers=list(call.headers), data=body, allow_redirects=False
                )
        except aiohttp.ClientConnectorError as error:
            raise NotConnectedError(os.strerror(error.errno or errno.ECONNREFUSED)) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise NotConnectedError(os.strerror(errno.ETIMEDOUT)) from error
        except TimeoutError:
            raise TooSlowError(f"no answer began within {call.timeout_seconds:g} seconds") from None
        except aiohttp.ClientError as error:
            raise BadAnswerError(str(error)) from error

    def _opened(self) -> aiohttp.ClientSession:
        """Made on the loop that it is used on."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                auto_decompress=False,
                skip_auto_headers=_NO_HEADERS_OF_ITS_OWN,
                middlewares=(_only_once,),
                max_line_size=64 * 1024,
                max_field_size=64 * 1024,
            )
        return self._session


async def _only_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """The error is another one before aiohttp sees it, which would send some requests once more by itself."""
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except aiohttp.ClientConnectionError as error:
        raise NoAnswerError(str(error) or "it closed the connection") from error


def _headers(response: aiohttp.ClientResponse) -> Headers:
    return tuple(
        (name.decode("ascii").lower(), value.decode("utf-8", "replace")) for name, value in response.raw_headers
    )


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Each as soon as it is there."""
    try:
        async for piece in response.content.iter_any():
            yield piece
    except (aiohttp.ClientError, OSError) as error:
        raise BadAnswerError(f"the answer broke off: {error}") from error
