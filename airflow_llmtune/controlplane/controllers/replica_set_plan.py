"""What an apps/v1 ReplicaSet does next: the pods to make and to delete, and its status. Pure."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.clock import timestamp
from airflow_llmtune.controlplane.controllers.meta_conditions import condition, find
from airflow_llmtune.controlplane.controllers.pod_availability import available, first_to_go, next_to_become_available
from airflow_llmtune.controlplane.pods import is_active, is_finished, is_ready, is_terminating

Object = dict[str, Any]

_MOST_AT_ONCE = 20
"""So many pods are made or deleted before others get their turn; each change brings this ReplicaSet back."""
_MOST_FINISHED = 10
_FAILURE = "ReplicaFailure"


@dataclass(frozen=True)
class ReplicaSetPlan:
    create: int = 0
    delete: list[str] = field(default_factory=list)
    look_again_seconds: float | None = None


def plan(replica_set: Object, pods: Sequence[Object], now: datetime) -> ReplicaSetPlan:
    active = [pod for pod in pods if is_active(pod)]
    missing = replica_set["spec"]["replicas"] - len(active)
    look_again = next_to_become_available(active, _min_ready_seconds(replica_set), now)
    if "deletionTimestamp" in replica_set["metadata"]:
        return ReplicaSetPlan()
    going = _surplus(pods)
    if missing < 0:
        going += first_to_go(active, min(-missing, _MOST_AT_ONCE), now)
    names = [pod["metadata"]["name"] for pod in going]
    return ReplicaSetPlan(min(max(0, missing), _MOST_AT_ONCE), names, look_again_seconds=look_again)


def _surplus(pods: Sequence[Object]) -> list[Object]:
    """The oldest of those that have failed, such as evicted ones: each keeps its files.

    Differs from Kubernetes, where such pods are collected when there are 12,500 of them in the cluster.
    """
    finished = [pod for pod in pods if is_finished(pod) and not is_terminating(pod)]
    return sorted(finished, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))[:-_MOST_FINISHED]


def status(replica_set: Object, pods: Sequence[Object], now: datetime, failure: str | None) -> Object:
    """Of the pods as they are after this step; ``failure`` is why one of them could not be made.

    Differs from Kubernetes, which counts those before it: so a Deployment never sees fewer than there are.
    """
    active = [pod for pod in pods if is_active(pod)]
    labels = replica_set["spec"]["template"]["metadata"]["labels"].items()
    counters = {
        "fullyLabeledReplicas": sum(labels <= pod["metadata"].get("labels", {}).items() for pod in active),
        "readyReplicas": sum(is_ready(pod) for pod in active),
        "availableReplicas": available(active, _min_ready_seconds(replica_set), now),
    }
    made: Object = {
        "replicas": len(active),
        **{name: value for name, value in counters.items() if value},
        "observedGeneration": replica_set["metadata"]["generation"],
    }
    conditions = _conditions(replica_set.get("status", {}), failure, now)
    return made | ({"conditions": conditions} if conditions else {})


def _conditions(old: Object, failure: str | None, now: datetime) -> list[Object]:
    others = [one for one in copy.deepcopy(old.get("conditions", [])) if one["type"] != _FAILURE]
    if failure is None:
        return others
    before = find(old, _FAILURE)
    new = condition(_FAILURE, "FailedCreate", failure)
    return [*others, before or {**new, "lastTransitionTime": timestamp(now)}]


def _min_ready_seconds(replica_set: Object) -> int:
    return int(replica_set["spec"].get("minReadySeconds", 0))
