"""A Deployment as we read it: whether all of its pods are of its newest version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.resources.meta import ResourceKind, path
from airflow_llmtune.resources.revision import read_revision

__all__ = ["KIND", "has_given_up", "is_rolled_out", "knative_revision", "progress", "revision"]

KIND = ResourceKind("apps", "v1", "Deployment", "deployments")


def revision(deployment: Mapping[str, Any]) -> str | None:
    """The version of the model that its pods are to serve."""
    return read_revision(path(deployment, "spec", "template", "metadata"))


def knative_revision(deployment: Mapping[str, Any]) -> str | None:
    """In Knative mode there is a Deployment for each revision."""
    name: str | None = path(deployment, "metadata", "labels", "serving.knative.dev/revision")
    return name


def is_rolled_out(deployment: Mapping[str, Any]) -> bool:
    """What ``kubectl rollout status`` waits for."""
    status = deployment.get("status") or {}
    wanted, updated = _wanted(deployment), _count(status, "updatedReplicas")
    if _count(status, "observedGeneration") < deployment["metadata"].get("generation", 0):
        return False
    return updated >= wanted and _count(status, "replicas") <= updated <= _count(status, "availableReplicas")


def progress(deployment: Mapping[str, Any]) -> str:
    status = deployment.get("status") or {}
    updated, available = _count(status, "updatedReplicas"), _count(status, "availableReplicas")
    old = max(0, _count(status, "replicas") - updated)
    text = f"{updated} of {_wanted(deployment)} pods updated, {available} available"
    return f"{text}, {old} old" if old else text


def has_given_up(deployment: Mapping[str, Any]) -> str | None:
    """Why it gets no further, in its own words."""
    for entry in path(deployment, "status", "conditions") or []:
        state = (entry.get("type"), entry.get("status"))
        late = state == ("Progressing", "False") and entry.get("reason") == "ProgressDeadlineExceeded"
        if late or state == ("ReplicaFailure", "True"):
            return f"{entry.get('reason')}: {entry.get('message')}"
    return None


def _wanted(deployment: Mapping[str, Any]) -> int:
    replicas = path(deployment, "spec", "replicas")
    return 1 if replicas is None else int(replicas)


def _count(status: Mapping[str, Any], name: str) -> int:
    return int(status.get(name) or 0)
