"""A pod made from a job's template, and how the job controllers read a pod. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_llmtune.controlplane.apiserver.kinds import Kind
from airflow_llmtune.controlplane.controllers.runtime import owner_reference


def pod_from_template(
    kind: Kind, owner: dict[str, Any], template: Mapping[str, Any], labels: Mapping[str, str]
) -> dict[str, Any]:
    """A pod without a name, owned by the job, with the template's labels and annotations and these labels."""
    metadata = template.get("metadata") or {}
    pod: dict[str, Any] = {
        "metadata": {
            "namespace": owner["metadata"]["namespace"],
            "labels": {**(metadata.get("labels") or {}), **labels},
            "ownerReferences": [owner_reference(kind, owner)],
        },
        "spec": copy.deepcopy(template["spec"]),
    }
    if metadata.get("annotations"):
        pod["metadata"]["annotations"] = dict(metadata["annotations"])
    return pod


def add_environment(spec: Mapping[str, Any], variables: Sequence[Mapping[str, Any]]) -> None:
    """To every container, also the initial ones; a variable that a container has already is left to it."""
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        own = container.get("env") or []
        taken = {variable["name"] for variable in own}
        container["env"] = [*own, *(variable for variable in variables if variable["name"] not in taken)]


def phase(pod: Mapping[str, Any]) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def is_finished(pod: Mapping[str, Any]) -> bool:
    return phase(pod) in {"Succeeded", "Failed"}


def is_terminating(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def is_active(pod: Mapping[str, Any]) -> bool:
    return not is_finished(pod) and not is_terminating(pod)


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
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
