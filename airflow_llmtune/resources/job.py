"""A batch/v1 Job that runs one pod once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.resources.meta import Outcome, ResourceKind, condition, path

__all__ = [
    "CONTAINER",
    "FAILURE_CONDITION",
    "KIND",
    "SUCCESS_CONDITION",
    "pod_selector",
    "read_conditions",
    "read_outcome",
    "to_manifest",
]

KIND = ResourceKind("batch", "v1", "Job", "jobs")

CONTAINER = "training-container"
SUCCESS_CONDITION = 'status.conditions.#(type=="Complete")#|#(status=="True")#'
FAILURE_CONDITION = 'status.conditions.#(type=="Failed")#|#(status=="True")#'


def to_manifest(
    pod_template: Mapping[str, Any],
    *,
    active_deadline_seconds: int,
    ttl_seconds_after_finished: int | None,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Without ``metadata`` it is a trial's spec: Katib sets the name."""
    spec: dict[str, Any] = {"backoffLimit": 0, "activeDeadlineSeconds": active_deadline_seconds}
    if ttl_seconds_after_finished is not None:
        spec["ttlSecondsAfterFinished"] = ttl_seconds_after_finished
    manifest: dict[str, Any] = {"apiVersion": KIND.api_version, "kind": KIND.kind}
    if metadata is not None:
        manifest["metadata"] = dict(metadata)
    return {**manifest, "spec": {**spec, "template": dict(pod_template)}}


def pod_selector(name: str) -> str:
    return f"batch.kubernetes.io/job-name={name}"


def read_outcome(obj: Mapping[str, Any]) -> Outcome:
    return read_conditions(obj) or Outcome("Running" if path(obj, "status", "active") else "Pending")


def read_conditions(obj: Mapping[str, Any]) -> Outcome | None:
    """``FailureTarget`` and ``SuccessCriteriaMet`` come earlier, while pods still end."""
    if (failed := condition(obj, "Failed")) is not None:
        return Outcome.of("Failed", failed)
    if (complete := condition(obj, "Complete")) is not None:
        return Outcome.of("Succeeded", complete)
    if (suspended := condition(obj, "Suspended")) is not None:
        return Outcome.of("Pending", suspended)
    return None
