"""The ``scale`` subresource: a workload as an ``autoscaling/v1`` Scale, for ``kubectl scale`` and autoscalers. Pure."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.apiserver.errors import bad_request, invalid, invalid_value, unsupported_media_type
from airflow_llmtune.controlplane.apiserver.kinds import Kind
from airflow_llmtune.controlplane.apiserver.label_selectors import as_text
from airflow_llmtune.controlplane.apiserver.patch import JSON, MERGE, apply_patch

Object = dict[str, Any]

SCALE = Kind("autoscaling", "v1", "Scale", "scales", "scale")

_SHOWN = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(obj: Object) -> Object:
    spec, metadata = obj["spec"], obj["metadata"]
    return {
        "kind": SCALE.name,
        "apiVersion": SCALE.api_version,
        "metadata": {field: metadata[field] for field in _SHOWN if field in metadata},
        "spec": {"replicas": spec["replicas"]} if spec["replicas"] else {},
        "status": {"replicas": obj.get("status", {}).get("replicas", 0), "selector": as_text(spec["selector"])},
    }


def patched(obj: Object, media_type: str, patch: Any) -> Object:
    """The object as a patch of its Scale makes it."""
    if media_type not in {JSON, MERGE}:
        raise unsupported_media_type((JSON, MERGE))
    return rescaled(obj, apply_patch(scale_of(obj), media_type, patch))


def rescaled(obj: Object, scale: Object) -> Object:
    """The object with the number of pods of a Scale, which may tell the version that it is meant for."""
    name, spec, metadata = obj["metadata"]["name"], scale.get("spec") or {}, scale.get("metadata") or {}
    if not isinstance(spec, dict) or not isinstance(metadata, dict):
        raise bad_request("the object provided is unrecognized (spec and metadata must be of type Object)")
    replicas = spec.get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise bad_request(
            f"json: cannot unmarshal {replicas!r} into Go struct field ScaleSpec.spec.replicas of type int32"
        )
    if replicas < 0:
        raise invalid(SCALE, name, [invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")])
    version = metadata.get("resourceVersion") or obj["metadata"]["resourceVersion"]
    changed = {**obj["metadata"], "resourceVersion": version}
    return {**obj, "metadata": changed, "spec": {**obj["spec"], "replicas": replicas}}
