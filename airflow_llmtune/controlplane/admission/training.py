"""Which rules apply to which kind of training job and to what such jobs are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_llmtune.controlplane.admission import training_schema
from airflow_llmtune.controlplane.admission.job_set import check_job_set, check_job_set_update, default_job_set
from airflow_llmtune.controlplane.admission.pytorch_job import check_pytorch_job
from airflow_llmtune.controlplane.admission.train_job import check_train_job, stamp_patches
from airflow_llmtune.controlplane.admission.training_runtime import check_runtime, check_types
from airflow_llmtune.controlplane.apiserver.errors import invalid
from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_TRAINING_RUNTIME,
    JOB_SET,
    PYTORCH_JOB,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    Kind,
)
from airflow_llmtune.controlplane.clock import timestamp, utc_now

Object = dict[str, Any]
FindObject = Callable[[Kind, str, str], Object | None]


_SCHEMAS: dict[Kind, Object] = {
    JOB_SET: training_schema.JOB_SET,
    PYTORCH_JOB: training_schema.PYTORCH_JOB,
    TRAIN_JOB: training_schema.TRAIN_JOB,
    TRAINING_RUNTIME: training_schema.RUNTIME,
    CLUSTER_TRAINING_RUNTIME: training_schema.RUNTIME,
}


def admit_training(kind: Kind, obj: Object, old: Object | None, find: FindObject) -> None:
    """``old`` is None for an object that is being made. Other kinds are let through."""
    if "deletionTimestamp" in obj["metadata"]:
        return  # Only finalizers change now.
    if kind in _SCHEMAS:
        obj.setdefault("spec", {})
        causes = training_schema.apply_schema(_SCHEMAS[kind], obj)
        if causes:
            raise invalid(kind, obj["metadata"]["name"], causes)
    if kind == PYTORCH_JOB:
        check_pytorch_job(obj)
    elif kind == TRAIN_JOB:
        stamp_patches(obj, old, timestamp(utc_now()))
        check_train_job(obj, old, find)
    elif kind in (TRAINING_RUNTIME, CLUSTER_TRAINING_RUNTIME):
        check_types(kind, obj)
        if old is None:
            check_runtime(kind, obj)
    elif kind == JOB_SET:
        _admit_job_set(obj, old)


def _admit_job_set(obj: Object, old: Object | None) -> None:
    default_job_set(obj)
    if old is None:
        check_job_set(obj)
    else:
        check_job_set_update(obj, old)
