"""Volumes as local folders, and texts in which mount paths are replaced by them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_llmtune.controlplane.kubelet.environment import ConfigError, Lookup, data_of, field_value


@dataclass(frozen=True)
class Mount:
    path: str
    local: Path


def rewrite(text: str, mounts: Sequence[Mount]) -> str:
    """Every mount path that begins a path in the text becomes its local folder; the longest mount wins."""
    by_path = {mount.path.rstrip("/"): str(mount.local) for mount in mounts if mount.path.rstrip("/")}
    if not by_path:
        return text
    # One pass over all mounts: a replacement is never searched again.
    options = "|".join(re.escape(path) for path in sorted(by_path, key=len, reverse=True))
    pattern = rf"(?:(?<=file://)|(?<![\w./-]))(?:{options})(?![\w.-])"
    return re.sub(pattern, lambda match: by_path[match[0]], text)


class Volumes:
    """The volumes of one pod under ``folder``; claims live under ``claims`` and outlive the pod."""

    def __init__(self, pod: dict[str, Any], folder: Path, claims: Path, lookup: Lookup) -> None:
        self._pod = pod
        self._folder = folder
        self._claims = claims
        self._lookup = lookup

    def prepare(self) -> dict[str, Path]:
        """Make all volumes; raises ConfigError while something they refer to is missing."""
        return {volume["name"]: self._local(volume) for volume in self._pod["spec"].get("volumes") or ()}

    def _local(self, volume: dict[str, Any]) -> Path:
        own: Path = self._folder / volume["name"]
        sources = volume.keys() - {"name"}
        source: dict[str, Any] = next((volume[one] or {} for one in sources), {})
        match next(iter(sources), "emptyDir"):
            case "emptyDir":
                own.mkdir(parents=True, exist_ok=True)
                return own
            case "hostPath":
                return _host_path(source)
            case "persistentVolumeClaim":
                return self._claim(source["claimName"])
            case "secret":
                return self._filled(own, "Secret", source["secretName"], source)
            case "configMap":
                return self._filled(own, "ConfigMap", source["name"], source)
            case "downwardAPI":
                return self._downward(own, source["items"])
            case other:
                raise ConfigError(f"volume {volume['name']}: {other} is not supported here")

    def _claim(self, name: str) -> Path:
        if self._lookup("PersistentVolumeClaim", name) is None:
            raise ConfigError(f'persistentvolumeclaim "{name}" not found')
        local: Path = self._claims / self._pod["metadata"]["namespace"] / name
        local.mkdir(parents=True, exist_ok=True)
        return local

    def _filled(self, own: Path, kind: str, name: str, source: dict[str, Any]) -> Path:
        found = self._lookup(kind, name)
        if found is None and not source.get("optional"):
            raise ConfigError(f'{kind.lower()} "{name}" not found')
        data = data_of(kind, found) if found else {}
        own.mkdir(parents=True, exist_ok=True)
        items = source.get("items") or [{"key": key, "path": key} for key in data]
        for item in items:
            if item["key"] not in data:
                raise ConfigError(f"{kind.lower()} {name} has no key {item['key']}")
            _write(own / item["path"], data[item["key"]])
        return own

    def _downward(self, own: Path, items: Sequence[dict[str, Any]]) -> Path:
        for item in items:
            _write(own / item["path"], field_value(self._pod, item["fieldRef"]["fieldPath"]).encode())
        return own


def _host_path(source: dict[str, Any]) -> Path:
    path = Path(source["path"])
    if source.get("type") == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    return path


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)


def container_mounts(container: dict[str, Any], volumes: dict[str, Path]) -> list[Mount]:
    mounts = []
    for mount in container.get("volumeMounts") or ():
        if mount["name"] not in volumes:
            raise ConfigError(f"volumeMount {mount['name']} of container {container['name']} has no volume")
        local: Path = volumes[mount["name"]]
        if mount.get("subPath"):
            local /= mount["subPath"]
            local.mkdir(parents=True, exist_ok=True)
        mounts.append(Mount(mount["mountPath"], local))
    return mounts
