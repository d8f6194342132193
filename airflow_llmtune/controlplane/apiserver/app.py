"""The HTTP face: authenticate, inject faults, route, and turn every error into a ``metav1.Status``."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from airflow_llmtune.controlplane.apiserver.discovery import AGGREGATED, Discovery
from airflow_llmtune.controlplane.apiserver.errors import (
    ApiError,
    bad_request,
    internal_error,
    method_not_allowed,
    unauthorized,
)
from airflow_llmtune.controlplane.apiserver.negotiation import (
    MAX_BODY_BYTES,
    Body,
    accepts_aggregated_discovery,
    received,
    too_large,
)
from airflow_llmtune.controlplane.apiserver.openapi import EMPTY_V2, V2_PROTOBUF, OpenApi
from airflow_llmtune.controlplane.apiserver.resources import Resources
from airflow_llmtune.controlplane.apiserver.responses import dump, error_response, json_response
from airflow_llmtune.controlplane.apiserver.reviews import answer, find_review
from airflow_llmtune.controlplane.apiserver.spoilt_answer import Abort, Refusal, spoilt
from airflow_llmtune.controlplane.apiserver.streaming import OpenStreams
from airflow_llmtune.controlplane.apiserver.targets import Target, flag, parse_target

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from airflow_llmtune.controlplane.apiserver.faults import Fault, Faults
    from airflow_llmtune.controlplane.apiserver.kinds import Kind
    from airflow_llmtune.controlplane.apiserver.logs import PodLogs
    from airflow_llmtune.controlplane.apiserver.registry import Registry
    from airflow_llmtune.controlplane.clock import Clock

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
_COLLECTION_VERBS = {"GET": "list", "DELETE": "deletecollection"}

log = logging.getLogger(__name__)


class ApiServer:
    """An ASGI application. ``requests`` counts what was asked, by verb and resource."""

    def __init__(
        self,
        registry: Registry,
        logs: PodLogs,
        *,
        token: str,
        faults: Faults,
        clock: Clock,
        schemas: Mapping[Kind, dict[str, Any]] | None = None,
    ) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.streams = OpenStreams()
        self.abort_connection: Abort = lambda client: None  # noqa: ARG005  the server that holds the connections sets it
        self._faults = faults
        self._authorization = b""
        self.accept_token(token)
        self._kinds = registry.kinds
        self._discovery = Discovery(registry.kinds)
        self._openapi = OpenApi(registry.kinds, schemas or {})
        self._resources = Resources(registry, logs, self.streams, self._openapi, clock)

    def accept_token(self, token: str) -> None:
        """From now on this one and no other."""
        self._authorization = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # No router and no middleware: each would stand between a watch and its connection at every event.
        answer = await self._endpoint(Request(scope, receive))
        await answer(scope, receive, send)

    async def _endpoint(self, request: Request) -> ASGIApp:
        if request.url.path in _HEALTH and request.method in {"GET", "HEAD"}:
            return PlainTextResponse("ok")
        try:
            self._authenticate(request)
            return await self._answer(request)
        except ApiError as error:
            return error_response(error)
        except ClientDisconnect:
            return Response()  # It broke off in the middle of its body, and reads nothing any more.
        except RecursionError:
            return error_response(bad_request("the object provided is nested too deeply"))
        except Exception as error:
            log.exception("%s %s failed", request.method, request.url.path)
            return error_response(internal_error(f"{type(error).__name__}: {error}"))

    def _authenticate(self, request: Request) -> None:
        sent = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(sent, self._authorization):
            raise unauthorized()

    async def _answer(self, request: Request) -> ASGIApp:
        if request.method not in _VERBS:
            raise method_not_allowed()
        watching = request.method == "GET" and flag(request.query_params, "watch")
        fault = self._faults.take(request.method, _path_and_query(request), is_watch=watching)
        if fault is not None:
            if fault.refuse:
                return Refusal(self.abort_connection)
            await _suffer(fault)
        answered = await self._answer_to(request, fault, watching=watching)
        return spoilt(answered, fault, self.abort_connection)

    async def _answer_to(self, request: Request, fault: Fault | None, *, watching: bool) -> ASGIApp:
        path = request.url.path.strip("/")
        about_itself = self._about_itself(request, path)
        if about_itself is not None:
            return about_itself
        review = find_review(path)
        if review is not None:
            return await self._review(request, review)
        target = parse_target(path, self._kinds)
        self.requests[_verb(request.method, target, watching=watching), target.kind.resource] += 1
        return self._resources.answer(request, target, await _body(request), fault)

    async def _review(self, request: Request, kind: Kind) -> Response:
        if request.method != "POST":
            raise method_not_allowed()
        self.requests["create", kind.resource] += 1
        return json_response(request, dump(answer(kind, (await _body(request)).object())), code=201)

    def _about_itself(self, request: Request, path: str) -> Response | None:
        """Discovery and schemas."""
        if accepts_aggregated_discovery(request.headers.get("accept", "")):
            aggregated = self._discovery.aggregated(path)
            if aggregated is not None and request.method == "GET":
                return json_response(request, dump(aggregated), media_type=AGGREGATED)
        if path == "openapi/v2" and request.headers.get("accept", "").startswith(V2_PROTOBUF):
            return Response(EMPTY_V2, media_type=V2_PROTOBUF.replace("@", "."))
        document = self._discovery.document(path, request.url.netloc) or self._openapi.document(path)
        if document is None:
            return None
        if request.method != "GET":
            raise method_not_allowed()
        return json_response(request, dump(document))


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


async def _body(request: Request) -> Body:
    pieces = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise too_large()
        pieces.append(piece)
    return await received(b"".join(pieces), request.headers.get("content-type", ""))
