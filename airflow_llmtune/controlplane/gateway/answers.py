"""The gateway's own answers, in the shape that clients of OpenAI's API read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Send


class Refused(Exception):  # noqa: N818  an answer, not an error of the program
    """No answer of a pod; ``code`` is the word that programs look at."""

    def __init__(self, status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message,
                "type": "invalid_request_error" if status < 500 else "server_error",
                "param": None,
                "code": code,
            }
        }
        self.headers = headers or {}


def unauthorized() -> Refused:
    text = "the request needs the header Authorization: Bearer TOKEN with the control plane's token"
    return Refused(401, "invalid_api_key", text, headers={"WWW-Authenticate": "Bearer"})


def bad_path(path: str) -> Refused:
    return Refused(
        400, "bad_request", f"the path {path} must not have the parts . or .., which can lead out of a route"
    )


def no_route(what: str) -> Refused:
    return Refused(404, "not_found", f"no HTTPRoute that is served matches {what}")


def unavailable(why: str) -> Refused:
    return Refused(503, "service_unavailable", why, headers={"Retry-After": "1"})


def broken(why: str) -> Refused:
    return Refused(502, "bad_gateway", why)


def too_slow(why: str) -> Refused:
    return Refused(504, "gateway_timeout", why)


async def send_refusal(refused: Refused, send: Send) -> None:
    response = Response(
        json.dumps(refused.body), refused.status, headers=refused.headers, media_type="application/json"
    )
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body})
