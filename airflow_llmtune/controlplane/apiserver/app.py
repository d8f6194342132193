"""The HTTP face: authenticate, inject faults, route, and turn every error into a ``metav1.Status``."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import Counter
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from airflow_llmtune.controlplane.apiserver.discovery import discovery_document
from airflow_llmtune.controlplane.apiserver.errors import (
    ApiError,
    internal_error,
    method_not_allowed,
    unauthorized,
)
from airflow_llmtune.controlplane.apiserver.negotiation import MAX_BODY_BYTES, too_large
from airflow_llmtune.controlplane.apiserver.resources import Resources
from airflow_llmtune.controlplane.apiserver.responses import dump, error_response, json_response
from airflow_llmtune.controlplane.apiserver.streaming import OpenStreams
from airflow_llmtune.controlplane.apiserver.targets import Target, flag, parse_target

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from airflow_llmtune.controlplane.apiserver.faults import Fault, Faults
    from airflow_llmtune.controlplane.apiserver.logs import PodLogs
    from airflow_llmtune.controlplane.apiserver.registry import Registry
    from airflow_llmtune.controlplane.clock import Clock

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_COLLECTION_VERBS = {"GET": "list", "DELETE": "deletecollection"}

log = logging.getLogger(__name__)


class ApiServer:
    """An ASGI application. ``requests`` counts what was asked, by verb and resource."""

    def __init__(self, registry: Registry, logs: PodLogs, *, token: str, faults: Faults, clock: Clock) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.streams = OpenStreams()
        self._faults = faults
        self._authorization = f"Bearer {token}".encode()
        self._resources = Resources(registry, logs, self.streams, clock)
        self._routes = Starlette(
            routes=[
                *(Route(path, _healthy) for path in ("/healthz", "/livez", "/readyz")),
                Route("/{path:path}", self._endpoint, methods=list(_VERBS)),
            ],
            exception_handlers={405: _not_allowed},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._routes(scope, receive, send)

    async def _endpoint(self, request: Request) -> ASGIApp:
        try:
            self._authenticate(request)
            return await self._answer(request)
        except ApiError as error:
            return error_response(error)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.url.path)
            return error_response(internal_error(f"{type(error).__name__}: {error}"))

    def _authenticate(self, request: Request) -> None:
        sent = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(sent, self._authorization):
            raise unauthorized()

    async def _answer(self, request: Request) -> ASGIApp:
        if request.method not in _VERBS:  # HEAD, which Starlette lets through with GET.
            raise method_not_allowed()
        watching = request.method == "GET" and flag(request.query_params, "watch")
        fault = self._faults.take(request.method, _path_and_query(request), is_watch=watching)
        if fault is not None:
            await _suffer(fault)
        path = request.url.path.strip("/")
        document = discovery_document(path, request.url.netloc)
        if document is not None:
            if request.method != "GET":
                raise method_not_allowed()
            return json_response(request, dump(document))
        target = parse_target(path)
        self.requests[_verb(request.method, target, watching=watching), target.kind.resource] += 1
        return self._resources.answer(request, target, await _body(request), fault)


def _verb(method: str, target: Target, *, watching: bool) -> str:
    if watching:
        return "watch"
    return _VERBS[method] if target.name else _COLLECTION_VERBS.get(method, _VERBS[method])


def _path_and_query(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


async def _suffer(fault: Fault) -> None:
    if fault.delay_seconds:
        await asyncio.sleep(fault.delay_seconds)
    if fault.code is not None:
        raise ApiError(fault.status(), retry_after=fault.retry_after)


async def _body(request: Request) -> bytes:
    pieces = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise too_large()
        pieces.append(piece)
    return b"".join(pieces)


async def _healthy(request: Request) -> Response:  # noqa: ARG001  one signature for all endpoints
    return PlainTextResponse("ok")


async def _not_allowed(request: Request, error: Exception) -> Response:  # noqa: ARG001  given by Starlette
    return error_response(method_not_allowed())
