"""What trainers tell of their runs, in the termination messages of their pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.hooks.diagnosis import read_pods
from airflow_llmtune.resources import pod

if TYPE_CHECKING:
    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["read_training_result"]

JSON = dict[str, Any]


async def read_training_result(client: KubeflowClient, namespace: str, selector: str) -> JSON:
    """Return it all, a newer pod's before an older one's; pods of other code have told nothing."""
    result: JSON = {}
    for item in await read_pods(client, namespace, selector):
        result |= pod.read_training_result(item) or {}
    return result
