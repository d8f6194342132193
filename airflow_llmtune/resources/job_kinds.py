"""The kinds of jobs, and how the outcome of each is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_llmtune.resources import job, pytorch_job, train_job
from airflow_llmtune.resources.meta import Outcome, ResourceKind

__all__ = ["READERS", "Reader"]

Reader = Callable[[Mapping[str, Any]], Outcome]
READERS: Mapping[ResourceKind, Reader] = {
    train_job.KIND: train_job.read_outcome,
    pytorch_job.KIND: pytorch_job.read_outcome,
    job.KIND: job.read_outcome,
}
