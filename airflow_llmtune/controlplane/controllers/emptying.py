"""Deletes many objects at once, for a namespace or a definition that is to go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.kinds import Kind
    from airflow_llmtune.controlplane.apiserver.registry import Registry

LOOK_AGAIN_SECONDS = 0.1
_PORTION = 50
"""So many objects are deleted before requests are answered again."""


async def is_emptied(registry: Registry, kinds: Sequence[Kind], namespace: str | None = None) -> bool:
    """Delete all objects of the kinds; whether none is left, held by finalizers or running pods."""
    for kind in kinds:
        for index, entry in enumerate(list(registry.entries(kind, namespace)), start=1):
            _delete(registry, kind, *entry.key)
            if index % _PORTION == 0:
                await asyncio.sleep(0)
    return not any(next(registry.entries(kind, namespace), None) for kind in kinds)


def _delete(registry: Registry, kind: Kind, namespace: str, name: str) -> None:
    entry = registry.store.get(kind, namespace, name)
    if entry is not None and "deletionTimestamp" not in entry.view["metadata"]:
        registry.delete(kind, namespace, name)
