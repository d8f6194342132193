"""Deletes an object only as long as it belongs to whom it is believed to belong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.resources.meta import OWNER_ANNOTATION, ResourceKind, path

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["ATTEMPTS", "delete_owned", "owner_of"]

JSON = dict[str, Any]
# Controllers write the status of a running object all the time, and each write refuses one attempt.
ATTEMPTS = 10


def owner_of(obj: JSON) -> str | None:
    owner: str | None = path(obj, "metadata", "annotations", OWNER_ANNOTATION)
    return owner


async def delete_owned(client: KubeflowClient, kind: ResourceKind, obj: JSON, owner: str | None) -> bool:
    """
    Delete the object, in the very state in which ``owner`` was seen to own it.

    Another try may adopt it at any moment: its uid alone would not tell.

    :returns: False when it was gone, or belongs to somebody else by now.
    """
    metadata, current = obj["metadata"], obj
    for _ in range(ATTEMPTS):
        if current["metadata"]["uid"] != metadata["uid"] or owner_of(current) != owner:
            return False
        version = current["metadata"]["resourceVersion"]
        where = kind, metadata["namespace"], metadata["name"]
        if await client.delete(*where, uid=metadata["uid"], resource_version=version):
            return True
        found = await client.find(*where)
        if found is None:
            return False
        current = found
    raise KubernetesApiError(
        f"{kind.kind} {metadata['name']} in namespace {metadata['namespace']} changes too fast to be deleted",
        code=409,
        reason="Conflict",
    )
