"""The node that this machine is: what it has, and the object that says so."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

from airflow_llmtune.controlplane.apiserver.discovery import KUBERNETES_VERSION
from airflow_llmtune.controlplane.kubelet.environment import LOOPBACK
from airflow_llmtune.controlplane.quantities import QuantityError, parse

Object = dict[str, Any]

NODE_NAME = "llmtune-node"

_MOST_PODS = 110
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_HEALTHY = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


class ResourceError(ValueError):
    """A resource of the node is given as something that is no quantity."""


def all_resources(given: Mapping[str, str]) -> dict[str, str]:
    """What the machine has, with what is given in its place; GPUs count only when they are given."""
    for name, quantity in given.items():
        try:
            is_valid = parse(quantity) >= 0
        except QuantityError:
            is_valid = False
        if not is_valid:
            raise ResourceError(f"node resource {name}: {quantity!r} is no quantity such as 4, 500m or 8Gi")
    kilobytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
    found = {"cpu": str(_cpu_count()), "memory": f"{kilobytes}Ki", "pods": str(_MOST_PODS)}
    return {**found, **given}


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):  # Not on macOS.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def node_labels() -> dict[str, str]:
    labels = {
        "hostname": NODE_NAME,
        "os": platform.system().lower(),
        "arch": _ARCHITECTURES.get(platform.machine(), platform.machine()),
    }
    return {f"kubernetes.io/{name}": value for name, value in labels.items()}


def node_status(resources: Mapping[str, str], old: Mapping[str, Any], now: str) -> Object:
    since = {one["type"]: one["lastTransitionTime"] for one in old.get("conditions", ())}
    conditions = [
        {
            "type": type_,
            "status": status,
            "lastHeartbeatTime": now,
            "lastTransitionTime": since.get(type_, now),
            "reason": reason,
            "message": message,
        }
        for type_, status, reason, message in _HEALTHY
    ]
    labels = node_labels()
    return {
        "capacity": dict(resources),
        "allocatable": dict(resources),
        "conditions": conditions,
        "addresses": [{"type": "InternalIP", "address": LOOPBACK}, {"type": "Hostname", "address": NODE_NAME}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": {
            "architecture": labels["kubernetes.io/arch"],
            "operatingSystem": labels["kubernetes.io/os"],
            "osImage": platform.system(),
            "kernelVersion": platform.release(),
            "containerRuntimeVersion": "process://1",
            "kubeletVersion": KUBERNETES_VERSION,
            "kubeProxyVersion": "",
            "bootID": "",
            "machineID": "",
            "systemUUID": "",
        },
    }
