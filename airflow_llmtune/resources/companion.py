"""What belongs to an object of ours and goes with it: the API server's garbage collector deletes it after its owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_llmtune.resources.meta import ResourceKind, path

__all__ = ["companion_kind", "owned_by"]

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
