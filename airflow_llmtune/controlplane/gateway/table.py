"""What the gateway knows of routes, Services and pods: always what the store holds at the moment of a request."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from airflow_llmtune.controlplane.apiserver.kinds import HTTP_ROUTE, POD, SERVICE, Kind
from airflow_llmtune.controlplane.gateway import routes
from airflow_llmtune.controlplane.gateway.acceptance import is_served
from airflow_llmtune.controlplane.gateway.endpoints import Endpoint, ReadyPod, endpoints, ready_pod
from airflow_llmtune.controlplane.store import Change, CompactedError

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry
    from airflow_llmtune.controlplane.gateway.request import Asked
    from airflow_llmtune.controlplane.store import Store


class _Changes:
    """Of one kind since the last look; the first look finds that everything has changed."""

    def __init__(self, store: Store, kind: Kind, wake: asyncio.Event) -> None:
        self._store = store
        self._kind = kind
        self._wake = wake
        self._subscription = store.subscribe(kind, wake=wake)
        self._is_first = True

    def read(self) -> list[Change] | None:
        """None when more has changed than can be told."""
        try:
            changes = self._subscription.read()
        except CompactedError:
            self._subscription = self._store.subscribe(self._kind, wake=self._wake)
            return None
        is_first, self._is_first = self._is_first, False
        return None if is_first else changes


class RoutingTable:
    """``catch_up`` before a question makes the answer that of this moment; ``follow`` keeps that cheap."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._changed = asyncio.Event()
        self._route_changes = _Changes(registry.store, HTTP_ROUTE, self._changed)
        self._pod_changes = _Changes(registry.store, POD, self._changed)
        # Its own object is read when it is asked for; only waiting requests have to hear of it.
        self._services = registry.store.subscribe(SERVICE, wake=self._changed)
        self._matches: list[routes.Match] = []
        self._pods: defaultdict[str, dict[str, ReadyPod]] = defaultdict(dict)
        """By namespace and name."""

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            self.catch_up()
            await self._changed.wait()

    async def change(self) -> None:
        """Returns after the next change of anything that is looked at here."""
        await self._changed.wait()

    def catch_up(self) -> None:
        self._changed.clear()
        self._catch_up_with_pods()
        if self._route_changes.read() != []:
            stored = (entry.view for entry in self._registry.entries(HTTP_ROUTE))
            self._matches = routes.matches(route for route in stored if is_served(route))

    def find(self, asked: Asked) -> routes.Match | None:
        return routes.find(self._matches, asked)

    def endpoints(self, backend: routes.Backend) -> list[Endpoint]:
        service = self._registry.store.get(SERVICE, backend.namespace, backend.service)
        if service is None:
            return []
        return endpoints(service.view, backend.port, self._pods[backend.namespace].values())

    def is_going(self, namespace: str, pod: Endpoint) -> bool:
        """Whether it is being deleted, or gone already."""
        entry = self._registry.store.get(POD, namespace, pod.pod)
        return (
            entry is None or entry.view["metadata"]["uid"] != pod.uid or "deletionTimestamp" in entry.view["metadata"]
        )

    def _catch_up_with_pods(self) -> None:
        changes = self._pod_changes.read()
        if changes is None:
            self._pods.clear()
            for entry in self._registry.entries(POD):
                self._put(*entry.key, ready_pod(entry.view))
            return
        for change in changes:
            self._put(*change.entry.key, None if change.deleted else ready_pod(change.entry.view))

    def _put(self, namespace: str, name: str, pod: ReadyPod | None) -> None:
        if pod is not None:
            self._pods[namespace][name] = pod
        else:
            self._pods[namespace].pop(name, None)
