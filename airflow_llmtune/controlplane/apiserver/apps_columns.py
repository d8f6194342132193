"""What ``kubectl get`` prints of Deployments, ReplicaSets and ControllerRevisions."""

from __future__ import annotations

from datetime import datetime

from airflow_llmtune.controlplane.apiserver.columns import AGE, NAME, Column, Object, Reader, path
from airflow_llmtune.controlplane.apiserver.label_selectors import as_text


def _ready(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    return f"{obj.get('status', {}).get('readyReplicas', 0)}/{obj.get('spec', {}).get('replicas', 1)}"


def _of_containers(field: str) -> Reader:
    def read(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
        containers = obj.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or ()
        return ",".join(str(container.get(field, "")) for container in containers)

    return read


def _selector(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    return as_text(obj.get("spec", {}).get("selector") or {}) or "<none>"


def _controller(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    """As ``kubectl`` writes it: ``deployment.apps/name``."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            group = owner["apiVersion"].rpartition("/")[0]
            return f"{owner['kind'].lower()}{'.' if group else ''}{group}/{owner['name']}"
    return "<none>"


_WIDE = (
    Column("Containers", _of_containers("name"), priority=1),
    Column("Images", _of_containers("image"), priority=1),
    Column("Selector", _selector, priority=1),
)

DEPLOYMENT_COLUMNS = (
    NAME,
    Column("Ready", _ready),
    Column("Up-to-date", path("status", "updatedReplicas", default=0), "integer"),
    Column("Available", path("status", "availableReplicas", default=0), "integer"),
    AGE,
    *_WIDE,
)
REPLICA_SET_COLUMNS = (
    NAME,
    Column("Desired", path("spec", "replicas", default=1), "integer"),
    Column("Current", path("status", "replicas", default=0), "integer"),
    Column("Ready", path("status", "readyReplicas", default=0), "integer"),
    AGE,
    *_WIDE,
)
CONTROLLER_REVISION_COLUMNS = (
    NAME,
    Column("Controller", _controller),
    Column("Revision", path("revision", default=0), "integer"),
    AGE,
)
