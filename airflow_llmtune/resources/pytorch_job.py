"""A PyTorchJob of the Training Operator v1: one master, and workers for more nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from airflow_llmtune.resources.header import check_header
from airflow_llmtune.resources.meta import Outcome, ResourceKind, condition, path
from airflow_llmtune.resources.problems import Problems

__all__ = [
    "CONTAINER",
    "FAILURE_CONDITION",
    "KIND",
    "PRIMARY_POD_LABELS",
    "SUCCESS_CONDITION",
    "check_manifest",
    "pod_selector",
    "read_outcome",
    "to_manifest",
]

KIND = ResourceKind("kubeflow.org", "v1", "PyTorchJob", "pytorchjobs")

CONTAINER = "pytorch"
PRIMARY_POD_LABELS = {"training.kubeflow.org/job-role": "master"}
SUCCESS_CONDITION = 'status.conditions.#(type=="Succeeded")#|#(status=="True")#'
FAILURE_CONDITION = 'status.conditions.#(type=="Failed")#|#(status=="True")#'

# Pods and services are called `<name>-worker-<index>` and have to fit a DNS label of 63.
_MAX_NAME_LENGTH = 63 - len("-worker-00")
_ROLES = ("Master", "Worker")
_RESTART_POLICIES = ("Always", "OnFailure", "Never", "ExitCode")


def to_manifest(
    pod_template: Mapping[str, Any],
    *,
    num_nodes: int,
    num_procs_per_node: int,
    active_deadline_seconds: int,
    ttl_seconds_after_finished: int | None,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Without ``metadata`` it is a trial's spec: Katib sets the name."""
    # When one node fails, the others would wait for it until NCCL gives up, each holding its GPU.
    policy: dict[str, Any] = {
        "cleanPodPolicy": "Running" if num_nodes > 1 else "None",
        "backoffLimit": 0,
        "activeDeadlineSeconds": active_deadline_seconds,
    }
    if ttl_seconds_after_finished is not None:
        policy["ttlSecondsAfterFinished"] = ttl_seconds_after_finished
    # The operator's default, OnFailure without a limit, restarts a broken container for ever.
    counts = {"Master": 1, "Worker": num_nodes - 1}
    replicas = {
        role: {"replicas": count, "restartPolicy": "Never", "template": deepcopy(dict(pod_template))}
        for role, count in counts.items()
        if count
    }
    manifest: dict[str, Any] = {"apiVersion": KIND.api_version, "kind": KIND.kind}
    if metadata is not None:
        manifest["metadata"] = dict(metadata)
    spec = {"nprocPerNode": str(num_procs_per_node), "runPolicy": policy, "pytorchReplicaSpecs": replicas}
    return {**manifest, "spec": spec}


def pod_selector(name: str) -> str:
    return f"training.kubeflow.org/job-name={name}"


def read_outcome(obj: Mapping[str, Any]) -> Outcome:
    if (failed := condition(obj, "Failed")) is not None:
        return Outcome.of("Failed", failed)
    if (succeeded := condition(obj, "Succeeded")) is not None:
        return Outcome.of("Succeeded", succeeded)
    for type_ in ("Running", "Restarting"):
        if (held := condition(obj, type_)) is not None:
            return Outcome.of("Running", held)
    return Outcome.of("Pending", condition(obj, "Suspended") or condition(obj, "Created"))


# --- preflight of a manifest that somebody else wrote -------------------------------------------------------


def check_manifest(manifest: Any, problems: Problems) -> None:
    """Note what the Training Operator's webhook would refuse; ``metadata.name`` may be missing."""
    replicas = path(manifest, "spec", "pytorchReplicaSpecs")
    if not isinstance(replicas, Mapping) or not replicas:
        rule = "is missing or empty"
        problems.add("spec.pytorchReplicaSpecs", replicas, rule, f"give a whole {KIND.kind} manifest with a Master")
        return
    check_header(manifest, KIND, _MAX_NAME_LENGTH, problems)
    for role, spec in replicas.items():
        where = f"spec.pytorchReplicaSpecs.{role}"
        if problems.choice(where, role, _ROLES) is not None:
            _check_replica(where, role, spec, problems)
    processes = path(manifest, "spec", "nprocPerNode")
    if processes is not None and not re.fullmatch(r"auto|cpu|gpu|[1-9]\d*", str(processes)):
        problems.add("spec.nprocPerNode", processes, "is not a number of processes", "give such as '2', or 'auto'")
    elif processes is not None and not isinstance(processes, str):
        problems.add("spec.nprocPerNode", processes, "is not text", f"put it in quotes: '{processes}'")
    if path(manifest, "spec", "elasticPolicy") is not None and "Worker" not in replicas:
        problems.add("spec.elasticPolicy", "…", "needs a Worker", "add one, or leave elasticPolicy out")


def _check_replica(where: str, role: str, spec: Any, problems: Problems) -> None:
    replicas = path(spec, "replicas")
    if role == "Master" and replicas != 1:
        problems.add(f"{where}.replicas", replicas, "is not 1, which has to be written", "write 1")
    elif role == "Worker" and replicas is not None:
        problems.integer(f"{where}.replicas", replicas, at_least=1)
    if (policy := path(spec, "restartPolicy")) is not None:
        problems.choice(f"{where}.restartPolicy", policy, _RESTART_POLICIES)
    containers = path(spec, "template", "spec", "containers")
    containers = containers if isinstance(containers, list) else []
    trainers = [container for container in containers if path(container, "name") == CONTAINER]
    if not trainers:
        rule = f"has no container called {CONTAINER}"
        problems.add(f"{where}.template.spec.containers", containers, rule, "call the one that trains so")
    for container in trainers:
        if not container.get("image"):
            problems.add(f"{where}.template.spec.containers", CONTAINER, "has no image", "give it one")
