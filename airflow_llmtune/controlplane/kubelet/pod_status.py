"""A pod's status as a kubelet reports it, from the states of its containers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_llmtune.controlplane.kubelet.environment import LOOPBACK

_DISRUPTION = "DisruptionTarget"

State = dict[str, Any]
"""A ContainerState: one of ``waiting``, ``running``, ``terminated``."""


@dataclass
class ContainerRecord:
    """One container of a pod, as far as it got."""

    spec: dict[str, Any]
    state: State
    last_state: State = field(default_factory=dict)
    restart_count: int = 0
    is_final: bool = False
    """Ended, and will not be started again."""
    is_started: bool = False
    """What the probes say, as long as it runs: that it has come up,"""
    is_ready: bool = False
    """and that it can be sent requests."""

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def is_running(self) -> bool:
        return "running" in self.state

    @property
    def is_backing_off(self) -> bool:
        return self.state.get("waiting", {}).get("reason") == "CrashLoopBackOff" and bool(self.last_state)

    @property
    def exit_code(self) -> int | None:
        terminated = self.state.get("terminated")
        return None if terminated is None else int(terminated["exitCode"])

    @property
    def has_started(self) -> bool:
        return "waiting" not in self.state or self.restart_count > 0


@dataclass(frozen=True)
class Failure:
    """Why the pod as a whole failed, such as ``DeadlineExceeded``."""

    reason: str
    message: str
    disruption: str = ""
    """The reason of its condition DisruptionTarget, if it was not the pod's own fault."""


def waiting(reason: str, message: str = "") -> State:
    return {"waiting": {"reason": reason, "message": message} if message else {"reason": reason}}


def running(started_at: str) -> State:
    return {"running": {"startedAt": started_at}}


def terminated(exit_code: int, started_at: str, finished_at: str, *, reason: str = "", message: str = "") -> State:
    ended: dict[str, Any] = {
        "exitCode": exit_code,
        "reason": reason or ("Completed" if exit_code == 0 else "Error"),
        "startedAt": started_at,
        "finishedAt": finished_at,
    }
    if message:
        ended["message"] = message
    return {"terminated": ended}


def phase(init: Sequence[ContainerRecord], containers: Sequence[ContainerRecord], failure: Failure | None) -> str:
    if failure is not None:
        return "Failed"
    if any(one.is_final and one.exit_code for one in init):
        return "Failed"
    if not all(one.is_final for one in init):
        return "Pending"
    if all(one.is_final for one in containers):
        return "Succeeded" if all(one.exit_code == 0 for one in containers) else "Failed"
    return "Running" if any(one.has_started for one in containers) else "Pending"


def status(
    pod: dict[str, Any],
    init: Sequence[ContainerRecord],
    containers: Sequence[ContainerRecord],
    now: str,
    failure: Failure | None = None,
    address: str = LOOPBACK,
) -> dict[str, Any]:
    old = pod.get("status") or {}
    is_leaving = "deletionTimestamp" in pod["metadata"]
    unready = [one.name for one in containers if is_leaving or not (one.is_running and one.is_ready)]
    current = phase(init, containers, failure)
    new: dict[str, Any] = {
        "phase": current,
        "conditions": _conditions(pod, current, init, unready, now),
        "hostIP": LOOPBACK,
        "hostIPs": [{"ip": LOOPBACK}],
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": old.get("startTime", now),
        "qosClass": old.get("qosClass", "BestEffort"),
        "containerStatuses": [_container_status(pod, one, one.name not in unready) for one in containers],
    }
    if init:
        new["initContainerStatuses"] = [_container_status(pod, one, one.exit_code == 0) for one in init]
    if failure is not None:
        new |= {"reason": failure.reason, "message": failure.message}
        if failure.disruption:
            new["conditions"].append(_disruption(old, failure, now))
    return new


def _container_status(pod: dict[str, Any], record: ContainerRecord, is_ready: bool) -> dict[str, Any]:
    image = record.spec.get("image", "")
    shown: dict[str, Any] = {
        "name": record.name,
        "state": record.state,
        "lastState": record.last_state,
        "ready": is_ready,
        "started": record.is_running and record.is_started,
        "restartCount": record.restart_count,
        "image": image,
        "imageID": f"local://{image}" if record.has_started else "",
    }
    if record.has_started:
        shown["containerID"] = f"process://{pod['metadata']['uid']}/{record.name}/{record.restart_count}"
    return shown


def _conditions(
    pod: dict[str, Any],
    current: str,
    init: Sequence[ContainerRecord],
    unready: Sequence[str],
    now: str,
) -> list[dict[str, Any]]:
    unfinished = [one.name for one in init if not one.is_final or one.exit_code != 0]
    incomplete = f"containers with incomplete status: [{' '.join(unfinished)}]"
    ready = not unfinished and current == "Running" and not unready
    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(current)
    text = f"containers with unready status: [{' '.join(unready)}]"
    readiness = (True, "", "") if ready else (False, ended, "") if ended else (False, "ContainersNotReady", text)
    before = {condition["type"]: condition for condition in (pod.get("status") or {}).get("conditions", ())}
    closed = _closed_gates(pod["spec"], before) if ready else ""
    wanted = {
        "PodScheduled": (True, "", ""),
        "PodReadyToStartContainers": (current == "Running", "", ""),
        "Initialized": (False, "ContainersNotInitialized", incomplete) if unfinished else (True, "", ""),
        "ContainersReady": readiness,
        "Ready": (False, "ReadinessGatesNotReady", closed) if closed else readiness,
    }
    others = [one for type_, one in before.items() if type_ not in {*wanted, _DISRUPTION}]
    return [*(_condition(type_, value, before.get(type_), now) for type_, value in wanted.items()), *others]


def _closed_gates(spec: dict[str, Any], conditions: dict[str, Any]) -> str:
    """The conditions that others write and that it waits for; empty when none is left."""
    texts = []
    for gate in (one["conditionType"] for one in spec.get("readinessGates") or ()):
        if gate not in conditions:
            texts.append(f'corresponding condition of pod readiness gate "{gate}" does not exist.')
        elif conditions[gate]["status"] != "True":
            found = conditions[gate]["status"]
            texts.append(f'the status of pod readiness gate "{gate}" is not "True", but {found}')
    return ", ".join(texts)


def _disruption(old: dict[str, Any], failure: Failure, now: str) -> dict[str, Any]:
    """What a Job's ``podFailurePolicy`` tells such pods by."""
    before = next((one for one in old.get("conditions", ()) if one["type"] == _DISRUPTION), None)
    return _condition(_DISRUPTION, (True, failure.disruption, failure.message), before, now)


def _condition(type_: str, what: tuple[bool, str, str], old: dict[str, Any] | None, now: str) -> dict[str, Any]:
    """``what``: whether it holds, the reason, the message."""
    holds, *told = what
    value = "True" if holds else "False"
    since = old["lastTransitionTime"] if old is not None and old["status"] == value else now
    condition = {"type": type_, "status": value, "lastProbeTime": None, "lastTransitionTime": since}
    return condition | {field: text for field, text in zip(("reason", "message"), told, strict=True) if text}
