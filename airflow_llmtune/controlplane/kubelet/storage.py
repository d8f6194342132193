"""How much of the disk a pod may use: its logs, its containers' folders and its emptyDir volumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airflow_llmtune.controlplane.kubelet.logs import PodFolder
from airflow_llmtune.controlplane.quantities import whole

_RESOURCE = "ephemeral-storage"

Usage = Callable[[Path], int]


def has_limits(spec: Mapping[str, Any]) -> bool:
    return bool(_volume_limits(spec) or _container_limits(spec))


def excess(spec: Mapping[str, Any], folder: PodFolder, usage: Usage) -> str:
    """Why the pod must be evicted, in a kubelet's words; empty while it is within its limits."""
    for name, limit in _volume_limits(spec).items():
        if usage(folder.volumes / name) > whole(limit):
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
    limits = _container_limits(spec)
    if limits:
        total = sum(whole(limit) for limit in limits.values())
        if usage(folder.path) > total:
            shown = next(iter(limits.values())) if len(limits) == 1 else total
            return f"Pod ephemeral local storage usage exceeds the total limit of containers {shown}. "
    for name, limit in limits.items():
        if usage(folder.container(name)) + usage(folder.logs(name)) > whole(limit):
            return f'Container {name} exceeded its local ephemeral storage limit "{limit}". '
    return ""


def _volume_limits(spec: Mapping[str, Any]) -> dict[str, str]:
    volumes = {volume["name"]: (volume.get("emptyDir") or {}).get("sizeLimit") for volume in spec.get("volumes", ())}
    return {name: limit for name, limit in volumes.items() if limit is not None}


def _container_limits(spec: Mapping[str, Any]) -> dict[str, str]:
    resources = {one["name"]: one.get("resources") or {} for one in spec["containers"]}
    limits = {name: (found.get("limits") or {}).get(_RESOURCE) for name, found in resources.items()}
    return {name: limit for name, limit in limits.items() if limit is not None}


def disk_usage(folder: Path) -> int:
    """Bytes in the files below; what is deleted meanwhile does not count."""
    found = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                found += os.lstat(f"{path}/{name}").st_blocks * 512
            except OSError:  # Gone, or in a folder that has been closed meanwhile.
                continue
    return found
