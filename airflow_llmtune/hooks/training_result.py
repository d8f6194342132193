"""What trainers tell of their runs, in the termination messages of their pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_llmtune.hooks.diagnosis import read_pods
from airflow_llmtune.resources import pod
from airflow_llmtune.resources.meta import path

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_llmtune.hooks.client import KubeflowClient

__all__ = ["log_remarks", "read_training_result"]

JSON = dict[str, Any]


async def read_training_result(client: KubeflowClient, namespace: str, selector: str) -> JSON:
    """Return it all, a newer pod's before an older one's; pods of other code have told nothing."""
    result: JSON = {}
    for item in await read_pods(client, namespace, selector):
        result |= pod.read_training_result(item) or {}
    return result


def log_remarks(log: Logger, name: str, told: JSON) -> None:
    """
    Repeat what the reader of a task's log should know of a training.

    :param name: of the trial or the job.
    :param told: what ``read_training_result`` returned.
    """
    if version := path(told, "manifest", "trainer_version"):
        log.info("%s ran version %s of the trainer", name, version)
    # Rows that were left out or cut off: else only the pod's own log has it, and no metric shows it.
    remarks = path(told, "manifest", "data", "remarks")
    for remark in remarks if isinstance(remarks, list) else ():  # other code may write anything
        log.warning("%s: %s", name, remark)
