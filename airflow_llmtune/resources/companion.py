"""What belongs to an object of ours and goes with it: the API server's garbage collector deletes it after its owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.resources.meta import ResourceKind, path

__all__ = ["SECRET", "VOLUME_CLAIM", "companion_kind", "is_owned_by", "owned_by"]

SECRET = ResourceKind("", "v1", "Secret", "secrets")
VOLUME_CLAIM = ResourceKind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
_KINDS = {kind.kind: kind for kind in (SECRET, VOLUME_CLAIM)}


def companion_kind(manifest: Mapping[str, Any]) -> ResourceKind:
    return _KINDS[manifest["kind"]]


def owned_by(owner: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest in the owner's namespace; owned by it as soon as that has a uid."""
    metadata = {**manifest["metadata"], "namespace": owner["metadata"]["namespace"]}
    if (uid := path(owner, "metadata", "uid")) is not None:
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"]}
        metadata["ownerReferences"] = [{**reference, "uid": uid}]
    return {**manifest, "metadata": metadata}


def is_owned_by(companion: Mapping[str, Any], owner: Mapping[str, Any]) -> bool:
    """Another object of the owner's name is another owner."""
    uids = [reference["uid"] for reference in path(companion, "metadata", "ownerReferences") or []]
    return path(owner, "metadata", "uid") in uids
