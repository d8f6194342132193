"""A DAG author's additions to a pod that we make: merged entry by entry where Kubernetes names the entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.resources.meta import did_you_mean

if TYPE_CHECKING:
    from airflow_llmtune.resources.meta import Problems

__all__ = ["check_override", "merge"]

# What tells the entries of these lists apart; any other list in an override replaces ours.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
}


def check_override(where: str, override: Mapping[str, Any], primary: str, problems: Problems) -> None:
    for key in (key for key in override if key not in ("metadata", "spec")):
        fix = did_you_mean(key, ("metadata", "spec"))
        problems.add(f"{where}.{key}", override[key], "is no part of a pod template", fix)
    before = len(problems.errors)
    _check_entries(where, override, problems)
    spec = override.get("spec")
    if len(problems.errors) > before or not isinstance(spec, Mapping):
        return
    for container in spec.get("containers") or []:
        if container["name"] != primary and not container.get("image"):
            rule = f"is neither the trainer's container {primary} nor one with an image of its own"
            problems.add(f"{where}.spec.containers", container["name"], rule, f"call it {primary}")


def _check_entries(where: str, node: Any, problems: Problems) -> None:
    if isinstance(node, list):
        for index, entry in enumerate(node):
            _check_entries(f"{where}[{index}]", entry, problems)
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        by = _MERGE_KEYS.get(key)
        named = isinstance(value, list) and all(isinstance(entry, Mapping) and entry.get(by) for entry in value)
        if by is not None and not named:
            problems.add(f"{where}.{key}", value, f"is not a list of entries with `{by}`", f"give each its `{by}`")
        else:
            _check_entries(f"{where}.{key}", value, problems)


def merge(base: Any, override: Any, key: str = "") -> Any:
    if isinstance(base, Mapping) and isinstance(override, Mapping):
        merged = {name: merge(value, override[name], name) for name, value in base.items() if name in override}
        return {**base, **override, **merged}
    if key in _MERGE_KEYS and isinstance(base, list) and isinstance(override, list):
        by = _MERGE_KEYS[key]
        entries = {entry[by]: entry for entry in base}
        for entry in override:
            entries[entry[by]] = merge(entries.get(entry[by], {}), entry)
        return list(entries.values())
    return override
