"""Waits for a training job: a TrainJob of Kubeflow Trainer, a PyTorchJob, or a plain batch Job."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.resources import job, pytorch_job, train_job
from airflow_llmtune.triggers.base import WaitTrigger

__all__ = ["JobTrigger", "PyTorchJobTrigger", "TrainJobTrigger"]


class JobTrigger(WaitTrigger):
    """Fires when a batch/v1 Job has finished; see :class:`WaitTrigger` for the arguments."""

    kind = job.KIND
    read_outcome = staticmethod(job.read_outcome)
    pod_selector = staticmethod(job.pod_selector)

    @staticmethod
    def read_progress(obj: dict[str, Any]) -> str:
        status = obj.get("status") or {}
        return ", ".join(_counts(status)) or "no pod started yet"


class PyTorchJobTrigger(WaitTrigger):
    """Fires when a PyTorchJob has finished; see :class:`WaitTrigger` for the arguments."""

    kind = pytorch_job.KIND
    read_outcome = staticmethod(pytorch_job.read_outcome)
    pod_selector = staticmethod(pytorch_job.pod_selector)

    @staticmethod
    def read_progress(obj: dict[str, Any]) -> str:
        replicas = (obj.get("status") or {}).get("replicaStatuses") or {}
        states = [f"{role} {text}" for role in sorted(replicas) for text in _counts(replicas[role])]
        return ", ".join(states) or "no replica started yet"


class TrainJobTrigger(WaitTrigger):
    """Fires when a TrainJob has finished; see :class:`WaitTrigger` for the arguments."""

    kind = train_job.KIND
    read_outcome = staticmethod(train_job.read_outcome)
    pod_selector = staticmethod(train_job.pod_selector)

    @staticmethod
    def read_progress(obj: dict[str, Any]) -> str:
        return train_job.read_progress(obj) or "no step started yet"


def _counts(status: dict[str, Any]) -> list[str]:
    return [f"{status[state]} {state}" for state in ("active", "succeeded", "failed") if status.get(state)]
