"""What a kubelet makes of a pod that an earlier one ran: how far each container had got. Pure."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.controlplane.kubelet.pod_status import ContainerRecord, State

Object = dict[str, Any]


def resumed_record(container: Object, pod: Object, policy: str, fresh: State, running: int | None) -> ContainerRecord:
    """From the pod's stored status; ``running`` is the start of the container that the runtime knows, if any."""
    status = _stored(container["name"], pod)
    record = ContainerRecord(
        container,
        status.get("state") or fresh,
        status.get("lastState") or {},
        status.get("restartCount", 0),
        is_started=status.get("started", False),
        is_ready=status.get("ready", False),  # As a kubelet leaves it until its first own look.
    )
    if running is not None and running > record.restart_count:
        # It was started again just before the earlier kubelet ended.
        record.last_state = record.state if "terminated" in record.state else record.last_state
        record.state, record.restart_count = fresh, running
    record.is_final = running is None and record.exit_code is not None and not restarts(policy, record.exit_code)
    return record


def is_noted(name: str, pod: Object, restart: int) -> bool:
    """Whether the end of this start of the container is already in the pod's status."""
    status = _stored(name, pod)
    state = status.get("state", {})
    has_ended = "terminated" in state or ("waiting" in state and "terminated" in status.get("lastState", {}))
    return has_ended and bool(status["restartCount"] == restart)


def is_lost(container: Object, pod: Object, *, is_known: bool, is_function: bool) -> bool:
    """Whether it ran when the earlier kubelet ended and its process is nowhere now."""
    return not is_known and not is_function and "running" in _stored(container["name"], pod).get("state", {})


def restarts(policy: str, exit_code: int | None) -> bool:
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def _stored(name: str, pod: Object) -> Object:
    status = pod.get("status") or {}
    known = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return next((one for one in known if one["name"] == name), {})
