"""The environment, names and labels that a PyTorchJob's pods get from the training operator. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONTAINER_NAME = "pytorch"
PORT_NAME = "pytorchjob-port"

_LABEL_PREFIX = "training.kubeflow.org/"
_OPERATOR_NAME = "pytorchjob-controller"

JOB_NAME = f"{_LABEL_PREFIX}job-name"


@dataclass(frozen=True)
class Replica:
    """One pod of the job: its type (Master or Worker), its index, and its rank among all pods."""

    type: str
    index: int
    rank: int


def replica_name(job_name: str, replica_type: str, index: int) -> str:
    return f"{job_name}-{replica_type.lower()}-{index}"


def replicas(job: Mapping[str, Any]) -> list[Replica]:
    """Master first: node ranks follow this order."""
    specs = job["spec"]["pytorchReplicaSpecs"]
    found: list[Replica] = []
    for type_ in ("Master", "Worker"):
        count = specs[type_].get("replicas", 1) if type_ in specs else 0
        found += [Replica(type_, index, len(found) + index) for index in range(count)]
    return found


def job_labels(job_name: str) -> dict[str, str]:
    return {JOB_NAME: job_name, f"{_LABEL_PREFIX}operator-name": _OPERATOR_NAME}


def replica_labels(job: Mapping[str, Any], replica: Replica) -> dict[str, str]:
    labels = {
        **job_labels(job["metadata"]["name"]),
        f"{_LABEL_PREFIX}replica-type": replica.type.lower(),
        f"{_LABEL_PREFIX}replica-index": str(replica.index),
    }
    # The first of all pods acts as the master, also in a job of workers only.
    if replica.rank == 0:
        labels[f"{_LABEL_PREFIX}job-role"] = "master"
    return labels


def type_selector(job_name: str, replica_type: str) -> str:
    labels = {**job_labels(job_name), f"{_LABEL_PREFIX}replica-type": replica_type.lower()}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def with_defaults(job: dict[str, Any]) -> dict[str, Any]:
    """A copy with what the operator assumes where nothing is said; it never writes that back.

    It also adds its port to the ``pytorch`` container, which is left out here: the controller picks a free one.
    """
    job = copy.deepcopy(job)
    spec = job["spec"]
    policy = spec.setdefault("runPolicy", {})
    policy.setdefault("cleanPodPolicy", "None")
    for replica in spec["pytorchReplicaSpecs"].values():
        replica.setdefault("replicas", 1)
        replica.setdefault("restartPolicy", "OnFailure")
    elastic = spec.get("elasticPolicy")
    if elastic is not None:
        most = elastic.get("maxReplicas", elastic.get("minReplicas", spec["pytorchReplicaSpecs"]["Worker"]["replicas"]))
        elastic.setdefault("minReplicas", most)
        elastic.setdefault("maxReplicas", most)
    if elastic is None or "nProcPerNode" not in elastic:
        spec.setdefault("nprocPerNode", "auto")
    return job


def declared_port(job: Mapping[str, Any]) -> int | None:
    """The port that a ``pytorch`` container names ``pytorchjob-port``."""
    for spec in job["spec"]["pytorchReplicaSpecs"].values():
        for container in spec["template"]["spec"]["containers"]:
            for port in container.get("ports") or ():
                if container["name"] == CONTAINER_NAME and port.get("name") == PORT_NAME:
                    return int(port["containerPort"])
    return None


def environment(job: Mapping[str, Any], replica: Replica, port: int) -> list[dict[str, str]]:
    """Variables added to every container, in the order of the operator; ``job`` has its defaults.

    One that a container has already is there twice then, and the kubelet takes the later: the operator's.
    """
    spec, name = job["spec"], job["metadata"]["name"]
    nodes, processes = len(replicas(job)), spec.get("nprocPerNode")
    values = {"PYTHONUNBUFFERED": "1"}
    if "Master" in spec["pytorchReplicaSpecs"]:
        per_node = int(processes) if processes is not None and processes.isdigit() else 1
        address = replica_name(name, "Master", 0)
        values |= {
            "MASTER_PORT": str(port),
            "PET_MASTER_PORT": str(port),
            "MASTER_ADDR": address,
            "PET_MASTER_ADDR": address,
            "WORLD_SIZE": str(nodes * per_node),
            "RANK": str(replica.rank),
            "PET_NODE_RANK": str(replica.rank),
        }
    if processes is not None:
        values["PET_NPROC_PER_NODE"] = processes
    elastic = spec.get("elasticPolicy")
    values |= {"PET_NNODES": str(nodes)} if elastic is None else _elastic(name, elastic, port)
    return [{"name": key, "value": value} for key, value in values.items()]


def _elastic(name: str, policy: Mapping[str, Any], port: int) -> dict[str, str]:
    host = policy.get("rdzvHost") or replica_name(name, "Worker", 0)
    values = {
        "PET_RDZV_ENDPOINT": f"{host}:{policy.get('rdzvPort') or port}",
        "PET_RDZV_BACKEND": str(policy.get("rdzvBackend") or "c10d"),
        "PET_NNODES": f"{policy['minReplicas']}:{policy['maxReplicas']}",
    }
    for field, variable in (("maxRestarts", "PET_MAX_RESTARTS"), ("nProcPerNode", "PET_NPROC_PER_NODE")):
        if policy.get(field) is not None:
            values[variable] = str(policy[field])
    if policy.get("rdzvId"):
        values["PET_RDZV_ID"] = policy["rdzvId"]
    if policy.get("rdzvConf"):
        values["PET_RDZV_CONF"] = ",".join(f"{one.get('key', '')}={one.get('value', '')}" for one in policy["rdzvConf"])
    if policy.get("standalone"):
        values["PET_STANDALONE"] = ""
    return values
