"""Writes the status of HTTPRoutes, which KServe waits for before it calls a model's ingress ready."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.kinds import HTTP_ROUTE, SERVICE, Kind
from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.controllers.runtime import Controller, Key
from airflow_llmtune.controlplane.gateway.acceptance import parent_statuses

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry


class HttpRouteController(Controller):
    kind = HTTP_ROUTE
    owns = (SERVICE,)

    def __init__(self, registry: Registry, clock: Clock) -> None:
        super().__init__(registry)
        self._clock = clock

    def keys_for(self, kind: Kind, obj: dict[str, Any]) -> Iterable[Key]:
        """A Service is not owned by the routes that name it: all of its namespace are looked at."""
        if kind == SERVICE:
            return [entry.key for entry in self.registry.entries(HTTP_ROUTE, obj["metadata"]["namespace"])]
        return super().keys_for(kind, obj)

    async def reconcile(self, namespace: str, name: str) -> None:
        route = self.registry.find(HTTP_ROUTE, namespace, name)
        if route is None:
            return
        parents = parent_statuses(route, self._find_service, timestamp(self._clock()))
        if parents != (route.get("status") or {}).get("parents", []):
            self.registry.update_status(HTTP_ROUTE, {**route, "status": {"parents": parents}})

    def _find_service(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self.registry.find(SERVICE, namespace, name)
