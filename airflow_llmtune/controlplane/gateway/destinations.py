"""Where a request goes, and how long it waits for somebody to be there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_llmtune.controlplane.gateway.answers import Refused, no_route, unavailable
from airflow_llmtune.controlplane.gateway.picking import LeastBusy, WeightedTurns

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.gateway.endpoints import Endpoint
    from airflow_llmtune.controlplane.gateway.request import Asked
    from airflow_llmtune.controlplane.gateway.routes import Backend, Match, Rule
    from airflow_llmtune.controlplane.gateway.table import RoutingTable

# Long enough for a pod that takes another one's place to be seen, short enough for a client to be told soon.
_WAIT_SECONDS = 2.0
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Destination:
    match: Match
    backend: Backend
    endpoint: Endpoint


class Destinations:
    """Of one request, one after the other: those that could not be reached are tried again after a pause."""

    def __init__(self, request: Asked, table: RoutingTable, turns: WeightedTurns, pods: LeastBusy) -> None:
        self._request = request
        self._table = table
        self._turns = turns
        self._pods = pods
        self._deadline = asyncio.get_running_loop().time() + _WAIT_SECONDS
        self._failures: dict[str, str] = {}
        """Of all tries, by pod."""
        self._avoided: set[str] = set()
        """Pods by uid."""
        self._rule: Rule | None = None
        self._backend: Backend | None = None

    async def next(self) -> Destination:
        while True:
            self._table.catch_up()
            match = self._table.find(self._request)
            if match is None:
                raise no_route(f"{self._request.method} {self._request.path} of host {self._request.host}")
            backend = self._backend_of(match.rule)
            found = [one for one in self._table.endpoints(backend) if one.uid not in self._avoided]
            if found:
                return Destination(match, backend, self._pods.choose(found))
            await self._wait(backend)

    def failed(self, endpoint: Endpoint, why: str) -> None:
        self._failures[endpoint.pod] = why
        self._avoided.add(endpoint.uid)

    def is_going(self, destination: Destination) -> bool:
        """Whether the pod is being deleted."""
        return self._table.is_going(destination.backend.namespace, destination.endpoint)

    def _backend_of(self, rule: Rule) -> Backend:
        """The same until the rule changes: a request takes one turn."""
        if self._backend is None or rule != self._rule:
            self._rule, self._backend = rule, self._turns.next(rule)
        if self._backend is None:
            namespace, name, index = rule.key
            raise unavailable(f"HTTPRoute {namespace}/{name}: rules[{index}] has no backend with a weight")
        return self._backend

    async def _wait(self, backend: Backend) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                if self._avoided:
                    await asyncio.sleep(_PAUSE_SECONDS)
                else:
                    await self._table.change()
        except TimeoutError:
            raise self._unavailable(backend) from None
        self._avoided.clear()

    def _unavailable(self, backend: Backend) -> Refused:
        name = f"{backend.namespace}/{backend.service}" if backend.service else "of the route, see its status,"
        failures = "".join(f"; pod {pod}: {why}" for pod, why in self._failures.items())
        return unavailable(f"no ready pod answers at port {backend.port} of Service {name}{failures}")
