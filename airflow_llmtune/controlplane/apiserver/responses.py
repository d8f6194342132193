"""Answers in the forms a client may ask for: plain JSON or tables, compressed when that pays."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

    from airflow_llmtune.controlplane.apiserver.errors import ApiError

_COMPRESS_FROM_BYTES = 128 * 1024


def dump(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def json_response(request: Request, raw: bytes, *, code: int = 200, warning: str = "") -> Response:
    headers = {"cache-control": "no-cache, private"}
    if warning:
        headers["warning"] = f'299 - "{warning}"'
    if len(raw) >= _COMPRESS_FROM_BYTES and "gzip" in request.headers.get("accept-encoding", ""):
        # Level 1, as a real API server: anything more costs more time than the loopback saves.
        raw = gzip.compress(raw, compresslevel=1)
        headers["content-encoding"] = "gzip"
        headers["vary"] = "Accept-Encoding"
    return Response(raw, code, headers, "application/json")


def error_response(error: ApiError) -> Response:
    headers = {"cache-control": "no-cache, private"}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return Response(dump(error.status), error.code, headers, "application/json")
