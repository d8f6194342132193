"""What somebody may still wait for in a namespace, of every kind that runs to an end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from airflow_llmtune.exceptions import KubernetesApiError
from airflow_llmtune.hooks.client import KubeflowClient
from airflow_llmtune.hooks.ownership import delete_owned, owner_of
from airflow_llmtune.resources import experiment, job_kinds
from airflow_llmtune.resources.meta import WAITED_FOR, ResourceKind

__all__ = ["KINDS", "Found", "delete", "find"]

JSON = dict[str, Any]
_READERS: Mapping[ResourceKind, job_kinds.Reader] = {experiment.KIND: experiment.read_outcome, **job_kinds.READERS}
KINDS: Mapping[str, ResourceKind] = {kind.kind: kind for kind in _READERS}
log = logging.getLogger(__name__)


class Found(NamedTuple):
    kind: ResourceKind
    obj: JSON

    def __str__(self) -> str:
        return f"{self.kind.kind}/{self.obj['metadata']['name']}"

    @property
    def has_finished(self) -> bool:
        return _READERS[self.kind](self.obj).finished


async def find(client: KubeflowClient, kinds: Iterable[str], namespace: str) -> list[Found]:
    """List the objects; a kind that the cluster does not have has none."""
    found: list[Found] = []
    for kind in (KINDS[name] for name in dict.fromkeys(kinds)):
        try:
            listed, _ = await client.list_all(kind, namespace, label_selector=WAITED_FOR)
        except KubernetesApiError as error:
            if error.code != 404:
                raise
            log.info("The cluster does not have %s", kind.plural)
        else:
            found += [Found(kind, obj) for obj in listed]
    return found


async def delete(client: KubeflowClient, orphans: Iterable[Found]) -> list[Found]:
    """Delete those that still belong to whom they belonged when they were listed; return these."""
    deleted = []
    for one in orphans:
        # A human may have cleared the task since; the try that adopted the object has written its name on it.
        if await delete_owned(client, one.kind, one.obj, owner_of(one.obj)):
            log.info("Deleted %s", one)
            deleted.append(one)
        else:
            log.info("%s is gone, or a new try of its task has adopted it", one)
    return deleted
