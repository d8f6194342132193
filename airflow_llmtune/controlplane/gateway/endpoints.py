"""Which pods stand behind a Service, and at which address. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_llmtune.controlplane.pods import is_ready

Object = Mapping[str, Any]


@dataclass(frozen=True)
class ReadyPod:
    """What is known of a pod that may be sent requests."""

    name: str
    uid: str
    labels: Mapping[str, str]
    address: str
    ports: Mapping[str, int]
    """By name."""


@dataclass(frozen=True)
class Endpoint:
    pod: str
    uid: str
    address: str
    port: int


def ready_pod(pod: Object) -> ReadyPod | None:
    """None for one that should get no requests (any more)."""
    try:
        return _ready_pod(pod)
    except (AttributeError, KeyError, TypeError):
        return None  # Clients may write whatever they like into a status.


def _ready_pod(pod: Object) -> ReadyPod | None:
    metadata, status = pod["metadata"], pod.get("status") or {}
    address = status.get("podIP")
    if "deletionTimestamp" in metadata or not isinstance(address, str) or not is_ready(pod):
        return None
    containers = [*(pod["spec"].get("containers") or ()), *(pod["spec"].get("initContainers") or ())]
    ports = [port for container in containers for port in container.get("ports") or ()]
    return ReadyPod(
        metadata["name"],
        metadata["uid"],
        metadata.get("labels") or {},
        address,
        {port["name"]: port["containerPort"] for port in ports if "name" in port},
    )


def endpoints(service: Object, port: int, pods: Iterable[ReadyPod]) -> list[Endpoint]:
    """Those of the Service's own namespace. Nothing is behind a Service without a selector."""
    selector = service["spec"].get("selector") or {}
    target = target_port(service, port)
    if not selector or target is None:
        return []
    found = []
    for pod in pods:
        number = pod.ports.get(target) if isinstance(target, str) else target
        if number is not None and selector.items() <= pod.labels.items():
            found.append(Endpoint(pod.name, pod.uid, pod.address, number))
    return found


def target_port(service: Object, port: int) -> int | str | None:
    """A number or the name of a container's port; None when the Service has no such port."""
    for one in service["spec"].get("ports") or ():
        if one.get("port") == port:
            target: int | str = one.get("targetPort") or port
            return int(target) if isinstance(target, str) and target.isdecimal() else target
    return None
