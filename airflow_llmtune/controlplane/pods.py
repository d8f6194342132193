"""How the status of a pod is read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def phase(pod: Mapping[str, Any]) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def is_finished(pod: Mapping[str, Any]) -> bool:
    return phase(pod) in {"Succeeded", "Failed"}


def is_terminating(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def is_active(pod: Mapping[str, Any]) -> bool:
    return not is_finished(pod) and not is_terminating(pod)


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def restarts(pod: Mapping[str, Any]) -> int:
    """How often the pod's containers were started again."""
    status = pod.get("status", {})
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return sum(container.get("restartCount", 0) for container in containers)


def finished_at(pod: Mapping[str, Any]) -> str:
    """When its last container ended; the time of creation for a pod that never ran."""
    ends = [
        container["state"]["terminated"]["finishedAt"]
        for container in pod.get("status", {}).get("containerStatuses", ())
        if "terminated" in container.get("state", {})
    ]
    return max(ends, default=str(pod["metadata"]["creationTimestamp"]))
