"""The definition's and the trainer's rules for TrainJobs (v2.3), with their texts.

A mistake against the definition is answered with 422, one that the webhook finds with 403.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

from airflow_llmtune.controlplane.admission.field_errors import FieldErrors
from airflow_llmtune.controlplane.admission.runtime_patches import check_patches, container_names
from airflow_llmtune.controlplane.admission.training_runtime import CONTAINER_OF
from airflow_llmtune.controlplane.apiserver.errors import Cause, denied_by_webhook, forbidden, invalid
from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_TRAINING_RUNTIME,
    JOB_SET,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    Kind,
)

Object = dict[str, Any]
FindObject = Callable[[Kind, str, str], Object | None]

CONTROLLER_NAME = "trainer.kubeflow.org/trainjob-controller"
RESERVED = ("PET_MASTER_ADDR", "PET_MASTER_PORT", "PET_NNODES", "PET_NODE_RANK", "PET_NPROC_PER_NODE")

_WEBHOOK = "validator.trainjob.trainer.kubeflow.org"
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.+", re.DOTALL)
_LONGEST_NAME = 63
_TORCHTUNE = ["tune", "run"]
_IMMUTABLE = ("runtimeRef", "initializer", "trainer", "activeDeadlineSeconds", "managedBy")
_MANAGERS = (CONTROLLER_NAME, "kueue.x-k8s.io/multikueue")


def runtime_kind(reference: Object) -> Kind | None:
    if reference.get("apiGroup") != TRAIN_JOB.group:
        return None
    kinds = {kind.name: kind for kind in (TRAINING_RUNTIME, CLUSTER_TRAINING_RUNTIME)}
    return kinds.get(reference.get("kind", ""))


def stamp_patches(job: Object, old: Object | None, now: str) -> None:
    """Each patch tells when it was last changed."""
    spec = job["spec"]
    before = {patch["manager"]: patch for patch in ((old or {}).get("spec") or {}).get("runtimePatches") or ()}
    for patch in spec.get("runtimePatches") or ():
        known = before.get(patch["manager"])
        if known is not None:
            same = _without_time(known) == _without_time(patch)
            patch["time"] = known.get("time", now) if same else now
        patch.setdefault("time", now)


def check_train_job(job: Object, old: Object | None, find: FindObject) -> None:
    causes = [*_definition_causes(job), *_immutability_causes(job["spec"], (old or {}).get("spec") or {})]
    if causes:
        raise invalid(TRAIN_JOB, job["metadata"]["name"], causes)
    if ((job["spec"].get("trainer") or {}).get("command") or [])[:2] == _TORCHTUNE:
        raise denied_by_webhook(_WEBHOOK, "torchtune is not supported here: its runtimes are not shipped")
    errors = FieldErrors()
    complaint = _check_against_runtime(job, old, find, errors)
    if complaint or errors:
        raise forbidden(f'admission webhook "{_WEBHOOK}" denied the request: {complaint or errors}')


def _definition_causes(job: Object) -> list[Cause]:
    """The rules that the definition holds in CEL; they do not show the value."""
    name, spec = job["metadata"]["name"], job["spec"]
    broken = []
    if not _NAME.fullmatch(name):
        broken.append(("<nil>", "object", "metadata.name must match RFC 1035 DNS label format"))
    if len(name) > _LONGEST_NAME:
        broken.append(("<nil>", "object", "metadata.name must be no more than 63 characters"))
    for step in ("dataset", "model"):
        uri = ((spec.get("initializer") or {}).get(step) or {}).get("storageUri", "")
        if uri and not _URI.fullmatch(uri):
            text = "storageUri may be empty, or it must be a valid URI (scheme://...)"
            broken.append((f"spec.initializer.{step}.storageUri", "string", text))
    if spec["managedBy"] not in _MANAGERS:
        text = f"ManagedBy must be {_MANAGERS[0]} or {_MANAGERS[1]} if set"
        broken.append(("spec.managedBy", "string", text))
    return [Cause(path, f'Invalid value: "{type_}": {text}') for path, type_, text in broken]


def _immutability_causes(spec: Object, before: Object) -> list[Cause]:
    """A rule of CEL looks at a field only when it is there before and after."""
    words = {"activeDeadlineSeconds": "integer", "managedBy": "string"}
    return [
        Cause(f"spec.{name}", f'Invalid value: "{words.get(name, "object")}": field is immutable')
        for name in _IMMUTABLE
        if name in spec and name in before and spec[name] != before[name]
    ]


def _check_against_runtime(job: Object, old: Object | None, find: FindObject, errors: FieldErrors) -> str:
    """What makes all other checks pointless, as text; the rest is added to ``errors``."""
    reference, namespace = job["spec"]["runtimeRef"], job["metadata"]["namespace"]
    kind = runtime_kind(reference)
    if kind is None:
        return f"unsupported runtime: {reference['kind']}.{reference['apiGroup']}"
    runtime = find(kind, namespace, reference["name"])
    if runtime is None:
        word = kind.name[0].lower() + kind.name[1:]
        path = "spec.runtimeRef" if kind == TRAINING_RUNTIME else "spec.RuntimeRef"
        absent = f'{kind.name}.{kind.group} "{reference["name"]}" not found'
        errors.invalid(path, reference, f"{absent}: specified {word} must be created before the TrainJob is created")
        return ""
    spec = (runtime.get("spec") or {}).get("template", {}).get("spec") or {}
    jobs = {one["name"]: one for one in spec.get("replicatedJobs") or ()}
    _check_initializers(job["spec"], jobs, errors)
    job_set = None if old is None else find(JOB_SET, namespace, job["metadata"]["name"])
    check_patches(job["spec"], None if old is None else old["spec"], jobs, job_set, errors)
    torch = ((runtime.get("spec") or {}).get("mlPolicy") or {}).get("torch")
    if torch is not None:
        _check_targets(torch, jobs, errors)
        _check_reserved(job["spec"], errors)
    return ""


def _check_initializers(spec: Object, jobs: dict[str, Object], errors: FieldErrors) -> None:
    for step in ("dataset", "model"):
        if ((spec.get("initializer") or {}).get(step)) is None:
            continue
        name = CONTAINER_OF[f"{step}-initializer"]
        detail = _initializer_complaint(name, step, jobs.get(name))
        if detail:
            errors.invalid("spec.runtimeRef", spec["runtimeRef"], detail)


def _initializer_complaint(name: str, step: str, job: Object | None) -> str:
    if job is None:
        return f"must have {name} job when trainJob is configured with input {step}Config"
    pod = job["template"]["spec"]["template"]["spec"]
    container = next((one for one in pod.get("containers") or () if one["name"] == name), None)
    if container is None:
        return f"must have container with name - {name} in the {name} job"
    if all(mount.get("name") != "initializer" for mount in container.get("volumeMounts") or ()):
        return f"must have volumeMount with name - initializer in container {name} of the {name} job"
    return ""


def _check_targets(torch: Object, jobs: dict[str, Object], errors: FieldErrors) -> None:
    """The containers beside the trainer's that the runtime wants torch's variables in."""
    for target in (torch.get("envInjection") or {}).get("targets") or ():
        job = jobs.get(target["jobName"])
        known = [] if job is None else container_names(job)
        for name in target["containerNames"]:
            if name not in known:
                shown = f'podSet "{target["jobName"]}" container "{name}"'
                errors.invalid("spec.runtimeRef", target, f"envInjection target {shown} not found in runtime template")


def _check_reserved(spec: Object, errors: FieldErrors) -> None:
    env = (spec.get("trainer") or {}).get("env") or []
    taken = sorted({variable["name"] for variable in env} & set(RESERVED))
    if taken:
        shown = " ".join(taken)
        errors.invalid("spec.trainer.env", env, f"must not have reserved envs, invalid envs configured: [{shown}]")


def _without_time(patch: Object) -> Object:
    return {key: value for key, value in copy.deepcopy(patch).items() if key != "time"}
