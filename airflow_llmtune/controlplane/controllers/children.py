"""The objects that a controller has made for one owner, found without a look at all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.kinds import Kind

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

_LONGEST_GENERATED_PREFIX = 58
"""A generated name keeps this much of what stands before its five last letters."""


def children(registry: Registry, kind: Kind, namespace: str, owner_name: str, label: str) -> list[dict[str, Any]]:
    """Those named ``<owner>-…`` that name the owner in ``label``, in the order of their names."""
    prefix = f"{owner_name}-"[:_LONGEST_GENERATED_PREFIX]
    found = []
    for entry in registry.entries(kind, namespace, after=(namespace, prefix)):
        if not entry.key[1].startswith(prefix):
            break
        if (entry.view["metadata"].get("labels") or {}).get(label) == owner_name:
            found.append(entry.copy())
    return found
