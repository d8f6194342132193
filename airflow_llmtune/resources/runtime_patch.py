"""What a TrainJob changes in the pods of its runtime, in the shape that each version of Kubeflow Trainer takes.

2.0 has ``podSpecOverrides``, 2.1 ``podTemplateOverrides``, 2.2 and later ``runtimePatches``. All three carry only some
fields of a pod; the other ones belong into the runtime.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from airflow_llmtune.resources.problems import Problems

__all__ = [
    "CONTAINER",
    "FIRST_WITH_DEADLINE",
    "LATEST",
    "Version",
    "check_pod_template",
    "patches",
    "read_version",
]


class Version(NamedTuple):
    """Of Kubeflow Trainer."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


LATEST = Version(2, 3)
FIRST_WITH_DEADLINE = Version(2, 2)

# The replicated job of a runtime that trains, and its container.
CONTAINER = "node"
_MANAGER = "airflow-llmtune/operator"

_VERSION = r"v?2\.(?P<minor>\d+)(\.\S*)?"
# The first version that carries a field.
_METADATA_SINCE = Version(2, 1)
_POD_FIELDS = {
    "serviceAccountName": Version(2, 0),
    "nodeSelector": Version(2, 0),
    "tolerations": Version(2, 0),
    "volumes": Version(2, 0),
    "schedulingGates": Version(2, 0),
    "affinity": Version(2, 1),
    "imagePullSecrets": Version(2, 1),
    "securityContext": Version(2, 2),
    "terminationGracePeriodSeconds": Version(2, 3),
}
_CONTAINER_FIELDS = {"volumeMounts": Version(2, 0), "securityContext": Version(2, 2)}
# What `spec.trainer` carries.
_TRAINER_FIELDS = ("name", "image", "command", "args", "env", "resources")


def read_version(where: str, value: Any, problems: Problems) -> Version | None:
    """Text only: the number 2.10 would be 2.1."""
    if isinstance(value, Version):  # read before
        return value
    if isinstance(value, str) and (found := re.fullmatch(_VERSION, value)):
        return Version(2, int(found["minor"]))
    problems.add(where, value, "is not a version of Kubeflow Trainer v2", "give text such as '2.1'")
    return None


def patches(pod_template: Mapping[str, Any], version: Version) -> dict[str, Any]:
    """The part of a TrainJob's spec; empty when there is nothing to change."""
    metadata = pod_template.get("metadata") if version >= _METADATA_SINCE else None
    spec = _carried(pod_template["spec"], _POD_FIELDS, version)
    containers = [
        {"name": container["name"], **changed}
        for container in pod_template["spec"]["containers"]
        if (changed := _carried(container, _CONTAINER_FIELDS, version))
    ]
    if containers:
        spec["containers"] = containers
    template = {name: value for name, value in (("metadata", metadata), ("spec", spec)) if value}
    if not template:
        return {}
    if version >= (2, 2):
        replicated_job = {"name": CONTAINER, "template": {"spec": {"template": template}}}
        runtime = {"template": {"spec": {"replicatedJobs": [replicated_job]}}}
        return {"runtimePatches": [{"manager": _MANAGER, "trainingRuntimeSpec": runtime}]}
    target = {"targetJobs": [{"name": CONTAINER}]}
    if version >= (2, 1):
        return {"podTemplateOverrides": [{**target, **template}]}
    return {"podSpecOverrides": [{**target, **spec}]}


def _carried(given: Mapping[str, Any], fields: Mapping[str, Version], version: Version) -> dict[str, Any]:
    return {name: given[name] for name, since in fields.items() if version >= since and name in given}


def check_pod_template(where: str, override: Mapping[str, Any], version: Version, problems: Problems) -> None:
    """Note what of an author's additions no TrainJob of that version can carry."""
    if override.get("metadata"):
        given = [name for name in override["metadata"] if name not in ("labels", "annotations")]
        given = list(override["metadata"]) if version < _METADATA_SINCE else given
        _refuse(f"{where}.metadata", override["metadata"], given, version, problems)
    spec = override.get("spec") or {}
    known = {"containers", *(name for name, since in _POD_FIELDS.items() if version >= since)}
    _refuse(f"{where}.spec", spec, [name for name in spec if name not in known], version, problems)
    known = {*_TRAINER_FIELDS, *(name for name, since in _CONTAINER_FIELDS.items() if version >= since)}
    for index, container in enumerate(spec.get("containers") or []):
        here = f"{where}.spec.containers[{index}]"
        if container["name"] != CONTAINER:
            rule = f"is not the trainer's container {CONTAINER}, and a TrainJob adds none"
            problems.add(f"{here}.name", container["name"], rule, "put it in the runtime that `runtime_ref` names")
            continue
        _refuse(here, container, [name for name in container if name not in known], version, problems)


def _refuse(where: str, given: Mapping[str, Any], names: list[str], version: Version, problems: Problems) -> None:
    for name in names:
        rule = f"is nothing that a TrainJob of Kubeflow Trainer {version} can carry"
        problems.add(f"{where}.{name}", given[name], rule, "put it in the runtime that `runtime_ref` names")
