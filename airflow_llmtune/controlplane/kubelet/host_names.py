"""The names that pods can reach each other by, as a cluster's DNS would know them; all lead to this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.errors import ApiError, seconds_to_look_again
from airflow_llmtune.controlplane.apiserver.kinds import SERVICE, SUGGESTION
from airflow_llmtune.controlplane.kubelet.environment import LOOPBACK, address_of, pod_host_names, service_host_names
from airflow_llmtune.controlplane.kubelet.pod_view import PodView
from airflow_llmtune.controlplane.pods import is_ready

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

Object = Mapping[str, Any]

log = logging.getLogger(__name__)


class HostNames:
    """Those of Services, of pods below their Services, and ``fixed`` ones, which count everywhere.

    The name of a Service leads to the first ready one of its pods that have an address of their own, where there is
    one: to the port that the pod listens on, as nothing here maps the Service's. All other names lead to the loopback
    address. No pod is behind a Suggestion's Service: ``suggestions`` is the address that answers for all of them.
    """

    def __init__(self, registry: Registry, fixed: Mapping[str, str], suggestions: str) -> None:
        self._registry = registry
        self._fixed = fixed
        self._suggestions = suggestions
        self._pods: dict[str, tuple[Object, PodView]] = {}
        """By uid: those that have not ended."""
        self._serving: dict[str, Object] = {}
        """Those that are ready and have an address of their own."""

    def add(self, pod: Object, view: PodView) -> None:
        metadata = pod["metadata"]
        self._pods[metadata["uid"]] = (pod, view)
        if pod_host_names(pod):
            self._show([metadata["namespace"]])

    def note(self, pod: Object) -> None:
        """Its status may have changed."""
        uid, address = pod["metadata"]["uid"], address_of(pod)
        if address == LOOPBACK or (uid in self._serving) == is_ready(pod):
            return
        if is_ready(pod):
            self._serving[uid] = pod
        else:
            del self._serving[uid]
        self._show([pod["metadata"]["namespace"]])

    def remove(self, uid: str) -> None:
        self._pods.pop(uid, None)
        gone = self._serving.pop(uid, None)
        if gone is not None:
            self._show([gone["metadata"]["namespace"]])

    def of(self, namespace: str) -> dict[str, str]:
        services = {
            name: self._address(one.view)
            for one in self._registry.entries(SERVICE, namespace)
            for name in service_host_names(one.key[1], namespace)
        }
        siblings = (pod for pod, _ in self._pods.values() if pod["metadata"]["namespace"] == namespace)
        pods = {name: address_of(pod) for pod in siblings for name in pod_host_names(pod)}
        return {**pods, **services, **self._fixed}

    def _address(self, service: Object) -> str:
        owners = service["metadata"].get("ownerReferences", ())
        if any(one["kind"] == SUGGESTION.name for one in owners):
            return self._suggestions
        return next((address_of(pod) for pod in self._serving.values() if selects(service, pod)), LOOPBACK)

    async def follow_services(self) -> None:
        """Until cancelled. Pods that run already learn the names of new Services."""
        while True:
            try:
                watch = self._registry.watch(SERVICE, resource_version=self._registry.resource_version)
                self._show(pod["metadata"]["namespace"] for pod, _ in self._pods.values())
                async for event in watch:
                    self._show(one.object["metadata"]["namespace"] for one in [event, *watch.take_ready()])
            except ApiError as error:
                await asyncio.sleep(seconds_to_look_again(error))

    def _show(self, namespaces: Iterable[str]) -> None:
        names = {namespace: self.of(namespace) for namespace in set(namespaces)}
        for pod, view in self._pods.values():
            metadata = pod["metadata"]
            if metadata["namespace"] in names:
                try:
                    view.update_hosts(names[metadata["namespace"]])
                except OSError as error:
                    log.warning("hosts of pod %s/%s: %s", metadata["namespace"], metadata["name"], error)


def selects(service: Object, pod: Object) -> bool:
    """A Service without a selector has no pods here."""
    selector: Object = (service.get("spec") or {}).get("selector") or {}
    in_reach = service["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return bool(selector) and in_reach and selector.items() <= (pod["metadata"].get("labels") or {}).items()
