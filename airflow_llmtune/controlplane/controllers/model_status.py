"""``modelStatus`` of an InferenceService, told from the newest of its pods as KServe tells it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_llmtune.controlplane.admission.serving_names import INITIALIZER, MAIN_CONTAINER
from airflow_llmtune.controlplane.pods import is_ready, phase

Object = dict[str, Any]

_TRANSITIONS = {
    "Pending": "InProgress",
    "Loading": "InProgress",
    "Loaded": "UpToDate",
    "FailedToLoad": "BlockedByFailedLoad",
}


def set_invalid(status: Object, reason: str, message: str) -> None:
    """No pod can be made."""
    model = _model(status)
    model["transitionStatus"] = "InvalidSpec"
    model.setdefault("states", {"activeModelState": ""})["targetModelState"] = "FailedToLoad"
    model["lastFailureInfo"] = {"reason": reason, "message": message}


def set_model_status(status: Object, pods: Sequence[Object], *, is_ready: bool, failed: bool) -> bool:
    """``is_ready``: of the spec that holds now. ``failed``: its revision has failed, should it have no pods any more.

    False when it is to be looked at again soon: an initializer that failed before is running.
    """
    newest_first = sorted(pods, key=lambda one: str(one["metadata"].get("creationTimestamp", "")), reverse=True)
    _count(status, pods)
    if not newest_first:
        _set(status, "FailedToLoad" if failed else "Pending")
        return True
    pod_status = newest_first[0].get("status") or {}
    for container in pod_status.get("initContainerStatuses") or ():
        if container["name"] == INITIALIZER:
            if "running" in container["state"]:
                if "terminated" in container.get("lastState", {}):
                    return False
                _set(status, "Loading")
                return True
            failure = _failure(container)
            if failure is not None:
                _set(status, "FailedToLoad", failure)
                return True
    if is_ready:
        _set(status, "Loaded")
        return True
    for container in pod_status.get("containerStatuses") or ():
        if container["name"] == MAIN_CONTAINER:
            failure = _failure(container)
            _set(status, "Pending" if failure is None else "FailedToLoad", failure)
    return True


def _model(status: Object) -> Object:
    found: Object = status.setdefault("modelStatus", {"transitionStatus": ""})
    return found


def _count(status: Object, pods: Sequence[Object]) -> None:
    ready = sum(is_ready(pod) and phase(pod) == "Running" for pod in pods)
    copies = _model(status).setdefault("copies", {"failedCopies": 0})
    copies.pop("totalCopies", None)
    if ready:
        copies["totalCopies"] = ready


def _failure(container: Object) -> Object | None:
    state = container["state"]
    ended = state.get("terminated")
    if ended is None or ended.get("reason") != "Error":
        crashing = state.get("waiting", {}).get("reason") == "CrashLoopBackOff"
        ended = container.get("lastState", {}).get("terminated") if crashing else None
    if ended is None:
        return None
    told = {"reason": "ModelLoadFailed", "message": ended.get("message"), "exitCode": ended.get("exitCode")}
    return {name: value for name, value in told.items() if value}


def _set(status: Object, state: str, failure: Object | None = None) -> None:
    model = _model(status)
    states = model.setdefault("states", {"activeModelState": ""})
    states["targetModelState"] = state
    model["transitionStatus"] = _TRANSITIONS[state]
    if state == "Loaded":
        states["activeModelState"] = "Loaded"
    if failure is not None:
        model["lastFailureInfo"] = failure
