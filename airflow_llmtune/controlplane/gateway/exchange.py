"""One request and its answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_llmtune.controlplane.gateway.answers import broken, too_slow
from airflow_llmtune.controlplane.gateway.filters import (
    changed_request_headers,
    changed_response_headers,
    rewritten_host,
    rewritten_path,
)
from airflow_llmtune.controlplane.gateway.headers import for_client, for_pod
from airflow_llmtune.controlplane.gateway.upstream import (
    BadAnswerError,
    Call,
    NoAnswerError,
    NotConnectedError,
    TooSlowError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Send

    from airflow_llmtune.controlplane.gateway.client import Client
    from airflow_llmtune.controlplane.gateway.destinations import Destination, Destinations
    from airflow_llmtune.controlplane.gateway.filters import Object
    from airflow_llmtune.controlplane.gateway.picking import LeastBusy
    from airflow_llmtune.controlplane.gateway.request import Asked
    from airflow_llmtune.controlplane.gateway.routes import Match
    from airflow_llmtune.controlplane.gateway.upstream import Answer, Upstream

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})

log = logging.getLogger(__name__)


class Exchange:
    def __init__(self, request: Asked, client: Client, send: Send, upstream: Upstream, pods: LeastBusy) -> None:
        self.has_begun = False
        """Whether the client has got the first of a pod's answer."""
        self._was_lost = False
        self._request = request
        self._client = client
        self._send = send
        self._upstream = upstream
        self._pods = pods

    async def run(self, destinations: Destinations) -> None:
        """Raises ``Refused`` when no pod has begun to answer."""
        while True:
            destination = await destinations.next()
            try:
                await self._ask(destination)
                return
            except NotConnectedError as error:
                destinations.failed(destination.endpoint, str(error))
            except NoAnswerError as error:
                if not self._may_be_sent_again(pod_is_going=destinations.is_going(destination)):
                    raise broken(f"pod {destination.endpoint.pod} did not answer: {error}") from error
                destinations.failed(destination.endpoint, str(error))
            except TooSlowError as error:
                raise too_slow(f"pod {destination.endpoint.pod}: {error}") from error
            except BadAnswerError as error:
                raise broken(f"pod {destination.endpoint.pod} did not answer in HTTP: {error}") from error

    def _may_be_sent_again(self, *, pod_is_going: bool) -> bool:
        """A server that is stopped closes what it has not begun to answer. Otherwise the request may have had its
        effect, and goes out once more only if that changes nothing; and only once, as it may be what ends the servers.
        """
        if not self._client.can_send_again:
            return False
        if pod_is_going:
            return True
        is_first, self._was_lost = not self._was_lost, True
        return is_first and self._request.method in _IDEMPOTENT

    async def _ask(self, destination: Destination) -> None:
        filters = (*destination.match.rule.filters, *destination.backend.filters)
        call = _call(self._request, destination.match, filters)
        with self._pods.busy(destination.endpoint):
            async with self._upstream.call(destination.endpoint, call, self._client.body()) as answer:
                try:
                    await self._pass_on(answer, filters)
                except BadAnswerError as error:
                    # It is not completed, so that the client's connection breaks as the pod's did.
                    log.warning("%s %s: pod %s: %s", call.method, self._request.path, destination.endpoint.pod, error)

    async def _pass_on(self, answer: Answer, filters: Iterable[Object]) -> None:
        headers = changed_response_headers(filters, for_client(answer.headers))
        encoded = [(name.encode("ascii"), value.encode()) for name, value in headers]
        self.has_begun = True
        await self._send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        async for piece in answer.body:
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})


def _call(request: Asked, match: Match, filters: tuple[Object, ...]) -> Call:
    headers = for_pod(request, rewritten_host(filters, request.host))
    return Call(
        request.method,
        rewritten_path(filters, match.path, request.path),
        request.query,
        changed_request_headers(filters, headers),
        match.rule.timeout_seconds,
    )
