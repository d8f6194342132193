"""Keeps what served before a deployment, and brings it back, once: for the worker and the triggerer alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_llmtune.exceptions import ForeignObjectError, KubernetesApiError
from airflow_llmtune.resources import deployment, rollback_record
from airflow_llmtune.resources.meta import ResourceKind
from airflow_llmtune.resources.revision import read_revisions

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["ATTEMPTS", "await_end", "find_record", "forget", "keep_previous", "roll_back"]

JSON = dict[str, Any]
# The status of an object that rolls out changes all the time, and each change refuses one attempt.
ATTEMPTS = 10
# KServe acts on a rollback within a second or two; the error need not wait for ever.
END_SECONDS = 60.0


async def find_record(client: KubeflowClient, kind: ResourceKind, namespace: str, name: str) -> JSON | None:
    return await client.find(rollback_record.KIND, namespace, rollback_record.record_name(kind, name))


async def keep_previous(
    client: KubeflowClient, kind: ResourceKind, preview: JSON, current: JSON | None, owner: str, epoch: str
) -> JSON:
    """
    Write down what ``current`` is before it becomes ``preview``; return the record.

    The record of a deployment that has not ended is taken over: what it left half done is nothing to go back to.
    """
    namespace, name = preview["metadata"]["namespace"], preview["metadata"]["name"]
    record = await find_record(client, kind, namespace, name)
    if record is not None and current is not None and _is_under_way(kind, record, current):
        taken = {"metadata": {"annotations": rollback_record.taken_over(record, preview, current, owner, epoch)}}
        return await client.patch(rollback_record.KIND, namespace, record["metadata"]["name"], taken)
    if record is not None:
        await _delete(client, record)
    try:
        return await client.create(
            rollback_record.KIND, namespace, rollback_record.new_record(kind, preview, current, owner, epoch)
        )
    except KubernetesApiError as error:
        if error.reason != "AlreadyExists":
            raise
        raise ForeignObjectError(
            f"Another task deploys {kind.kind} {name!r} in namespace {namespace!r} at this moment. "
            f"Fix: let one DAG run at a time deploy it (`max_active_runs=1`), or give the task a retry"
        ) from error


def _is_under_way(kind: ResourceKind, record: JSON, current: JSON) -> bool:
    return rollback_record.wrote(record, current) or rollback_record.keeps(record, kind, current)


async def forget(client: KubeflowClient, kind: ResourceKind, namespace: str, name: str, owner: str) -> None:
    """Delete the record of a deployment that has ended well."""
    record = await find_record(client, kind, namespace, name)
    if record is not None and rollback_record.belongs_to(record, owner):
        await _delete(client, record)


async def roll_back(client: KubeflowClient, kind: ResourceKind, namespace: str, name: str, owner: str) -> str:
    """Bring back what served before, unless somebody else has changed it since; say what was done."""
    record = await find_record(client, kind, namespace, name)
    if record is None:
        return "It was not rolled back: this task had changed nothing"
    if not rollback_record.belongs_to(record, owner):
        return "It was not rolled back: another try or task deploys it now"
    told = await _restore(client, kind, namespace, name, record)
    await _delete(client, record)
    return told


async def await_end(
    client: KubeflowClient, kind: ResourceKind, namespace: str, name: str, selector: str, revisions: Sequence[str]
) -> None:
    """Wait until no Deployment is to run what failed any more; the version before serves on its own."""
    end = time.monotonic() + END_SECONDS
    while time.monotonic() < end:
        obj = await client.find(kind, namespace, name)
        gone = set(revisions) - set(read_revisions(obj["spec"]) if obj else [])
        found, _ = await client.list_all(deployment.KIND, namespace, label_selector=selector)
        if not gone & {deployment.revision(item) for item in found}:
            return
        await asyncio.sleep(0.5)


async def _restore(client: KubeflowClient, kind: ResourceKind, namespace: str, name: str, record: JSON) -> str:
    for attempt in range(1, ATTEMPTS + 1):
        current = await client.find(kind, namespace, name)
        if current is None:
            return "It was not rolled back: somebody has deleted it"
        if not rollback_record.wrote(record, current):
            return "It was not rolled back: somebody else has changed it since"
        previous = rollback_record.previous_manifest(record)
        if previous is None:
            await client.delete(kind, namespace, name, uid=current["metadata"]["uid"])
            return "It was deleted: there was no version before"
        # Refused when the object has changed since it was read.
        previous["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        try:
            applied = await client.apply(kind, namespace, previous, force=True)
            # An apply leaves what nobody owns, such as defaults that KServe's webhook has given the failed version.
            if rest := rollback_record.difference(applied["spec"], previous["spec"]):
                await client.patch(kind, namespace, name, {"spec": rest})
            return "It was rolled back to the version before"
        except KubernetesApiError as error:
            if error.code != 409 or attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


async def _delete(client: KubeflowClient, record: JSON) -> None:
    metadata = record["metadata"]
    await client.delete(rollback_record.KIND, metadata["namespace"], metadata["name"], uid=metadata["uid"])
