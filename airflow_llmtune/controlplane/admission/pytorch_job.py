"""The training operator's webhook for PyTorchJobs. What the operator fills in is its controller's affair: no default
but ``suspend`` is ever stored.
"""

from __future__ import annotations

import re
from typing import Any

from airflow_llmtune.controlplane.admission.field_errors import FieldErrors
from airflow_llmtune.controlplane.admission.pod_spec import pod_spec_causes, typed_pod_spec
from airflow_llmtune.controlplane.apiserver.errors import forbidden, invalid
from airflow_llmtune.controlplane.apiserver.kinds import PYTORCH_JOB

Object = dict[str, Any]

DNS_1035_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_WEBHOOK = "validator.pytorchjob.training-operator.kubeflow.org"
_LONGEST_NAME = 63
_TYPES = ("Master", "Worker")
_MANAGERS = ("kubeflow.org/training-operator", "kueue.x-k8s.io/multikueue")


def check_pytorch_job(job: Object) -> None:
    """The webhook's answer is a 403, as controller-runtime gives it."""
    errors = FieldErrors()
    spec = job.get("spec") or {}
    for text in dns_1035_complaints(job["metadata"]["name"]):
        errors.invalid("metadata.name", job["metadata"]["name"], f"should match: {text}")
    manager = (spec.get("runPolicy") or {}).get("managedBy")
    if manager is not None and manager not in _MANAGERS:
        errors.unsupported("spec.runPolicy.managedBy", manager, _MANAGERS)
    replicas = spec.get("pytorchReplicaSpecs") or {}
    _check_elastic(spec, replicas, errors)
    if not replicas:
        errors.required("spec.pytorchReplicaSpecs", "must be required")
    for type_, replica in replicas.items():
        _check_replica(f"spec.pytorchReplicaSpecs[{type_}]", type_, replica, errors)
    if errors:
        raise forbidden(f'admission webhook "{_WEBHOOK}" denied the request: {errors}')
    _check_pods(job, replicas)


def dns_1035_complaints(name: str) -> list[str]:
    complaints = []
    if len(name) > _LONGEST_NAME:
        complaints.append(f"must be no more than {_LONGEST_NAME} characters")
    if not DNS_1035_LABEL.fullmatch(name):
        complaints.append(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
            "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
            f"validation is '{DNS_1035_LABEL.pattern}')"
        )
    return complaints


def _check_pods(job: Object, replicas: Object) -> None:
    """The pods are made of these later, by a controller that nobody hears when they are refused."""
    causes = []
    for type_, replica in replicas.items():
        spec = typed_pod_spec(PYTORCH_JOB, replica["template"])
        causes += pod_spec_causes(f"spec.pytorchReplicaSpecs[{type_}].template.spec", spec)
    if causes:
        raise invalid(PYTORCH_JOB, job["metadata"]["name"], causes)


def _check_elastic(spec: Object, replicas: Object, errors: FieldErrors) -> None:
    policy = spec.get("elasticPolicy")
    if policy is None:
        return
    if "Worker" not in replicas:
        errors.required("spec.pytorchReplicaSpecs[Worker]", "must be configured if elastic policy is used")
    if policy.get("nProcPerNode") is not None and spec.get("nprocPerNode") is not None:
        errors.forbidden("spec.elasticPolicy.nProcPerNode", "must not be used with spec.nprocPerNode")


def _check_replica(path: str, type_: str, replica: Object, errors: FieldErrors) -> None:
    if type_ not in _TYPES:
        errors.unsupported(path, type_, _TYPES)
    containers = ((replica.get("template") or {}).get("spec") or {}).get("containers") or []
    where = f"{path}.template.spec.containers"
    if not containers:
        errors.required(where, "must be specified")
    for index, container in enumerate(containers):
        if not container.get("image"):
            errors.required(f"{where}[{index}].image", "must be required")
    if all(container.get("name") != "pytorch" for container in containers):
        errors.required(where, "must have at least one container with name pytorch")
    count = replica.get("replicas")
    if type_ == "Master" and count != 1:
        errors.forbidden(f"{path}.replicas", "must be 1")
    elif type_ != "Master" and count is not None and count < 1:
        errors.forbidden(f"{path}.replicas", "must be at least 1")
