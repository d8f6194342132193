"""A TrainJob of Kubeflow Trainer v2: a runtime of the cluster, and what this training changes in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_llmtune.resources import job
from airflow_llmtune.resources.meta import Outcome, ResourceKind, finite, path
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.runtime_patch import CONTAINER, FIRST_WITH_DEADLINE, Version, patches

__all__ = [
    "CONTAINER",
    "DEFAULT_RUNTIME",
    "FAILURE_CONDITION",
    "KIND",
    "PRIMARY_POD_LABELS",
    "RUNTIME_KINDS",
    "SUCCESS_CONDITION",
    "check_reserved",
    "pod_selector",
    "read_metrics",
    "read_outcome",
    "read_progress",
    "runtime_ref",
    "to_manifest",
]

# Strict: of a patch in the shape of another Trainer version the API server would drop all, and the training would run
# without its volumes, on any node.
KIND = ResourceKind("trainer.kubeflow.org", "v1alpha1", "TrainJob", "trainjobs", strict=True)

PRIMARY_POD_LABELS = {
    "jobset.sigs.k8s.io/replicatedjob-name": "node",
    "batch.kubernetes.io/job-completion-index": "0",
}
SUCCESS_CONDITION = job.SUCCESS_CONDITION
FAILURE_CONDITION = job.FAILURE_CONDITION
RUNTIME_KINDS = ("ClusterTrainingRuntime", "TrainingRuntime")
DEFAULT_RUNTIME = "torch-distributed"

# torchrun's, which the trainer's controller sets in every node.
_RESERVED = ("PET_MASTER_ADDR", "PET_MASTER_PORT", "PET_NNODES", "PET_NODE_RANK", "PET_NPROC_PER_NODE")
# What `spec.trainer` takes from the container under the same name.
_CONTAINER_FIELDS = ("image", "command", "args", "env")


def runtime_ref(name: str, kind: str = RUNTIME_KINDS[0]) -> dict[str, str]:
    return {"apiGroup": KIND.group, "kind": kind, "name": name}


def to_manifest(
    pod_template: Mapping[str, Any],
    *,
    runtime: Mapping[str, str],
    version: Version,
    num_nodes: int,
    num_procs_per_node: int,
    active_deadline_seconds: int,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``pod_template`` is split: its trainer goes to ``spec.trainer``, the rest that can be carried into a patch.

    Without ``metadata`` it is a trial's spec: Katib sets the name.
    """
    (container,) = pod_template["spec"]["containers"]
    trainer: dict[str, Any] = {name: container[name] for name in _CONTAINER_FIELDS if name in container}
    trainer["numNodes"] = num_nodes
    # Left out, it becomes the number of processors where no GPU is asked for.
    trainer["numProcPerNode"] = num_procs_per_node
    if "resources" in container:
        trainer["resourcesPerNode"] = container["resources"]
    spec: dict[str, Any] = {"runtimeRef": dict(runtime), "trainer": trainer, **patches(pod_template, version)}
    if version >= FIRST_WITH_DEADLINE:
        spec["activeDeadlineSeconds"] = active_deadline_seconds
    manifest: dict[str, Any] = {"apiVersion": KIND.api_version, "kind": KIND.kind}
    if metadata is not None:
        manifest["metadata"] = dict(metadata)
    return {**manifest, "spec": spec}


def check_reserved(where: str, names: Iterable[str], problems: Problems) -> None:
    """Note the variables of ``spec.trainer.env`` that the trainer's webhook refuses."""
    for name in names:
        if name in _RESERVED:
            fix = "leave it out: it follows from the nodes and processes that you ask for"
            problems.add(f"{where}.{name}", name, "is set by Kubeflow Trainer itself", fix)


def pod_selector(name: str) -> str:
    return f"jobset.sigs.k8s.io/jobset-name={name}"


# --- status -------------------------------------------------------------------------------------------------


def read_outcome(obj: Mapping[str, Any]) -> Outcome:
    """No condition tells that it runs, or that its pods cannot be made: the former shows in the counts only."""
    if (told := job.read_conditions(obj)) is not None:
        return told
    counts = path(obj, "status", "jobsStatus") or []
    return Outcome("Running" if any(one.get("active") or one.get("ready") for one in counts) else "Pending")


def read_progress(obj: Mapping[str, Any]) -> str:
    """The counts of each step and, where the trainer reports it, how far it is; changes at most once per per cent."""
    steps = [
        f"{step['name']} {step[state]} {state}"
        for step in path(obj, "status", "jobsStatus") or []
        for state in ("active", "succeeded", "failed")
        if step.get(state)
    ]
    percentage = path(obj, "status", "trainerStatus", "progressPercentage")
    return ", ".join(steps if percentage is None else [*steps, f"{percentage} % done"])


def read_metrics(obj: Mapping[str, Any]) -> dict[str, float]:
    """The latest metrics that the trainer reported to Kubeflow Trainer, finite ones only."""
    entries = path(obj, "status", "trainerStatus", "metrics") or []
    values = {entry["name"]: finite(entry.get("value")) for entry in entries}
    return {name: value for name, value in values.items() if value is not None}
