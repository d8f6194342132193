"""What served before a deployment, kept in the cluster until that deployment has ended.

It is a ControllerRevision, in which Kubernetes' own controllers keep such history: worker and triggerer can both read
it, it outlives either of them, and nobody can read it who could not read the object itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from airflow_llmtune.resources.meta import OWNER_ANNOTATION, ResourceKind, path
from airflow_llmtune.resources.revision import digest

__all__ = [
    "KIND",
    "belongs_to",
    "claimed",
    "difference",
    "new_record",
    "previous_manifest",
    "record_name",
    "whole_manifest",
    "wrote",
]

KIND = ResourceKind("apps", "v1", "ControllerRevision", "controllerrevisions")

# Stands for the spec that was applied; while the object has another one, it is not ours to roll back.
_APPLIED = "airflow-llmtune/applied"
_KUBECTL = "kubectl.kubernetes.io/last-applied-configuration"


def record_name(kind: ResourceKind, name: str) -> str:
    return f"{kind.kind.lower()}-{name}-rollback"


def new_record(
    kind: ResourceKind, preview: Mapping[str, Any], current: Mapping[str, Any] | None, owner: str
) -> dict[str, Any]:
    """``preview``: the object as it will be; ``current``: as it is, None before the first deployment."""
    namespace, name = preview["metadata"]["namespace"], preview["metadata"]["name"]
    metadata: dict[str, Any] = {"name": record_name(kind, name), "namespace": namespace, **claimed(preview, owner)}
    if current is not None:
        reference = {"apiVersion": kind.api_version, "kind": kind.kind, "name": name, "uid": current["metadata"]["uid"]}
        metadata["ownerReferences"] = [reference]
    data = {} if current is None else {"previous": whole_manifest(kind, current)}
    return {"apiVersion": KIND.api_version, "kind": KIND.kind, "metadata": metadata, "data": data, "revision": 1}


def claimed(preview: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The annotations by which a try takes the record over, and says what it applies."""
    return {"annotations": {OWNER_ANNOTATION: owner, _APPLIED: digest(preview["spec"])}}


def wrote(record: Mapping[str, Any] | None, current: Mapping[str, Any] | None) -> bool:
    """Whether the object is as the deployment of this record left it."""
    if record is None or current is None:
        return False
    applied: str | None = path(record, "metadata", "annotations", _APPLIED)
    return applied == digest(current["spec"])


def belongs_to(record: Mapping[str, Any], owner: str) -> bool:
    found: str | None = path(record, "metadata", "annotations", OWNER_ANNOTATION)
    return found == owner


def previous_manifest(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What to apply again; None when there was nothing before."""
    previous: dict[str, Any] | None = path(record, "data", "previous")
    return deepcopy(previous)


def difference(found: Any, wanted: Any) -> Any:
    """The merge patch (RFC 7386) that makes ``wanted`` of ``found``."""
    if not isinstance(found, Mapping) or not isinstance(wanted, Mapping):
        return wanted
    changed = {key: difference(found.get(key), value) for key, value in wanted.items() if found.get(key) != value}
    return dict.fromkeys(found.keys() - wanted.keys()) | changed


def whole_manifest(kind: ResourceKind, obj: Mapping[str, Any]) -> dict[str, Any]:
    """What applied again makes the object what it is now."""
    given = obj["metadata"]
    metadata = {key: given[key] for key in ("name", "namespace", "labels") if given.get(key)}
    annotations = {key: value for key, value in (given.get("annotations") or {}).items() if key != _KUBECTL}
    if annotations:
        metadata["annotations"] = annotations
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": deepcopy(metadata),
        "spec": deepcopy(obj["spec"]),
    }
