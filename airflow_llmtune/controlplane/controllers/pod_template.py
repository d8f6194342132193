"""A pod made from a workload's template. Pure."""

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
