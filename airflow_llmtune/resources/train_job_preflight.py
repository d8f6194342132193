"""Preflight of any TrainJob manifest: what its definition and the trainer's webhook would refuse, all at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_llmtune.resources.header import check_header
from airflow_llmtune.resources.meta import path
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.shape import has_shape
from airflow_llmtune.resources.train_job import KIND, RUNTIME_KINDS, check_reserved

__all__ = ["check_manifest"]

_MAX_NAME_LENGTH = 63
_MANAGED_BY = ("trainer.kubeflow.org/trainjob-controller", "kueue.x-k8s.io/multikueue")
# The texts that 2.0 and 2.1 take instead of a number; the API server of a later version refuses them.
_PROCESSES = ("auto", "cpu", "gpu")
# Their environment has fields of its own in the spec.
_OWN_CONTAINERS = ("node", "dataset-initializer", "model-initializer")
_URI = r"(?s)[A-Za-z][A-Za-z0-9+.-]*://.+"
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_MANAGER = rf"{_LABEL}(\.{_LABEL})*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"

# Types of the fields that are looked at below.
_ENV = [{"name": str, "value": str, "valueFrom": dict}]
_INITIALIZER = {"storageUri": str, "env": _ENV, "secretRef": {"name": str}}
_POD_SPEC = {"containers": [{"name": str, "env": _ENV}], "initContainers": [{"name": str, "env": _ENV}]}
_POD_TEMPLATE = {"spec": _POD_SPEC}
_REPLICATED_JOBS = [{"name": str, "template": {"spec": {"template": _POD_TEMPLATE}}}]
_TARGETS = [{"name": str}]
_SHAPES: Mapping[str, Any] = {
    "runtimeRef": {"name": str, "apiGroup": str, "kind": str},
    "trainer": {
        "image": str,
        "command": [str],
        "args": [str],
        "env": _ENV,
        "numNodes": int,
        "resourcesPerNode": {"requests": dict, "limits": dict},
    },
    "initializer": {"dataset": _INITIALIZER, "model": _INITIALIZER},
    "runtimePatches": [
        {"manager": str, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": _REPLICATED_JOBS}}}}
    ],
    "podTemplateOverrides": [{"targetJobs": _TARGETS, "spec": _POD_SPEC}],
    "podSpecOverrides": [{"targetJobs": _TARGETS, **_POD_SPEC}],
    "activeDeadlineSeconds": int,
    "managedBy": str,
}


def check_manifest(manifest: Any, problems: Problems) -> None:
    """``metadata.name`` may be missing."""
    spec = path(manifest, "spec")
    if not isinstance(spec, Mapping):
        problems.add("spec", spec, "is missing", f"give a whole {KIND.kind} manifest")
        return
    check_header(manifest, KIND, _MAX_NAME_LENGTH, problems)
    sound = {
        name: spec.get(name)
        for name, shape in _SHAPES.items()
        if has_shape(f"spec.{name}", spec.get(name), shape, problems)
    }
    if "runtimeRef" in sound:
        _check_runtime(sound["runtimeRef"] or {}, problems)
    _check_trainer(sound.get("trainer") or {}, problems)
    _check_initializer(sound.get("initializer") or {}, problems)
    _check_managers(sound.get("runtimePatches") or [], problems)
    _check_pod_changes(sound, problems)
    if (deadline := sound.get("activeDeadlineSeconds")) is not None:
        problems.integer("spec.activeDeadlineSeconds", deadline, at_least=1)
    if (manager := sound.get("managedBy")) is not None:
        problems.choice("spec.managedBy", manager, _MANAGED_BY)


def _check_runtime(reference: Mapping[str, Any], problems: Problems) -> None:
    if not reference.get("name"):
        fix = "name a runtime of the cluster, such as torch-distributed"
        problems.add("spec.runtimeRef.name", reference.get("name"), "is missing", fix)
    if (group := reference.get("apiGroup")) is not None:
        problems.choice("spec.runtimeRef.apiGroup", group, [KIND.group])
    if (kind := reference.get("kind")) is not None:
        problems.choice("spec.runtimeRef.kind", kind, RUNTIME_KINDS)


def _check_trainer(trainer: Mapping[str, Any], problems: Problems) -> None:
    if (nodes := trainer.get("numNodes")) is not None:
        problems.integer("spec.trainer.numNodes", nodes, at_least=1)
    where, processes = "spec.trainer.numProcPerNode", trainer.get("numProcPerNode")
    if processes is not None and processes not in _PROCESSES and has_shape(where, processes, int, problems):
        problems.integer(where, processes, at_least=1)
    env = trainer.get("env") or []
    _check_names("spec.trainer.env", env, "name the variable", problems)
    check_reserved("spec.trainer.env", (entry.get("name") or "" for entry in env), problems)


def _check_initializer(initializer: Mapping[str, Any], problems: Problems) -> None:
    for step in ("dataset", "model"):
        given, where = initializer.get(step) or {}, f"spec.initializer.{step}"
        uri = given.get("storageUri")
        if uri and not re.fullmatch(_URI, uri):
            problems.add(f"{where}.storageUri", uri, "is no URI", "give such as hf://org/name or s3://bucket/prefix")
        if given.get("secretRef") is not None and not given["secretRef"].get("name"):
            problems.add(f"{where}.secretRef.name", None, "is missing", "name a Secret, or leave secretRef out")
        _check_names(f"{where}.env", given.get("env") or [], "name the variable", problems)


def _check_names(where: str, entries: Sequence[Mapping[str, Any]], fix: str, problems: Problems) -> None:
    """Kubernetes tells the entries of such a list apart by their names."""
    seen = set()
    for index, entry in enumerate(entries):
        name = entry.get("name")
        if not name:
            problems.add(f"{where}[{index}].name", name, "is missing", fix)
        elif name in seen:
            problems.add(f"{where}[{index}].name", name, "is there twice", "leave one of the two out")
        seen.add(name)


def _check_managers(patches: Sequence[Mapping[str, Any]], problems: Problems) -> None:
    seen = set()
    for index, patch in enumerate(patches):
        where, manager = f"spec.runtimePatches[{index}].manager", patch.get("manager") or ""
        if not re.fullmatch(_MANAGER, manager):
            problems.add(where, manager, "is no path behind a domain", "give such as example.com/my-dag")
        elif manager in seen:
            problems.add(where, manager, "is there twice", "put both patches into one")
        seen.add(manager)


def _check_pod_changes(spec: Mapping[str, Any], problems: Problems) -> None:
    """Whichever version of Kubeflow Trainer the manifest is for."""
    for index, patch in enumerate(spec.get("runtimePatches") or []):
        _check_patch(f"spec.runtimePatches[{index}]", patch, problems)
    for index, override in enumerate(spec.get("podTemplateOverrides") or []):
        where = f"spec.podTemplateOverrides[{index}]"
        _check_targets(where, override, problems)
        _check_pod(f"{where}.spec", override.get("spec") or {}, problems)
    targets: set[str] = set()
    for index, override in enumerate(spec.get("podSpecOverrides") or []):
        where = f"spec.podSpecOverrides[{index}]"
        _check_targets(where, override, problems)
        _check_pod(where, override, problems)
        names = {target.get("name") or "" for target in override.get("targetJobs") or []}
        # Of 2.0 only; later versions let the last one win.
        for name in sorted(names & targets):
            rule = "is the target of an earlier entry too"
            problems.add(f"{where}.targetJobs", name, rule, "put both entries into one")
        targets |= names


def _check_patch(where: str, patch: Mapping[str, Any], problems: Problems) -> None:
    where = f"{where}.trainingRuntimeSpec.template.spec.replicatedJobs"
    jobs = path(patch, "trainingRuntimeSpec", "template", "spec", "replicatedJobs") or []
    _check_names(where, jobs, "name the runtime's job, such as node", problems)
    for index, job in enumerate(jobs):
        pod = path(job, "template", "spec", "template", "spec") or {}
        _check_pod(f"{where}[{index}].template.spec.template.spec", pod, problems)


def _check_targets(where: str, override: Mapping[str, Any], problems: Problems) -> None:
    fix = "name the runtime's job, such as node"
    if override.get("targetJobs") is None:
        problems.add(f"{where}.targetJobs", None, "is missing", fix)
    _check_names(f"{where}.targetJobs", override.get("targetJobs") or [], fix, problems)


def _check_pod(where: str, pod: Mapping[str, Any], problems: Problems) -> None:
    for kind in ("containers", "initContainers"):
        _check_names(f"{where}.{kind}", pod.get(kind) or [], "name the runtime's container", problems)
    for index, container in enumerate(pod.get("containers") or []):
        name = container.get("name")
        if name in _OWN_CONTAINERS and container.get("env"):
            field = "trainer" if name == "node" else f"initializer.{name.partition('-')[0]}"
            rule = f"is there for the container {name}, whose environment has a field of its own"
            problems.add(f"{where}.containers[{index}].env", "…", rule, f"use spec.{field}.env")
