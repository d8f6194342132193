"""Brings what goes with a task's object: Secrets are written anew each time, a volume claim is made once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.resources.companion import SECRET, companion_kind, is_owned_by, owned_by

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient
    from airflow_llmtune.resources.meta import ResourceKind

__all__ = ["bring"]

JSON = dict[str, Any]
# An object's claim goes with its last pod, and a trainer that is ended may take a minute to save what it has.
CLAIM_SECONDS, PAUSE = 90.0, 1.0


async def bring(client: KubeflowClient, owner: JSON, manifest: JSON, *, dry_run: bool = False) -> None:
    """
    Make sure that a companion is there, as its owner's.

    :param dry_run: the owner is not there yet: find out whether the companion could be made, and change nothing.
    """
    kind, owned = companion_kind(manifest), owned_by(owner, manifest)
    if kind is SECRET:
        await client.apply(kind, owned["metadata"]["namespace"], owned, force=True, dry_run=dry_run)
        return
    deadline = time.monotonic() + CLAIM_SECONDS
    while not await _is_there(client, kind, owner, owned, dry_run=dry_run):
        if time.monotonic() > deadline:
            metadata = owned["metadata"]
            raise KubernetesApiError(
                f"{kind.kind} {metadata['name']} in namespace {metadata['namespace']} is there and belongs to "
                f"something else, such as to an object that was deleted and whose pods still use it. "
                f"Fix: end those pods, or delete the claim",
                code=409,
                reason="Conflict",
            )
        await asyncio.sleep(PAUSE)


async def _is_there(client: KubeflowClient, kind: ResourceKind, owner: JSON, owned: JSON, *, dry_run: bool) -> bool:
    """Make it where there is none; what is there cannot be changed, and another's is waited out."""
    namespace, name = owned["metadata"]["namespace"], owned["metadata"]["name"]
    found = await client.find(kind, namespace, name)
    if found is not None:
        return is_owned_by(found, owner)
    try:
        await client.create(kind, namespace, owned, dry_run=dry_run)
    except KubernetesApiError as error:
        if error.reason == "AlreadyExists":
            return False
        raise
    return True
