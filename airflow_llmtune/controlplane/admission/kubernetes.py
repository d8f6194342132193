"""What the API server and the training operator's webhooks fill into Pods, Jobs and PyTorchJobs, and refuse."""

from __future__ import annotations

import re
from typing import Any

from airflow_llmtune.controlplane.admission.field_errors import FieldErrors
from airflow_llmtune.controlplane.admission.job_struct import JOB_SPEC
from airflow_llmtune.controlplane.admission.pod_spec import pod_spec_causes, typed, typed_pod_spec
from airflow_llmtune.controlplane.apiserver.errors import (
    Cause,
    forbidden,
    invalid,
    invalid_value,
    required_value,
)
from airflow_llmtune.controlplane.apiserver.kinds import JOB, POD, PYTORCH_JOB, Kind

Object = dict[str, Any]

NODE_NAME = "llmtune-node"

_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_PYTORCH_WEBHOOK = "validator.pytorchjob.training-operator.kubeflow.org"
_LONGEST_NAME = 63


def default_pod_spec(spec: Object, *, restart_policy: str | None = "Always") -> None:
    if restart_policy is not None:
        spec.setdefault("restartPolicy", restart_policy)
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("imagePullPolicy", _pull_policy(container.get("image", "")))


def _pull_policy(image: str) -> str:
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in {"", "latest"} and "@" not in image else "IfNotPresent"


def default_pod(pod: Object) -> None:
    """There is one node and it always has room, so a pod is bound to it at once."""
    default_pod_spec(pod["spec"])
    pod["spec"]["nodeName"] = NODE_NAME
    pod["status"] = {"phase": "Pending", "qosClass": _qos_class(pod["spec"])}


def _qos_class(spec: Object) -> str:
    resources = [container.get("resources") or {} for container in spec["containers"]]
    if all(not one.get("limits") and not one.get("requests") for one in resources):
        return "BestEffort"
    pairs = [(one.get("limits") or {}, one.get("requests") or one.get("limits") or {}) for one in resources]
    guaranteed = all(limits == requests and {"cpu", "memory"} <= limits.keys() for limits, requests in pairs)
    return "Guaranteed" if guaranteed else "Burstable"


def default_job(job: Object) -> None:
    spec = job["spec"]
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    defaults = {
        "parallelism": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "podReplacementPolicy": "TerminatingOrFailed",
    }
    for name, value in defaults.items():
        spec.setdefault(name, value)
    uid = job["metadata"]["uid"]
    labels = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": job["metadata"]["name"],
        "controller-uid": uid,
        "job-name": job["metadata"]["name"],
    }
    spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
    metadata = spec["template"].setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    default_pod_spec(spec["template"]["spec"], restart_policy=None)


def check_pod(pod: Object) -> None:
    pod["spec"] = typed_pod_spec(POD, pod)
    _raise(POD, pod, pod_spec_causes("spec", pod["spec"]))


def check_job(job: Object) -> None:
    path = "spec.template.spec"
    job["spec"] = typed(JOB, JOB_SPEC, job)
    pod_spec = job["spec"].get("template", {}).get("spec", {})
    causes = pod_spec_causes(path, pod_spec)
    policy = pod_spec.get("restartPolicy")
    choices = '"OnFailure", "Never"'
    if policy is None:
        causes.append(required_value(f"{path}.restartPolicy", f"valid values: {choices}"))
    elif policy not in {"OnFailure", "Never"}:
        message = f'Unsupported value: "{policy}": supported values: {choices}'
        causes.append(Cause(f"{path}.restartPolicy", message, "FieldValueNotSupported"))
    for name in ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        value = job["spec"].get(name, 0)
        if value < 0:
            causes.append(invalid_value(f"spec.{name}", value, "must be greater than or equal to 0"))
    _raise(JOB, job, causes)


def _raise(kind: Kind, obj: Object, causes: list[Cause]) -> None:
    if causes:
        raise invalid(kind, obj["metadata"]["name"], causes)


def default_pytorch_job(job: Object) -> None:
    """Upstream also adds port 23456 to the ``pytorch`` container; here the controller picks a free one."""
    spec = job["spec"]
    policy = spec.setdefault("runPolicy", {})
    policy.setdefault("cleanPodPolicy", "None")
    policy.setdefault("suspend", False)
    if "nProcPerNode" not in (spec.get("elasticPolicy") or {}):
        spec.setdefault("nprocPerNode", "auto")
    for type_, replica in (spec.get("pytorchReplicaSpecs") or {}).items():
        if type_ != "Master":
            replica.setdefault("replicas", 1)
        replica.setdefault("restartPolicy", "OnFailure")


def check_pytorch_job(job: Object) -> None:
    """The webhook's answer is a 403, as controller-runtime gives it."""
    errors = FieldErrors()
    name, spec = job["metadata"]["name"], job.get("spec") or {}
    if not _DNS_LABEL.fullmatch(name) or len(name) > _LONGEST_NAME:
        errors.invalid("metadata.name", name, "a DNS-1035 label must start with a letter and have no dots")
    replicas = spec.get("pytorchReplicaSpecs") or {}
    path = "spec.pytorchReplicaSpecs"
    if not replicas:
        errors.required(path, "must be specified")
    for type_, replica in replicas.items():
        _check_replica(f"{path}[{type_}]", type_, replica, errors)
    if spec.get("elasticPolicy") and "Worker" not in replicas:
        errors.required(f"{path}[Worker]", "must be configured if elastic policy is used")
    if errors:
        raise forbidden(f'admission webhook "{_PYTORCH_WEBHOOK}" denied the request: {errors}')
    # The pods are made of these later, by a controller that nobody hears when they are refused.
    templates = {type_: typed_pod_spec(PYTORCH_JOB, replica["template"]) for type_, replica in replicas.items()}
    found = [pod_spec_causes(f"{path}[{type_}].template.spec", spec) for type_, spec in templates.items()]
    _raise(PYTORCH_JOB, job, [cause for causes in found for cause in causes])


def _check_replica(path: str, type_: str, replica: Object, errors: FieldErrors) -> None:
    if type_ not in {"Master", "Worker"}:
        errors.invalid(path, type_, "must be one of [Master Worker]")
    if type_ == "Master" and replica.get("replicas") != 1:
        errors.invalid(f"{path}.replicas", replica.get("replicas"), "must be 1")
    containers = (replica.get("template") or {}).get("spec", {}).get("containers") or []
    for index, container in enumerate(containers):
        if not container.get("image"):
            errors.required(f"{path}.template.spec.containers[{index}].image", "must be required")
    if all(container.get("name") != "pytorch" for container in containers):
        errors.required(f"{path}.template.spec.containers", "must have at least one container with name pytorch")
