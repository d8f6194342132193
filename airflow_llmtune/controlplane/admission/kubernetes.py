"""What the API server fills into Pods and Jobs, and refuses."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.admission.job import (
    choice_causes,
    default_job_spec,
    job_name_causes,
    job_spec_causes,
    job_update_causes,
)
from airflow_llmtune.controlplane.admission.job_struct import JOB_SPEC
from airflow_llmtune.controlplane.admission.pod_spec import pod_spec_causes, typed, typed_pod_spec
from airflow_llmtune.controlplane.admission.probes import default_probes
from airflow_llmtune.controlplane.apiserver.errors import Cause, invalid
from airflow_llmtune.controlplane.apiserver.kinds import JOB, POD, Kind
from airflow_llmtune.controlplane.apiserver.metadata import label_causes

Object = dict[str, Any]


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
        default_probes(container)


def _pull_policy(image: str) -> str:
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in {"", "latest"} and "@" not in image else "IfNotPresent"


def default_pod(pod: Object) -> None:
    """Which node it runs on is for the scheduler to say."""
    default_pod_spec(pod["spec"])
    for container in [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]:
        limits = container["resources"].get("limits")
        if limits:  # What is limited is asked for.
            container["resources"]["requests"] = {**limits, **(container["resources"].get("requests") or {})}
    pod["status"] = {"phase": "Pending", "qosClass": _qos_class(pod["spec"])}


def _qos_class(spec: Object) -> str:
    resources = [container.get("resources") or {} for container in spec["containers"]]
    if all(not one.get("limits") and not one.get("requests") for one in resources):
        return "BestEffort"
    pairs = [(one.get("limits") or {}, one.get("requests") or one.get("limits") or {}) for one in resources]
    guaranteed = all(limits == requests and {"cpu", "memory"} <= limits.keys() for limits, requests in pairs)
    return "Guaranteed" if guaranteed else "Burstable"


def admit_job(job: Object) -> None:
    """Defaults come first: the rules are for what they make of it."""
    spec = job["spec"] = typed(JOB, JOB_SPEC, job)
    default_job_spec(spec)
    template = spec.setdefault("template", {})
    default_pod_spec(template.setdefault("spec", {}), restart_policy=None)
    _add_selector(job)
    labels = label_causes("spec.template.labels", template["metadata"]["labels"])
    _raise(JOB, job, [*job_name_causes(job["metadata"]["name"], spec), *_job_causes(spec), *labels])


def _add_selector(job: Object) -> None:
    spec, uid = job["spec"], job["metadata"]["uid"]
    labels = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": job["metadata"]["name"],
        "controller-uid": uid,
        "job-name": job["metadata"]["name"],
    }
    spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
    metadata = spec["template"].setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}


def check_pod(pod: Object) -> None:
    spec = pod["spec"] = typed_pod_spec(POD, pod)
    policies = choice_causes("spec.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never"))
    _raise(POD, pod, [*pod_spec_causes("spec", spec), *policies])


def check_job_update(job: Object, old: Object) -> None:
    if "deletionTimestamp" in job["metadata"]:
        return  # Only finalizers change now.
    spec = job["spec"] = typed(JOB, JOB_SPEC, job)
    default_job_spec(spec)
    default_pod_spec(spec.setdefault("template", {}).setdefault("spec", {}), restart_policy=None)
    changes = job_update_causes(spec, old["spec"], old.get("status", {}))
    _raise(JOB, job, [*_job_causes(spec), *changes])


def _job_causes(spec: Object) -> list[Cause]:
    return [*pod_spec_causes("spec.template.spec", spec["template"]["spec"]), *job_spec_causes("spec", spec)]


def _raise(kind: Kind, obj: Object, causes: list[Cause]) -> None:
    if causes:
        raise invalid(kind, obj["metadata"]["name"], causes)
