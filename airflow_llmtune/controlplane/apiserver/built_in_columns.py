"""What ``kubectl get`` prints of the kinds that are always served, in the columns of a real server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.apiserver.apps_columns import (
    CONTROLLER_REVISION_COLUMNS,
    DEPLOYMENT_COLUMNS,
    REPLICA_SET_COLUMNS,
)
from airflow_llmtune.controlplane.apiserver.columns import (
    AGE,
    NAME,
    Column,
    Object,
    Reader,
    condition_status,
    last_condition,
    path,
    since,
)
from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_SERVING_RUNTIME,
    CLUSTER_TRAINING_RUNTIME,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    CUSTOM_RESOURCE_DEFINITION,
    DEPLOYMENT,
    EVENT,
    EXPERIMENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    JOB,
    JOB_SET,
    LLM_INFERENCE_SERVICE,
    NAMESPACE,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    PYTORCH_JOB,
    REPLICA_SET,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    SERVING_RUNTIME,
    SUGGESTION,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    TRIAL,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.serving_columns import (
    INFERENCE_SERVICE_COLUMNS,
    LLM_INFERENCE_SERVICE_COLUMNS,
    RUNTIME_COLUMNS,
)
from airflow_llmtune.controlplane.clock import parse_timestamp


def _list(obj: Object, *steps: str) -> list[Any]:
    value: Any = obj
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value if isinstance(value, list) else []


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
    return since(status["startTime"], end)


def _size(field: str) -> Reader:
    return lambda obj, now: len(obj.get(field) or {})  # noqa: ARG005  columns share one signature


def _service_ports(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    ports = obj.get("spec", {}).get("ports") or []
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _event_object(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    involved = obj["involvedObject"]
    return f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"


_ACCESS_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _access_modes(*steps: str) -> Reader:
    return lambda obj, now: ",".join(_ACCESS_MODES.get(one, str(one)) for one in _list(obj, *steps))  # noqa: ARG005


def _volume_claim(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    claim = obj.get("spec", {}).get("claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


def _claim_status(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    return str(obj.get("status", {}).get("phase", ""))


def _node_status(obj: Object, now: datetime) -> str:
    ready = condition_status("Ready")(obj, now)
    words = ["Ready" if ready == "True" else "NotReady" if ready else "Unknown"]
    if obj.get("spec", {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


_ROLE_LABEL = "node-role.kubernetes.io/"


def _node_roles(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    labels = obj["metadata"].get("labels") or {}
    return ",".join(sorted(key.removeprefix(_ROLE_LABEL) for key in labels if key.startswith(_ROLE_LABEL))) or "<none>"


def _bound_role(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    role = obj.get("roleRef") or {}
    return f"{role.get('kind', '')}/{role.get('name', '')}"


def _hostnames(obj: Object, now: datetime) -> str:  # noqa: ARG001  columns share one signature
    names = _list(obj, "spec", "hostnames")
    return json.dumps(names, separators=(",", ":")) if names else ""


_CREATED_AT = Column("Created At", path("metadata", "creationTimestamp"), "date")
_TYPE = Column("Type", last_condition("type"))
_STATUS = Column("Status", last_condition("status"))

BUILT_IN_COLUMNS: dict[Kind, tuple[Column, ...]] = {
    NAMESPACE: (NAME, Column("Status", path("status", "phase")), AGE),
    POD: (
        NAME,
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("Restarts", _pod_restarts, "integer"),
        AGE,
        Column("IP", path("status", "podIP", default="<none>"), priority=1),
        Column("Node", path("spec", "nodeName", default="<none>"), priority=1),
    ),
    SERVICE: (
        NAME,
        Column("Type", path("spec", "type", default="ClusterIP")),
        Column("Cluster-IP", path("spec", "clusterIP", default="None")),
        Column("External-IP", lambda obj, now: "<none>"),  # noqa: ARG005  nothing is reachable from outside
        Column("Port(s)", _service_ports),
        AGE,
    ),
    SECRET: (
        NAME,
        Column("Type", path("type", default="Opaque")),
        Column("Data", _size("data"), "integer"),
        AGE,
    ),
    CONFIG_MAP: (NAME, Column("Data", _size("data"), "integer"), AGE),
    EVENT: (
        Column("Last Seen", lambda obj, now: since(obj.get("lastTimestamp"), now)),
        Column("Type", path("type")),
        Column("Reason", path("reason")),
        Column("Object", _event_object),
        Column("Message", path("message")),
    ),
    SERVICE_ACCOUNT: (NAME, Column("Secrets", _size("secrets"), "integer"), AGE),
    PERSISTENT_VOLUME_CLAIM: (
        NAME,
        Column("Status", _claim_status),
        Column("Volume", path("spec", "volumeName")),
        Column("Capacity", path("status", "capacity", "storage")),
        Column("Access Modes", _access_modes("status", "accessModes")),
        Column("StorageClass", path("spec", "storageClassName")),
        Column("VolumeAttributesClass", path("spec", "volumeAttributesClassName", default="<unset>")),
        AGE,
    ),
    PERSISTENT_VOLUME: (
        NAME,
        Column("Capacity", path("spec", "capacity", "storage")),
        Column("Access Modes", _access_modes("spec", "accessModes")),
        Column("Reclaim Policy", path("spec", "persistentVolumeReclaimPolicy")),
        Column("Status", _claim_status),
        Column("Claim", _volume_claim),
        Column("StorageClass", path("spec", "storageClassName")),
        Column("VolumeAttributesClass", path("spec", "volumeAttributesClassName", default="<unset>")),
        Column("Reason", path("status", "reason")),
        AGE,
    ),
    NODE: (
        NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        AGE,
        Column("Version", path("status", "nodeInfo", "kubeletVersion")),
    ),
    ROLE: (NAME, _CREATED_AT),
    ROLE_BINDING: (NAME, Column("Role", _bound_role), AGE),
    CUSTOM_RESOURCE_DEFINITION: (NAME, _CREATED_AT),
    DEPLOYMENT: DEPLOYMENT_COLUMNS,
    CONTROLLER_REVISION: CONTROLLER_REVISION_COLUMNS,
    REPLICA_SET: REPLICA_SET_COLUMNS,
    JOB: (
        NAME,
        Column("Status", _job_status),
        Column("Completions", _job_completions),
        Column("Duration", _job_duration),
        AGE,
    ),
    EXPERIMENT: (NAME, _TYPE, _STATUS, AGE),
    SUGGESTION: (
        NAME,
        _TYPE,
        _STATUS,
        Column("Requested", path("spec", "requests")),
        Column("Assigned", path("status", "suggestionCount")),
        AGE,
    ),
    TRIAL: (NAME, _TYPE, _STATUS, AGE),
    PYTORCH_JOB: (NAME, Column("State", last_condition("type")), AGE),
    TRAIN_JOB: (NAME, Column("State", last_condition("type")), AGE),
    HTTP_ROUTE: (NAME, Column("Hostnames", _hostnames), AGE),
    TRAINING_RUNTIME: (NAME, AGE),
    CLUSTER_TRAINING_RUNTIME: (NAME, AGE),
    INFERENCE_SERVICE: INFERENCE_SERVICE_COLUMNS,
    SERVING_RUNTIME: RUNTIME_COLUMNS,
    CLUSTER_SERVING_RUNTIME: RUNTIME_COLUMNS,
    LLM_INFERENCE_SERVICE: LLM_INFERENCE_SERVICE_COLUMNS,
    JOB_SET: (
        NAME,
        Column("TerminalState", path("status", "terminalState")),
        Column("Restarts", path("status", "restarts")),
        Column("Completed", condition_status("Completed")),
        Column("Suspended", path("spec", "suspend")),
        AGE,
    ),
}
