"""Where models come from: KServe's rules for ``storageUri`` and ``storageUris``. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from airflow_llmtune.controlplane.admission.webhook_denial import DenialError

Object = dict[str, Any]

CLAIM = "pvc://"
SUPPORTED = (
    "gs://",
    "s3://",
    CLAIM,
    "file://",
    "https://",
    "http://",
    "hdfs://",
    "webhdfs://",
    "oci://",
    "oci+native://",
    "hf://",
)

_BLOB = re.compile(r"https://(.+?).blob.core.windows.net/(.+)")


def check_storage_uris(uri: str | None, uris: Sequence[Object] | None) -> None:
    """Raises DenialError."""
    if uri is not None and uris is not None:
        raise DenialError("Setting both StorageURI and StorageURIs is not supported.")
    for one in uris or ():
        _check_place(one["mountPath"])
    paths = [one["mountPath"] for one in uris or () if not one["uri"].startswith(CLAIM)]
    if len(paths) <= 1:
        return
    claims = [one["mountPath"] for one in uris or () if one["uri"].startswith(CLAIM)]
    if len(set(claims)) < len(claims):
        raise DenialError("PVC storage paths must be unique")
    if common_parent(paths) == "/":
        shown = f"[{' '.join(paths)}]"
        raise DenialError(
            "storage paths must have a common parent directory. "
            f"Current paths: {shown} have no common parent beyond root"
        )


def _check_place(path: str) -> None:
    if path == "/":
        raise DenialError("storage path cannot be empty")
    if ".." in path:
        raise DenialError(f"storage path cannot contain '..' for security reasons: {path}")


def common_parent(paths: Sequence[str]) -> str:
    """The folder that all lie in; of one path, itself."""
    if len(paths) == 1:
        return paths[0]
    split = [[part for part in path.strip("/").split("/") if part] for path in paths]
    common = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return "/" + "/".join(common)


def unsupported(uri: str) -> str:
    """Why KServe's initializer would not take it; empty for what it takes."""
    if not re.search(r"\w+?://", uri):
        return ""
    if ".blob.core.windows.net" in uri or "blob.core.windows.net" in uri:
        if _BLOB.search(uri):
            return ""
    elif uri.startswith(SUPPORTED):
        return ""
    return (
        f"storageUri, must be one of: [{', '.join(SUPPORTED)}] or match https://{{}}.blob.core.windows.net/{{}}/{{}} "
        f"or be an absolute or relative local path. StorageUri [{uri}] is not supported"
    )


def claim_of(uri: str) -> tuple[str, str]:
    """The claim's name and the path in it."""
    name, _, path = uri.removeprefix(CLAIM).partition("/")
    return name, path
