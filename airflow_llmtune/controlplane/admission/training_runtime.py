"""The trainer's webhook for TrainingRuntimes and ClusterTrainingRuntimes."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.admission.field_errors import FieldErrors
from airflow_llmtune.controlplane.admission.job_struct import JOB_SPEC
from airflow_llmtune.controlplane.admission.pod_spec import typed
from airflow_llmtune.controlplane.apiserver.errors import Cause, denied_by_webhook, forbidden, invalid
from airflow_llmtune.controlplane.apiserver.kinds import Kind

Object = dict[str, Any]

ANCESTOR_LABEL = "trainer.kubeflow.org/trainjob-ancestor-step"
CONTAINER_OF = {
    "trainer": "node",
    "model-initializer": "model-initializer",
    "dataset-initializer": "dataset-initializer",
}
"""The step that a replicated job stands for, and the container that it must have."""

_SOURCES = ("torch", "mpi", "jax", "xgboost", "flux")
_RUNS = ("torch",)


def ancestor_of(replicated_job: Object) -> str:
    labels = (replicated_job["template"].get("metadata") or {}).get("labels") or {}
    return str(labels.get(ANCESTOR_LABEL, ""))


def check_types(kind: Kind, runtime: Object) -> None:
    for index, job in enumerate(_jobs(runtime)):
        typed(kind, JOB_SPEC, job["template"], path=f"spec.template.spec.replicatedJobs[{index}].template.spec")


def _jobs(runtime: Object) -> list[Object]:
    template = runtime["spec"].get("template") or {}
    found: list[Object] = (template.get("spec") or {}).get("replicatedJobs") or []
    return found


def check_runtime(kind: Kind, runtime: Object) -> None:
    webhook = f"validator.{kind.singular}.trainer.kubeflow.org"
    policy = (runtime.get("spec") or {}).get("mlPolicy") or {}
    given = [name for name in _SOURCES if policy.get(name) is not None]
    if len(given) > 1:
        text = 'Invalid value: "object": Only one of the policy can be configured'
        raise invalid(kind, runtime["metadata"]["name"], [Cause("spec.mlPolicy", text)])
    errors = FieldErrors()
    for index, job in enumerate(_jobs(runtime)):
        _check_job(f"spec.template.spec.replicatedJobs[{index}]", job, errors)
    if errors:
        raise forbidden(f'admission webhook "{webhook}" denied the request: {errors}')
    if given and given[0] not in _RUNS:
        raise denied_by_webhook(webhook, f"mlPolicy.{given[0]} is not supported here, only torch and none")


def _check_job(path: str, job: Object, errors: FieldErrors) -> None:
    container = CONTAINER_OF.get(ancestor_of(job))
    if container is None:
        return
    if job["replicas"] != 1:
        errors.invalid(f"{path}.replicas", job["replicas"], "always must be 1")
    containers = job["template"]["spec"]["template"]["spec"].get("containers") or []
    if all(one.get("name") != container for one in containers):
        text = f"must contain the required container for the ancestor: {ancestor_of(job)}"
        errors.invalid(f"{path}.template.spec.template.spec.containers", containers, text)
