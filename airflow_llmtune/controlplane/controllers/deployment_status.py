"""The status of an apps/v1 Deployment: its counters and its conditions. Pure."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.clock import seconds_left, timestamp
from airflow_llmtune.controlplane.controllers.deployment_revisions import size
from airflow_llmtune.controlplane.controllers.deployment_sizes import max_unavailable
from airflow_llmtune.controlplane.controllers.meta_conditions import find

Object = dict[str, Any]

PROGRESSING, AVAILABLE, FAILURE = "Progressing", "Available", "ReplicaFailure"
PAUSED, RESUMED = "DeploymentPaused", "DeploymentResumed"
TIMED_OUT = "ProgressDeadlineExceeded"
_COMPLETE = "NewReplicaSetAvailable"
_NO_LIMIT = 2**31 - 1


def put(status: Object, type_: str, value: str, reason: str, message: str, now: datetime) -> None:
    """The newest stands last; one that has the same status and reason already stays, whatever its message."""
    moment, before = timestamp(now), find(status, type_)
    if before is not None and (before["status"], before["reason"]) == (value, reason):
        return
    since = before["lastTransitionTime"] if before is not None and before["status"] == value else moment
    made = {
        "type": type_,
        "status": value,
        "lastUpdateTime": moment,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    }
    remove(status, type_)
    status.setdefault("conditions", []).append(made)


def remove(status: Object, type_: str) -> None:
    if find(status, type_) is not None:
        status["conditions"] = [one for one in status["conditions"] if one["type"] != type_]


def has_deadline(deployment: Object) -> bool:
    return bool(deployment["spec"]["progressDeadlineSeconds"] != _NO_LIMIT)


def note_pause(deployment: Object, status: Object, now: datetime) -> None:
    """So that the time during which it is paused does not count as a lack of progress."""
    found = find(status, PROGRESSING)
    reason, is_paused = (found or {}).get("reason"), bool(deployment["spec"].get("paused"))
    if not has_deadline(deployment) or reason == TIMED_OUT:
        return
    if is_paused and reason != PAUSED:
        put(status, PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now)
    elif not is_paused and reason == PAUSED:
        put(status, PROGRESSING, "Unknown", RESUMED, "Deployment is resumed", now)


def counted(deployment: Object, old: Object, sets: Sequence[Object], new: Object | None, now: datetime) -> Object:
    """The status with the counters of now, and what they say of its availability."""
    spec = deployment["spec"]
    available = sum(one.get("status", {}).get("availableReplicas", 0) for one in sets)
    counters = {
        "replicas": sum(size(one).active for one in sets),
        "updatedReplicas": 0 if new is None else size(new).active,
        "readyReplicas": sum(one.get("status", {}).get("readyReplicas", 0) for one in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(one["spec"]["replicas"] for one in sets) - available),
        "collisionCount": old.get("collisionCount", 0),
    }
    status: Object = {
        "observedGeneration": deployment["metadata"]["generation"],
        **{name: value for name, value in counters.items() if value},
        "conditions": copy.deepcopy(old.get("conditions", [])),
    }
    if available >= spec["replicas"] - max_unavailable(spec):
        text = "Deployment has minimum availability."
        put(status, AVAILABLE, "True", "MinimumReplicasAvailable", text, now)
    else:
        text = "Deployment does not have minimum availability."
        put(status, AVAILABLE, "False", "MinimumReplicasUnavailable", text, now)
    return status


def is_complete(deployment: Object, status: Object) -> bool:
    wanted = deployment["spec"]["replicas"]
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return counts == {wanted} and bool(status.get("observedGeneration", 0) >= deployment["metadata"]["generation"])


def note_progress(deployment: Object, old: Object, status: Object, new: Object | None, now: datetime) -> None:
    """``old`` has the counters of the last time and the conditions of this one."""
    if not has_deadline(deployment):
        remove(status, PROGRESSING)
        return
    current = find(status, PROGRESSING)
    was_complete = current is not None and current["reason"] == _COMPLETE
    if was_complete and status.get("replicas", 0) == status.get("updatedReplicas", 0):
        return  # Pods that fail after a rollout are no lack of progress.
    name = deployment["metadata"]["name"] if new is None else new["metadata"]["name"]
    whose = f'{"Deployment" if new is None else "ReplicaSet"} "{name}"'
    if is_complete(deployment, status):
        put(status, PROGRESSING, "True", _COMPLETE, f"{whose} has successfully progressed.", now)
    elif _has_moved(old, status):
        _renew(status, f"{whose} is progressing.", now)
    elif is_timed_out(deployment, status, now):
        put(status, PROGRESSING, "False", TIMED_OUT, f"{whose} has timed out progressing.", now)


def _renew(status: Object, message: str, now: datetime) -> None:
    """Also when it says so already: the deadline counts from the last step."""
    before = find(status, PROGRESSING)
    remove(status, PROGRESSING)
    put(status, PROGRESSING, "True", "ReplicaSetUpdated", message, now)
    if before is not None and before["status"] == "True":
        status["conditions"][-1]["lastTransitionTime"] = before["lastTransitionTime"]


def _has_moved(old: Object, new: Object) -> bool:
    def outdated(status: Object) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    grown = any(
        new.get(name, 0) > old.get(name, 0) for name in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )
    return grown or outdated(new) < outdated(old)


def is_timed_out(deployment: Object, status: Object, now: datetime) -> bool:
    current = find(status, PROGRESSING)
    if current is None or current["reason"] == _COMPLETE:
        return False
    return current["reason"] == TIMED_OUT or _seconds_to_deadline(deployment, current, now) <= 0


def _seconds_to_deadline(deployment: Object, progressing: Object, now: datetime) -> float:
    return seconds_left(progressing["lastUpdateTime"], deployment["spec"]["progressDeadlineSeconds"], now)


def seconds_to_look_again(deployment: Object, status: Object, now: datetime) -> float | None:
    """Until the deadline passes, unless something moves before."""
    if "deletionTimestamp" in deployment["metadata"]:
        return None  # That it has passed is not noted any more: it would be looked at again and again.
    current = find(status, PROGRESSING)
    if current is None or current["reason"] in {TIMED_OUT, _COMPLETE, PAUSED} or is_complete(deployment, status):
        return None
    return max(0.0, _seconds_to_deadline(deployment, current, now))


def note_failures(status: Object, sets: Sequence[Object], new: Object | None) -> None:
    """The new ReplicaSet's failure to make pods, or else that of an old one, becomes the Deployment's."""
    remove(status, FAILURE)
    failures = [find(one.get("status", {}), FAILURE) for one in ([] if new is None else [new]) + list(sets)]
    failure = next((one for one in failures if one is not None), None)
    if failure is not None:
        status["conditions"].append({**failure, "lastUpdateTime": failure["lastTransitionTime"]})
