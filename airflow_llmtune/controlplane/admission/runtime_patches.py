"""The trainer's rules for ``spec.runtimePatches`` of a TrainJob. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_llmtune.controlplane.admission.field_errors import FieldErrors
from airflow_llmtune.controlplane.admission.training_runtime import CONTAINER_OF

Object = dict[str, Any]

_PATH = "spec.runtimePatches"
_MANAGER = re.compile(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
)
_OWN = frozenset(CONTAINER_OF.values())


def check_patches(
    spec: Object, before: Object | None, jobs: Mapping[str, Object], job_set: Object | None, errors: FieldErrors
) -> None:
    """``jobs``: the runtime's replicated jobs by name; ``before`` is the spec that an update replaces."""
    patches = spec.get("runtimePatches") or []
    if before is not None and patches != (before.get("runtimePatches") or []):
        _check_change(spec, before, job_set, errors)
    for patch in patches:
        if not _MANAGER.fullmatch(patch["manager"]):
            text = 'must be a domain-prefixed path (such as "acme.io/foo")'
            errors.invalid(f"{_PATH}.manager", patch["manager"], text)
        for job in replicated_jobs(patch):
            for text in _complaints(job, jobs.get(job["name"])):
                errors.invalid(_PATH, patches, text)


def replicated_jobs(patch: Object) -> list[Object]:
    template = (patch.get("trainingRuntimeSpec") or {}).get("template") or {}
    found: list[Object] = (template.get("spec") or {}).get("replicatedJobs") or []
    return found


def container_names(replicated_job: Object) -> set[str]:
    pod = replicated_job["template"]["spec"]["template"]["spec"]
    return {one["name"] for field in ("initContainers", "containers") for one in pod.get(field) or ()}


def _check_change(spec: Object, before: Object, job_set: Object | None, errors: FieldErrors) -> None:
    if not spec.get("suspend") and not before.get("suspend"):
        text = "RuntimePatches can only be modified when the TrainJob is suspended before or after the update"
        errors.forbidden(_PATH, text)
        return
    for one in ((job_set or {}).get("status") or {}).get("replicatedJobsStatus", ()):
        if one.get("active"):
            text = "RuntimePatches cannot be modified when the JobSet's ReplicatedJob"
            errors.forbidden(_PATH, f"{text} {one['name']} is still active")


def _complaints(patch: Object, job: Object | None) -> Iterable[str]:
    if job is None:
        yield "must not have replicated job that doesn't exist in the runtime job template"
        return
    known = container_names(job)
    changed = (((patch.get("template") or {}).get("spec") or {}).get("template") or {}).get("spec") or {}
    tail = f"that doesn't exist in the runtime job {patch['name']}"
    for container in changed.get("initContainers") or ():
        if container["name"] not in known:
            yield f"must not have initContainer {tail}"
    for container in changed.get("containers") or ():
        if container["name"] not in known:
            yield f"must not have container {tail}"
        elif container.get("env") and container["name"] in _OWN:
            yield "must not have envs for the dataset-initializer, model-initializer, node containers"
