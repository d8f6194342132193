"""A DAG author's additions to a pod that we make: merged entry by entry where Kubernetes names the entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_llmtune.resources.environment import check_entries
from airflow_llmtune.resources.header import check_metadata
from airflow_llmtune.resources.meta import path
from airflow_llmtune.resources.problems import did_you_mean

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = ["check_override", "limits_of", "merge"]

# What tells the entries of these lists apart; any other list in an override replaces ours.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
}


def check_override(where: str, override: Mapping[str, Any], primary: str, problems: Problems) -> None:
    for key, value in override.items():
        if key not in ("metadata", "spec"):
            fix = did_you_mean(key, ("metadata", "spec"))
            problems.add(f"{where}.{key}", value, "is no part of a pod template", fix)
        elif not isinstance(value, Mapping):
            problems.add(f"{where}.{key}", value, "is not a mapping", "give a dict such as {'name': 'value'}")
        elif key == "metadata":
            check_metadata(f"{where}.metadata", value, problems)
        else:
            _check_spec(f"{where}.spec", value, primary, problems)


def _check_spec(where: str, spec: Mapping[str, Any], primary: str, problems: Problems) -> None:
    _are_named(where, spec, "volumes", problems)
    for key in ("containers", "initContainers"):
        containers = spec.get(key, []) if _are_named(where, spec, key, problems) else []
        for index, container in enumerate(containers):
            _check_container(f"{where}.{key}[{index}]", container, problems)
            if key == "containers" and container["name"] != primary and not container.get("image"):
                rule = f"is neither the trainer's container {primary} nor one with an image of its own"
                problems.add(f"{where}.{key}", container["name"], rule, f"call it {primary}")


def _check_container(where: str, container: Mapping[str, Any], problems: Problems) -> None:
    _are_named(where, container, "volumeMounts", problems)
    if _are_named(where, container, "env", problems):
        check_entries(f"{where}.env", container.get("env", []), problems)


def _are_named(where: str, node: Mapping[str, Any], key: str, problems: Problems) -> bool:
    """Whether the entries of a list can be told apart; so can those of a list that is not there."""
    by, entries = _MERGE_KEYS[key], node.get(key, [])
    if isinstance(entries, list) and all(isinstance(entry, Mapping) and _is_text(entry.get(by)) for entry in entries):
        return True
    problems.add(f"{where}.{key}", entries, f"is not a list of entries with `{by}`", f"give each its `{by}`")
    return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def limits_of(override: Mapping[str, Any], container: str) -> Mapping[str, Any]:
    """What it sets for a container."""
    containers = path(override, "spec", "containers") or []
    found = (path(one, "resources", "limits") for one in containers if one["name"] == container)
    return next((limits for limits in found if isinstance(limits, Mapping)), {})


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
