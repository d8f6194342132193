"""The ReplicaSets of a Deployment as its revisions: which is the new one, how they are numbered and named. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_llmtune.controlplane.apiserver.kinds import DEPLOYMENT
from airflow_llmtune.controlplane.controllers.deployment_sizes import ReplicaSetSize, max_surge
from airflow_llmtune.controlplane.controllers.runtime import owner_reference

Object = dict[str, Any]

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"

_OF_THE_DEPLOYMENT_ONLY = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        "deprecated.deployment.rollback.to",
        *(REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS),
    }
)
_LONGEST_HISTORY = 2000
_HASH_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def annotations_of(obj: Mapping[str, Any]) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def revision(obj: Mapping[str, Any]) -> int:
    return number(obj, REVISION)


def number(obj: Mapping[str, Any], annotation: str) -> int:
    """0 for one that is not there, or that somebody has made something else of."""
    text = annotations_of(obj).get(annotation, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def by_age(sets: Iterable[Object]) -> list[Object]:
    """The oldest first."""
    return sorted(sets, key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))


def find_new(deployment: Object, sets: Sequence[Object]) -> Object | None:
    """The one that has the Deployment's template; should there be more, the oldest."""
    wanted = _without_hash(deployment["spec"]["template"])
    return next((one for one in by_age(sets) if _without_hash(one["spec"]["template"]) == wanted), None)


def _without_hash(template: Mapping[str, Any]) -> Object:
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = {key: one for key, one in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    return {**template, "metadata": metadata}


def template_hash(template: Mapping[str, Any], collisions: int) -> str:
    """Differs from Kubernetes: another text is hashed (Go's own of its structs), so the letters are others."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":")) + (str(collisions) if collisions else "")
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_HASH_ALPHABET[ord(digit) % len(_HASH_ALPHABET)] for digit in str(value))


def new_replica_set(deployment: Object) -> Object:
    """Without pods yet, and without a revision."""
    spec, metadata = deployment["spec"], deployment["metadata"]
    template = copy.deepcopy(spec["template"])
    letters = template_hash(template, deployment.get("status", {}).get("collisionCount", 0))
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels[HASH_LABEL] = letters
    selector = copy.deepcopy(spec["selector"])
    selector["matchLabels"] = {**selector.get("matchLabels", {}), HASH_LABEL: letters}
    wanted = {"replicas": 0, "selector": selector, "template": template}
    if spec.get("minReadySeconds"):
        wanted["minReadySeconds"] = spec["minReadySeconds"]
    return {
        "metadata": {
            "name": f"{metadata['name']}-{letters}",
            "namespace": metadata["namespace"],
            "labels": dict(labels),
            "annotations": {},
            "ownerReferences": [owner_reference(DEPLOYMENT, deployment)],
        },
        "spec": wanted,
    }


def annotate(deployment: Object, replica_set: Object, latest: int) -> None:
    """In place: the Deployment's annotations, and the number ``latest`` if it has an earlier one."""
    metadata = replica_set["metadata"]
    copied = {key: one for key, one in annotations_of(deployment).items() if key not in _OF_THE_DEPLOYMENT_ONLY}
    own = metadata["annotations"] = {**annotations_of(replica_set), **copied}
    before = revision(replica_set)
    if before >= latest:
        return
    own[REVISION] = str(latest)
    if before:
        own[REVISION_HISTORY] = _extended(own.get(REVISION_HISTORY, ""), str(before))


def _extended(history: str, before: str) -> str:
    """The oldest numbers go when the list becomes too long."""
    numbers = [one for one in history.split(",") if one] + [before]
    while len(",".join(numbers)) > _LONGEST_HISTORY:
        del numbers[0]
    return ",".join(numbers)


def annotate_size(deployment: Object, replica_set: Object) -> None:
    """What proportional scaling goes by: the size of the whole at the time when this part got its own."""
    spec = deployment["spec"]
    own = replica_set["metadata"].setdefault("annotations", {})
    own[DESIRED_REPLICAS] = str(spec["replicas"])
    own[MAX_REPLICAS] = str(spec["replicas"] + max_surge(spec))


def size(replica_set: Mapping[str, Any]) -> ReplicaSetSize:
    status = replica_set.get("status", {})
    return ReplicaSetSize(
        replica_set["metadata"]["name"],
        replica_set["spec"]["replicas"],
        active=status.get("replicas", 0),
        ready_long_enough=status.get("availableReplicas", 0),
        largest_total=number(replica_set, MAX_REPLICAS),
    )
