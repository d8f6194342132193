"""A pod's status as a kubelet reports it, from the states of its containers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_llmtune.controlplane.kubelet.environment import LOOPBACK

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
) -> dict[str, Any]:
    old = pod.get("status") or {}
    current = phase(init, containers, failure)
    new: dict[str, Any] = {
        "phase": current,
        "conditions": _conditions(old, current, init, containers, now),
        "hostIP": LOOPBACK,
        "hostIPs": [{"ip": LOOPBACK}],
        "podIP": LOOPBACK,
        "podIPs": [{"ip": LOOPBACK}],
        "startTime": old.get("startTime", now),
        "qosClass": old.get("qosClass", "BestEffort"),
        "containerStatuses": [_container_status(pod, one) for one in containers],
    }
    if init:
        new["initContainerStatuses"] = [_container_status(pod, one) for one in init]
    if failure is not None:
        new |= {"reason": failure.reason, "message": failure.message}
        if failure.disruption:
            new["conditions"].append(_disruption(old, failure, now))
    return new


def _container_status(pod: dict[str, Any], record: ContainerRecord) -> dict[str, Any]:
    image = record.spec.get("image", "")
    shown: dict[str, Any] = {
        "name": record.name,
        "state": record.state,
        "lastState": record.last_state,
        "ready": record.is_running,
        "started": record.is_running,
        "restartCount": record.restart_count,
        "image": image,
        "imageID": f"local://{image}" if record.has_started else "",
    }
    if record.has_started:
        shown["containerID"] = f"process://{pod['metadata']['uid']}/{record.name}/{record.restart_count}"
    return shown


def _conditions(
    old: dict[str, Any],
    current: str,
    init: Sequence[ContainerRecord],
    containers: Sequence[ContainerRecord],
    now: str,
) -> list[dict[str, Any]]:
    initialized = all(one.is_final and one.exit_code == 0 for one in init)
    ready = initialized and current == "Running" and all(one.is_running for one in containers)
    why = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(current, "ContainersNotReady")
    wanted = {
        "PodScheduled": (True, ""),
        "PodReadyToStartContainers": (current == "Running", ""),
        "Initialized": (initialized, "" if initialized else "ContainersNotInitialized"),
        "ContainersReady": (ready, "" if ready else why),
        "Ready": (ready, "" if ready else why),
    }
    before = {condition["type"]: condition for condition in old.get("conditions", ())}
    return [_condition(type_, *value, before.get(type_), now) for type_, value in wanted.items()]


def _disruption(old: dict[str, Any], failure: Failure, now: str) -> dict[str, Any]:
    """What a Job's ``podFailurePolicy`` tells such pods by."""
    before = next((one for one in old.get("conditions", ()) if one["type"] == "DisruptionTarget"), None)
    condition = _condition("DisruptionTarget", holds=True, reason=failure.disruption, old=before, now=now)
    return {**condition, "message": failure.message}


def _condition(type_: str, holds: bool, reason: str, old: dict[str, Any] | None, now: str) -> dict[str, Any]:
    value = "True" if holds else "False"
    since = old["lastTransitionTime"] if old is not None and old["status"] == value else now
    condition = {"type": type_, "status": value, "lastProbeTime": None, "lastTransitionTime": since}
    return {**condition, "reason": reason} if reason else condition
