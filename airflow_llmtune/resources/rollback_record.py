"""What served before a deployment, kept in the cluster until that deployment has ended.

It is a ControllerRevision, in which Kubernetes' own controllers keep such history: worker and triggerer can both read
it, it outlives either of them, and it holds nothing that the object does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from airflow_llmtune.resources.meta import OWNER_ANNOTATION, ResourceKind, path
from airflow_llmtune.resources.revision import digest

__all__ = [
    "KIND",
    "began",
    "belongs_to",
    "difference",
    "goes_on",
    "keeps",
    "new_record",
    "previous_manifest",
    "record_name",
    "taken_over",
    "whole_manifest",
    "wrote",
]

KIND = ResourceKind("apps", "v1", "ControllerRevision", "controllerrevisions")

# Stands for the specs that were applied; while the object has another one, it is not ours to roll back.
_APPLIED = "airflow-llmtune/applied"
# Since when, and by which task between two clears, it is waited for.
_SINCE, _EPOCH = "airflow-llmtune/since", "airflow-llmtune/epoch"
_KUBECTL = "kubectl.kubernetes.io/last-applied-configuration"


def record_name(kind: ResourceKind, name: str) -> str:
    return f"{kind.kind.lower()}-{name}-rollback"


def new_record(
    kind: ResourceKind, preview: Mapping[str, Any], current: Mapping[str, Any] | None, owner: str, epoch: str
) -> dict[str, Any]:
    """``preview``: the object as it will be; ``current``: as it is, None before the first deployment."""
    namespace, name = preview["metadata"]["namespace"], preview["metadata"]["name"]
    marks = _marks(owner, epoch, datetime.now(UTC), digest(preview["spec"]))
    metadata: dict[str, Any] = {"name": record_name(kind, name), "namespace": namespace, "annotations": marks}
    if current is not None:
        reference = {"apiVersion": kind.api_version, "kind": kind.kind, "name": name, "uid": current["metadata"]["uid"]}
        metadata["ownerReferences"] = [reference]
    data = {} if current is None else {"previous": whole_manifest(kind, current)}
    return {"apiVersion": KIND.api_version, "kind": KIND.kind, "metadata": metadata, "data": data, "revision": 1}


def taken_over(
    record: Mapping[str, Any], preview: Mapping[str, Any], current: Mapping[str, Any], owner: str, epoch: str
) -> dict[str, str]:
    """The annotations by which a try takes over the record of a deployment that has not ended.

    A retry with the same manifest goes on waiting; anything else begins anew. What others have applied or are about
    to apply stays known: a worker may be lost before the next is applied.
    """
    new = digest(preview["spec"])
    same = goes_on(record, current, epoch) and new == digest(current["spec"])
    since = began(record) if same else datetime.now(UTC)
    return _marks(owner, epoch, since, *dict.fromkeys([*_applied(record), new]))


def _marks(owner: str, epoch: str, since: datetime, *applied: str) -> dict[str, str]:
    return {OWNER_ANNOTATION: owner, _EPOCH: epoch, _SINCE: since.isoformat(), _APPLIED: " ".join(applied)}


def began(record: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(record["metadata"]["annotations"][_SINCE])


def wrote(record: Mapping[str, Any] | None, current: Mapping[str, Any] | None) -> bool:
    """Whether the object is as the deployment of this record left it."""
    if record is None or current is None:
        return False
    return digest(current["spec"]) in _applied(record)


def _applied(record: Mapping[str, Any]) -> list[str]:
    return str(path(record, "metadata", "annotations", _APPLIED) or "").split()


def keeps(record: Mapping[str, Any], kind: ResourceKind, current: Mapping[str, Any]) -> bool:
    """Whether the object is what the record is to bring back: another task is about to change it."""
    return previous_manifest(record) == whole_manifest(kind, current)


def goes_on(record: Mapping[str, Any] | None, current: Mapping[str, Any] | None, epoch: str) -> bool:
    """Whether an earlier try of the same task has left the object as it is."""
    return wrote(record, current) and path(record, "metadata", "annotations", _EPOCH) == epoch


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
