"""JobSet's webhooks: defaults and rules of ``jobset.x-k8s.io/v1alpha2``."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from airflow_llmtune.controlplane.admission.field_errors import FieldErrors
from airflow_llmtune.controlplane.admission.job import default_job_spec, job_spec_causes
from airflow_llmtune.controlplane.admission.job_struct import JOB_SPEC
from airflow_llmtune.controlplane.admission.pod_spec import pod_spec_causes, typed
from airflow_llmtune.controlplane.admission.pytorch_job import DNS_1035_LABEL
from airflow_llmtune.controlplane.apiserver.errors import Cause, denied_by_webhook, forbidden, invalid
from airflow_llmtune.controlplane.apiserver.kinds import JOB_SET

Object = dict[str, Any]

_WEBHOOK = "vjobset.kb.io"
_LONGEST_LABEL = 63
_FIXED = ("network", "successPolicy", "failurePolicy", "startupPolicy")


def default_job_set(job_set: Object) -> None:
    spec = job_set["spec"]
    spec.setdefault("successPolicy", {"operator": "All"})
    spec.setdefault("startupPolicy", {"startupPolicyOrder": "AnyOrder"})
    for job in spec.get("replicatedJobs") or ():
        job["template"]["spec"].setdefault("completionMode", "Indexed")
        job["template"]["spec"]["template"]["spec"].setdefault("restartPolicy", "OnFailure")
    network = spec.setdefault("network", {})
    network.setdefault("enableDNSHostnames", True)
    network.setdefault("publishNotReadyAddresses", True)
    for number, rule in enumerate((spec.get("failurePolicy") or {}).get("rules") or ()):
        rule.setdefault("name", f"failurePolicyRule{number}")


def check_job_set(job_set: Object) -> None:
    """The jobs inside are made later, by a controller that nobody hears when they are refused."""
    name, spec = job_set["metadata"]["name"], job_set["spec"]
    complaints: list[str] = []
    jobs = spec.get("replicatedJobs") or []
    if jobs and "dependsOn" in jobs[0]:
        complaints.append("DependsOn can't be set for the first ReplicatedJob")
    known: set[str] = set()
    for index, job in enumerate(jobs):
        known.add(job["name"])
        complaints += _name_complaints(f"spec.replicatedJobs[{index}].name", name, job)
        complaints += [
            f"replicatedJob: {job['name']} cannot depend on replicatedJob: {one['name']}"
            for one in job.get("dependsOn") or ()
            if one["name"] not in known
        ]
    complaints += _unknown(spec["successPolicy"].get("targetReplicatedJobs"), known)
    for rule in (spec.get("failurePolicy") or {}).get("rules") or ():
        complaints += _unknown(rule.get("targetReplicatedJobs"), known)
    if complaints:
        raise forbidden(f'admission webhook "{_WEBHOOK}" denied the request: {"; ".join(complaints)}')
    _check_unsupported(spec)
    causes = [cause for index, job in enumerate(jobs) for cause in _job_causes(index, job)]
    if causes:
        raise invalid(JOB_SET, name, causes)


def check_job_set_update(job_set: Object, old: Object) -> None:
    spec, before = job_set["spec"], old["spec"]
    causes = [
        Cause(f"spec.{name}", 'Invalid value: "object": Value is immutable')
        for name in _FIXED
        if name in spec and name in before and spec[name] != before[name]
    ]
    loose = bool(spec.get("suspend") or before.get("suspend"))
    if _jobs(spec, loose) != _jobs(before, loose):
        causes.append(Cause("spec.replicatedJobs", "Invalid value: []: field is immutable"))
    if spec.get("managedBy") != before.get("managedBy"):
        causes.append(Cause("spec.managedBy", f'Invalid value: "{spec.get("managedBy")}": field is immutable'))
    if causes:
        raise invalid(JOB_SET, job_set["metadata"]["name"], causes)


def _jobs(spec: Object, loose: bool) -> list[Object]:
    """What may not change; while a JobSet is suspended a queue may decide where its pods run."""
    jobs: list[Object] = copy.deepcopy(spec.get("replicatedJobs") or [])
    for job in jobs if loose else ():
        template = job["template"]["spec"]["template"]
        for name in ("labels", "annotations"):
            (template.get("metadata") or {}).pop(name, None)
        if not template.get("metadata"):
            template.pop("metadata", None)
        for name in ("nodeSelector", "tolerations", "schedulingGates"):
            template["spec"].pop(name, None)
    return jobs


def _name_complaints(path: str, job_set: str, job: Object) -> list[str]:
    """The longest names that its Jobs and pods will have."""
    errors = FieldErrors()
    replicas, spec = job["replicas"], job["template"]["spec"]
    longest = f"{job_set}-{job['name']}-{replicas - 1}"
    if len(longest) > _LONGEST_LABEL:
        text = "JobSet name is too long, job names generated for this JobSet will exceed 63 characters"
        errors.invalid(path, longest, text)
    elif not DNS_1035_LABEL.fullmatch(longest):
        errors.invalid(path, longest, "a DNS-1035 label must start with a letter and hold no dots")
    elif spec.get("completionMode") == "Indexed" and len(_longest_pod_name(longest, spec)) > _LONGEST_LABEL:
        text = "JobSet name is too long, pod names generated for this JobSet will exceed 63 characters"
        errors.invalid(path, longest, text)
    return [str(errors)] if errors else []


def _longest_pod_name(job: str, spec: Object) -> str:
    return f"{job}-{spec['completions'] - 1}-abcde" if "completions" in spec else job


def _unknown(names: Iterable[str] | None, known: set[str]) -> list[str]:
    tail = "does not appear in .spec.ReplicatedJobs"
    return [f"invalid replicatedJob name '{name}' {tail}" for name in names or () if name not in known]


def _check_unsupported(spec: Object) -> None:
    if spec.get("volumeClaimPolicies"):
        raise denied_by_webhook(_WEBHOOK, "spec.volumeClaimPolicies is not supported here")
    strategy = (spec.get("failurePolicy") or {}).get("restartStrategy")
    actions = {rule["action"] for rule in (spec.get("failurePolicy") or {}).get("rules") or ()}
    if strategy == "InPlaceRestart" or actions & {"RestartJob", "RestartJobAndIgnoreMaxRestarts"}:
        raise denied_by_webhook(_WEBHOOK, "restarting single Jobs or restarting in place is not supported here")


def _job_causes(index: int, job: Object) -> list[Cause]:
    path = f"spec.replicatedJobs[{index}].template.spec"
    spec = typed(JOB_SET, JOB_SPEC, job["template"], path=path)
    default_job_spec(spec)
    return [*pod_spec_causes(f"{path}.template.spec", spec["template"]["spec"]), *job_spec_causes(path, spec)]
