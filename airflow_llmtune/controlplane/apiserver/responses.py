"""Answers in the forms a client may ask for: plain JSON or tables, compressed when that pays."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from airflow_llmtune.controlplane.apiserver.errors import ApiError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

_COMPRESS_FROM_BYTES = 128 * 1024
# No header may hold them; halves of a character are no UTF-8.
_CONTROL_CHARACTER = r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]"


def dump(body: Any) -> bytes:
    # Half of a surrogate pair, which a message may quote from a request, stays the escape that it came as.
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(errors="backslashreplace")


class LaterAnswer:
    """An answer that takes a while to make, during which others are answered."""

    def __init__(self, make: Callable[[], Awaitable[Response]]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._make()
        except ApiError as error:
            answer = error_response(error)
        await answer(scope, receive, send)


class CompressedResponse(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # In a thread: the list of 10,000 objects takes a tenth of a second. At level 1, as a real API server does:
        # anything more costs more time than the loopback saves.
        self.body = await asyncio.to_thread(gzip.compress, self.body, compresslevel=1)
        self.headers["content-length"] = str(len(self.body))
        self.headers["content-encoding"] = "gzip"
        self.headers["vary"] = "Accept-Encoding"
        await super().__call__(scope, receive, send)


def json_response(
    request: Request,
    raw: bytes,
    *,
    code: int = 200,
    warnings: Sequence[str] = (),
    media_type: str = "application/json",
) -> Response:
    headers = {"cache-control": "no-cache, private"}
    compressed = len(raw) >= _COMPRESS_FROM_BYTES and "gzip" in request.headers.get("accept-encoding", "")
    response = (CompressedResponse if compressed else Response)(raw, code, headers, media_type)
    for warning in warnings:
        if re.search(_CONTROL_CHARACTER, warning):
            continue  # Kubernetes leaves such a one out as well.
        quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
        # Go writes UTF-8 into a header, Starlette takes each character for a byte.
        response.headers.append("warning", f'299 - "{quoted}"'.encode().decode("latin-1"))
    return response


def error_response(error: ApiError) -> Response:
    headers = {"cache-control": "no-cache, private"}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return Response(dump(error.status), error.code, headers, "application/json")
