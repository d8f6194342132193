"""The init container that fetches models, and the volumes that they come to lie in, as KServe injects them.

A single ``storageUri`` is an annotation of the pod that KServe's pod webhook acts on; several are already in the
template. Pure, but for the credentials that are looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_llmtune.controlplane.admission.serving_names import (
    INITIALIZER,
    MAIN_CONTAINER,
    MODEL_FOLDER,
    SERVICE_LABEL,
    SOURCE_URI,
    STORAGE_READ_ONLY,
    STORAGE_URI_VARIABLE,
    TRANSFORMER_CONTAINER,
)
from airflow_llmtune.controlplane.admission.storage_credentials import FindObject, credentials
from airflow_llmtune.controlplane.admission.storage_uris import CLAIM, claim_of, common_parent

Object = dict[str, Any]

IMAGE = "kserve/storage-initializer:v0.20.0"
"""Served inside the control plane."""

_SERVERS = (MAIN_CONTAINER, TRANSFORMER_CONTAINER)
_HUB_SETTINGS = (
    {"name": "HF_HUB_ENABLE_HF_TRANSFER", "value": "1"},
    {"name": "HF_XET_HIGH_PERFORMANCE", "value": "1"},
    {"name": "HF_XET_NUM_CONCURRENT_RANGE_GETS", "value": "8"},
)


def inject_model(pod: Object, find: FindObject) -> None:
    """What KServe's pod webhook does, in place; raises ApiError when credentials are missing."""
    metadata = pod["metadata"]
    annotations = metadata.get("annotations") or {}
    uri, spec = annotations.get(SOURCE_URI), pod["spec"]
    if uri is None or SERVICE_LABEL not in (metadata.get("labels") or {}) or _is_injected(spec):
        return
    volume: Object = {"name": "kserve-provision-location", "emptyDir": {}}
    place = {"name": volume["name"], "mountPath": MODEL_FOLDER, "readOnly": is_read_only(annotations)}
    if uri.startswith(CLAIM):
        claim, path = claim_of(uri)
        volume = {"name": "kserve-pvc-source", "persistentVolumeClaim": {"claimName": claim}}
        place |= {"name": volume["name"], **({"subPath": path} if path else {})}
    mount(spec, volume, place)
    for variable in _main(spec).get("env") or ():
        if variable["name"] == STORAGE_URI_VARIABLE and variable.get("value"):
            variable["value"] = MODEL_FOLDER
    if not uri.startswith(CLAIM):
        add_initializer(spec, [uri, MODEL_FOLDER], place, metadata.get("namespace", ""), annotations, find)


def inject_models(
    spec: Object, uris: Sequence[Object], namespace: str, annotations: Mapping[str, str], find: FindObject
) -> None:
    """``storageUris``, in place: each volume of a claim as a whole, all else by one initializer."""
    if _is_injected(spec):
        return
    read_only = is_read_only(annotations)
    fetched = [one for one in uris if not one["uri"].startswith(CLAIM)]
    for one in uris:
        if one["uri"].startswith(CLAIM):
            # The path within the claim is dropped: so does KServe.
            volume = {"persistentVolumeClaim": {"claimName": claim_of(one["uri"])[0]}}
            _mount_at(spec, one["mountPath"], volume, read_only=read_only)
    if fetched:
        folder = common_parent([one["mountPath"] for one in fetched])
        place = _mount_at(spec, folder, {"emptyDir": {}}, read_only=read_only)
        args = [word for one in fetched for word in (one["uri"], one["mountPath"])]
        add_initializer(spec, args, place, namespace, annotations, find)


def is_read_only(annotations: Mapping[str, str]) -> bool:
    return annotations.get(STORAGE_READ_ONLY) != "false"


def _is_injected(spec: Object) -> bool:
    return any(one["name"] == INITIALIZER for one in spec.get("initContainers") or ())


def _main(spec: Object) -> Object:
    return next((one for one in spec["containers"] if one["name"] == MAIN_CONTAINER), {})


def _mount_at(spec: Object, path: str, source: Object, *, read_only: bool) -> Object:
    name = path.strip("/").replace("/", "-")
    place = {"name": name, "mountPath": path, "readOnly": read_only}
    mount(spec, {"name": name, **source}, place)
    return place


def mount(spec: Object, volume: Object, place: Object, containers: Sequence[str] = _SERVERS) -> None:
    """Give a pod a volume, and these containers a place where they find it."""
    for container in spec["containers"]:
        if container["name"] in containers:
            mounts = container.setdefault("volumeMounts", [])
            if all(one["name"] != place["name"] for one in mounts):
                mounts.append(dict(place))
    volumes = spec.setdefault("volumes", [])
    if all(one["name"] != volume["name"] for one in volumes):
        volumes.append(volume)


def add_initializer(
    spec: Object,
    args: list[str],
    place: Object,
    namespace: str,
    annotations: Mapping[str, str],
    find: FindObject,
) -> None:
    env = credentials(namespace, spec.get("serviceAccountName", ""), annotations, find)
    initializer = {
        "name": INITIALIZER,
        "image": IMAGE,
        "args": args,
        "env": [*env, *map(dict, _HUB_SETTINGS)],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{**place, "readOnly": False}],
    }
    spec["initContainers"] = [*(spec.get("initContainers") or ()), initializer]
