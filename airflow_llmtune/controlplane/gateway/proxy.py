"""The proxy itself: who may ask, and what is told when no pod answers."""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import TYPE_CHECKING

from airflow_llmtune.controlplane.gateway.answers import Refused, bad_path, send_refusal, unauthorized, unavailable
from airflow_llmtune.controlplane.gateway.client import Client
from airflow_llmtune.controlplane.gateway.destinations import Destinations
from airflow_llmtune.controlplane.gateway.exchange import Exchange
from airflow_llmtune.controlplane.gateway.headers import has_body
from airflow_llmtune.controlplane.gateway.picking import LeastBusy, WeightedTurns
from airflow_llmtune.controlplane.gateway.request import Asked, asked
from airflow_llmtune.controlplane.gateway.table import RoutingTable
from airflow_llmtune.controlplane.gateway.upstream import Upstream

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from airflow_llmtune.controlplane.apiserver.registry import Registry

log = logging.getLogger(__name__)


class Gateway:
    """An ASGI application, which needs ``follow`` beside it."""

    def __init__(self, registry: Registry, *, token: str) -> None:
        self._table = RoutingTable(registry)
        self._turns = WeightedTurns()
        self._pods = LeastBusy()
        self._upstream = Upstream()
        self._authorization = b""
        self.accept_token(token)

    def accept_token(self, token: str) -> None:
        """From now on this one and no other."""
        self._authorization = f"Bearer {token}".encode()

    async def follow(self) -> None:
        """Until cancelled."""
        await self._table.follow()

    async def close(self) -> None:
        await self._upstream.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = asked(scope)
        client = Client(receive, has_body=has_body(request))
        await client.while_it_waits(self._answer(request, client, send))

    async def _answer(self, request: Asked, client: Client, send: Send) -> None:
        exchange = Exchange(request, client, send, self._upstream, self._pods)
        try:
            self._authenticate(request)
            if request.has_dot_segments:
                raise bad_path(request.path)
            await exchange.run(Destinations(request, self._table, self._turns, self._pods))
        except asyncio.CancelledError:
            # The plane stops, or the client has gone, which then hears nothing of this.
            if not exchange.has_begun:
                await send_refusal(unavailable("the gateway is stopping"), send)
            raise
        except Refused as refused:
            log.warning("%s %s: %d, %s", request.method, request.path, refused.status, refused)
            await send_refusal(refused, send)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            raise

    def _authenticate(self, request: Asked) -> None:
        sent = (request.header("authorization") or "").encode()
        if not hmac.compare_digest(sent, self._authorization):
            raise unauthorized()
