"""Answers that go on: watches and followed logs. All of them end at once when the server stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING

from airflow_llmtune.controlplane.apiserver.errors import ApiError, expired
from airflow_llmtune.controlplane.apiserver.responses import dump

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from airflow_llmtune.controlplane.apiserver.faults import Fault
    from airflow_llmtune.controlplane.apiserver.watch import Watch, WatchEvent

Printer = Callable[["WatchEvent"], bytes]

log = logging.getLogger(__name__)


class StreamAbortedError(Exception):
    """The connection is to break in the middle of the answer, as an injected fault wants."""


class OpenStreams:
    """The tasks that feed all open streams, so that stopping the server can end them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: asyncio.Future[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end_all(self) -> None:
        for task in list(self._tasks):
            task.cancel()


class StreamedAnswer:
    """An ASGI answer whose body is sent piece by piece until it ends, the client leaves or the server stops."""

    def __init__(self, body: AsyncIterator[bytes], media_type: str, streams: OpenStreams) -> None:
        self._body = body
        self._media_type = media_type
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  ASGI
        headers = [(b"content-type", self._media_type.encode()), (b"cache-control", b"no-cache, private")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        pump = asyncio.ensure_future(self._pump(send))
        gone = asyncio.ensure_future(_disconnected(receive))
        self._streams.add(pump)
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pump.cancel()
            gone.cancel()
            _, error = await asyncio.gather(gone, pump, return_exceptions=True)
        if error is None or isinstance(error, asyncio.CancelledError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif not isinstance(error, StreamAbortedError):
            log.error("a stream broke off", exc_info=error)

    async def _pump(self, send: Send) -> None:
        async for piece in self._body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def error_line(error: ApiError) -> bytes:
    return dump({"type": "ERROR", "object": error.status}) + b"\n"


async def watch_body(watch: Watch, printer: Printer | None, fault: Fault | None = None) -> AsyncGenerator[bytes, None]:
    """The lines of a watch; events that are ready at the same time go out together."""
    left = fault.cut_after_events if fault is not None and fault.cut_watch else None
    try:
        if left != 0:
            async for event in watch:
                events = [event, *watch.take_ready()][:left]
                yield b"".join(each.line if printer is None else printer(each) for each in events)
                if left is not None:
                    left -= len(events)
                    if left == 0:
                        break
    except ApiError as error:
        yield error_line(error)
    finally:
        watch.stop()
    if fault is not None and fault.cut_watch == "expire":
        yield error_line(expired("too old resource version (injected fault)"))
    if fault is not None and fault.cut_watch == "abort":
        raise StreamAbortedError
