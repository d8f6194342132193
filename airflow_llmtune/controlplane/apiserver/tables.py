"""Server-side printing: the tables of ``kubectl get``, one row function per kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.apiserver.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    EVENT,
    EXPERIMENT,
    JOB,
    NAMESPACE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    PYTORCH_JOB,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    SUGGESTION,
    TRIAL,
    Kind,
)
from airflow_llmtune.controlplane.clock import parse_timestamp

Object = Mapping[str, Any]
Cell = str | int


@dataclass(frozen=True)
class Column:
    name: str
    read: Callable[[Object, datetime], Cell]
    type: str = "string"

    def definition(self) -> dict[str, Any]:
        form = "name" if self.name == "Name" else ""
        return {"name": self.name, "type": self.type, "format": form, "description": "", "priority": 0}


def table(
    kind: Kind, objects: Iterable[Object], metadata: dict[str, Any], include: str, now: datetime
) -> dict[str, Any]:
    """A ``meta.k8s.io/v1`` Table; ``include`` says what of the object each row carries along."""
    columns = _COLUMNS[kind]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [column.definition() for column in columns],
        "rows": [
            {"cells": [column.read(obj, now) for column in columns], "object": _row_object(obj, include)}
            for obj in objects
        ],
    }


def _row_object(obj: Object, include: str) -> Object | None:
    if include == "Object":
        return obj
    if include == "None":
        return None
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def human_duration(seconds: float) -> str:
    """Kubernetes' short form: two units at most, the second only while it still matters."""
    total = int(seconds)
    if total < 0:
        return "<invalid>" if total < -1 else "0s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return f"{minutes}m{total % 60}s" if total % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"


def _since(text: str | None, now: datetime) -> str:
    return human_duration((now - parse_timestamp(text)).total_seconds()) if text else "<unknown>"


def _age(obj: Object, now: datetime) -> str:
    return _since(obj["metadata"].get("creationTimestamp"), now)


def _path(*steps: str, default: Cell = "") -> Callable[[Object, datetime], Cell]:
    def read(obj: Object, now: datetime) -> Cell:  # noqa: ARG001  columns share one signature
        value: Any = obj
        for step in steps:
            value = value.get(step) if isinstance(value, Mapping) else None
        return default if value is None else value

    return read


def _last_condition(field: str) -> Callable[[Object, datetime], Cell]:
    """Katib's and the training operator's way: the newest condition stands last."""

    def read(obj: Object, now: datetime) -> Cell:  # noqa: ARG001  columns share one signature
        conditions = obj.get("status", {}).get("conditions") or [{}]
        return str(conditions[-1].get(field, ""))

    return read


def _pod_containers(obj: Object) -> list[Object]:
    statuses: list[Object] = obj.get("status", {}).get("containerStatuses") or []
    return statuses


def _pod_ready(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    ready = sum(1 for status in _pod_containers(obj) if status.get("ready"))
    return f"{ready}/{len(obj.get('spec', {}).get('containers') or [])}"


def _pod_status(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    status = obj.get("status", {})
    for index, one in enumerate(status.get("initContainerStatuses") or []):
        word = _init_word(one)
        if word:
            return word if word.startswith("Init:") else f"Init:{index}/{len(obj['spec']['initContainers'])}"
    shown = str(status.get("reason") or status.get("phase") or "Unknown")
    for one in reversed(_pod_containers(obj)):
        state = one.get("state", {})
        shown = _state_word(state) or shown
    return shown


def _init_word(status: Object) -> str:
    state = status.get("state", {})
    ended = state.get("terminated")
    if ended is not None:
        return "" if ended.get("exitCode") == 0 else f"Init:{_state_word(state)}"
    reason = state.get("waiting", {}).get("reason", "")
    return f"Init:{reason}" if reason and reason != "PodInitializing" else "running"


def _state_word(state: Object) -> str:
    if waiting := state.get("waiting"):
        return str(waiting.get("reason", ""))
    if ended := state.get("terminated"):
        return str(ended.get("reason") or f"ExitCode:{ended.get('exitCode')}")
    return ""


def _pod_restarts(obj: Object, now: datetime) -> int:  # noqa: ARG001  columns share one signature
    return sum(int(status.get("restartCount", 0)) for status in _pod_containers(obj))


def _job_status(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    true = {one["type"] for one in obj.get("status", {}).get("conditions") or [] if one.get("status") == "True"}
    for word in ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if word in true:
            return word
    return "Terminating" if "deletionTimestamp" in obj["metadata"] else "Running"


def _job_completions(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    return f"{obj.get('status', {}).get('succeeded', 0)}/{obj.get('spec', {}).get('completions', 1)}"


def _job_duration(obj: Object, now: datetime) -> str:
    status = obj.get("status", {})
    if not status.get("startTime"):
        return ""
    end = parse_timestamp(status["completionTime"]) if status.get("completionTime") else now
    return _since(status["startTime"], end)


def _size(field: str) -> Callable[[Object, datetime], Cell]:
    return lambda obj, now: len(obj.get(field) or {})  # noqa: ARG005  columns share one signature


def _service_ports(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    ports = obj.get("spec", {}).get("ports") or []
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _deployment_ready(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    return f"{obj.get('status', {}).get('readyReplicas', 0)}/{obj.get('spec', {}).get('replicas', 1)}"


def _event_object(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    involved = obj["involvedObject"]
    return f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"


_NAME = Column("Name", _path("metadata", "name"))
_AGE = Column("Age", _age)
_TYPE = Column("Type", _last_condition("type"))
_STATUS = Column("Status", _last_condition("status"))

_COLUMNS: dict[Kind, tuple[Column, ...]] = {
    NAMESPACE: (_NAME, Column("Status", _path("status", "phase")), _AGE),
    POD: (
        _NAME,
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("Restarts", _pod_restarts, "integer"),
        _AGE,
    ),
    SERVICE: (
        _NAME,
        Column("Type", _path("spec", "type", default="ClusterIP")),
        Column("Cluster-IP", _path("spec", "clusterIP", default="None")),
        Column("Port(s)", _service_ports),
        _AGE,
    ),
    SECRET: (
        _NAME,
        Column("Type", _path("type", default="Opaque")),
        Column("Data", _size("data"), "integer"),
        _AGE,
    ),
    CONFIG_MAP: (_NAME, Column("Data", _size("data"), "integer"), _AGE),
    EVENT: (
        Column("Last Seen", lambda obj, now: _since(obj.get("lastTimestamp"), now)),
        Column("Type", _path("type")),
        Column("Reason", _path("reason")),
        Column("Object", _event_object),
        Column("Message", _path("message")),
    ),
    SERVICE_ACCOUNT: (_NAME, Column("Secrets", _size("secrets"), "integer"), _AGE),
    PERSISTENT_VOLUME_CLAIM: (
        _NAME,
        Column("Status", _path("status", "phase")),
        Column("Volume", _path("spec", "volumeName")),
        _AGE,
    ),
    DEPLOYMENT: (
        _NAME,
        Column("Ready", _deployment_ready),
        Column("Up-to-date", _path("status", "updatedReplicas", default=0), "integer"),
        Column("Available", _path("status", "availableReplicas", default=0), "integer"),
        _AGE,
    ),
    JOB: (
        _NAME,
        Column("Status", _job_status),
        Column("Completions", _job_completions),
        Column("Duration", _job_duration),
        _AGE,
    ),
    EXPERIMENT: (_NAME, _TYPE, _STATUS, _AGE),
    SUGGESTION: (
        _NAME,
        _TYPE,
        _STATUS,
        Column("Requested", _path("spec", "requests")),
        Column("Assigned", _path("status", "suggestionCount")),
        _AGE,
    ),
    TRIAL: (_NAME, _TYPE, _STATUS, _AGE),
    PYTORCH_JOB: (_NAME, Column("State", _last_condition("type")), _AGE),
}
