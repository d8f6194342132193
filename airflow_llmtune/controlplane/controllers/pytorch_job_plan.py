"""What a PyTorchJob does next: its status, the pods to make and to delete. Pure."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from airflow_llmtune.controlplane.clock import parse_timestamp, timestamp
from airflow_llmtune.controlplane.controllers.conditions import (
    find_condition,
    has_condition,
    remove_condition,
    set_condition,
    set_false,
)
from airflow_llmtune.controlplane.controllers.pod_template import (
    is_active,
    is_finished,
    is_terminating,
    phase,
    restarts,
)
from airflow_llmtune.controlplane.controllers.pytorch_env import (
    CONTAINER_NAME,
    Replica,
    replica_name,
    replicas,
    type_selector,
)

_KIND = "PyTorchJob"
_FIRST_RETRYABLE_EXIT_CODE = 128


@dataclass
class PyTorchJobPlan:
    status: dict[str, Any]
    create: list[Replica] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    delete_job: bool = False
    look_again_seconds: float | None = None
    events: list[tuple[str, str, str]] = field(default_factory=list)
    """Type, reason and message."""


def is_job_finished(job: dict[str, Any]) -> bool:
    return has_condition(job, "Succeeded") or has_condition(job, "Failed")


def plan(job: dict[str, Any], pods: Sequence[dict[str, Any]], now: datetime) -> PyTorchJobPlan:
    """``pods`` are those the job owns; they are told apart by name."""
    job = copy.deepcopy(job)
    result = PyTorchJobPlan(job.setdefault("status", {}))
    stamp = timestamp(now)
    _mark(job, "Created", "is created.", stamp)
    if is_job_finished(job):
        _count_replicas(job, pods)
        _clean_up(job, result, pods, now)
    elif job["spec"].get("runPolicy", {}).get("suspend"):
        _suspend(job, result, pods, stamp)
    else:
        _advance(job, result, pods, now)
    result.status = job["status"]
    return result


def _advance(job: dict[str, Any], result: PyTorchJobPlan, pods: Sequence[dict[str, Any]], now: datetime) -> None:
    stamp = timestamp(now)
    if has_condition(job, "Suspended"):
        name = job["metadata"]["name"]
        reason, message = f"{_KIND}Resumed", f"{_KIND} {name} is resumed."
        set_condition(job, "Suspended", reason, message, stamp, status="False")
    job["status"].setdefault("startTime", stamp)
    by_name = {pod["metadata"]["name"]: pod for pod in pods}
    wanted = {replica_name(job["metadata"]["name"], one.type, one.index): one for one in replicas(job)}
    _count_replicas(job, pods)
    _judge(job, result, by_name, now)
    if is_job_finished(job):
        _clean_up(job, result, pods, now)
        return
    result.create = [replica for name, replica in wanted.items() if name not in by_name]


def _suspend(job: dict[str, Any], result: PyTorchJobPlan, pods: Sequence[dict[str, Any]], stamp: str) -> None:
    result.delete = [pod["metadata"]["name"] for pod in pods if not is_terminating(pod)]
    job["status"].pop("startTime", None)
    running = find_condition(job, "Running")
    message = f"{_KIND} {job['metadata']['name']} is suspended."
    if running is not None and running["status"] == "True":
        set_condition(job, "Running", f"{_KIND}Suspended", message, stamp, status="False")
    set_condition(job, "Suspended", f"{_KIND}Suspended", message, stamp)
    _count_replicas(job, [])


def _count_replicas(job: dict[str, Any], pods: Sequence[dict[str, Any]]) -> None:
    """Only pods that run are active to the operator; counters that are zero are absent."""
    statuses: dict[str, Any] = {}
    name = job["metadata"]["name"]
    for type_ in job["spec"]["pytorchReplicaSpecs"]:
        mine = [pod for pod in pods if pod["metadata"]["name"].startswith(f"{name}-{type_.lower()}-")]
        counters = {
            "active": sum(phase(pod) == "Running" and is_active(pod) for pod in mine),
            "succeeded": sum(phase(pod) == "Succeeded" for pod in mine),
            "failed": sum(phase(pod) == "Failed" for pod in mine),
        }
        statuses[type_] = {key: value for key, value in counters.items() if value}
        statuses[type_]["selector"] = type_selector(name, type_)
    job["status"]["replicaStatuses"] = statuses


def _judge(job: dict[str, Any], result: PyTorchJobPlan, by_name: dict[str, dict[str, Any]], now: datetime) -> None:
    policy, stamp = job["spec"].get("runPolicy", {}), timestamp(now)
    over_limit = _limit_reached(job, policy, list(by_name.values()), result, now)
    if over_limit is not None:
        _end(job, result, "Failed", over_limit, stamp)
        return
    _replace_failed(job, result, by_name, stamp)
    if is_job_finished(job):
        return
    if _has_succeeded(job, by_name):
        message = f"{_KIND} {job['metadata']['name']} is successfully completed."
        _end(job, result, "Succeeded", message, stamp)
    elif _leads_run(job) and not has_condition(job, "Running"):
        remove_condition(job, "Restarting")
        _mark(job, "Running", "is running.", stamp)


def _limit_reached(
    job: dict[str, Any],
    policy: dict[str, Any],
    pods: Sequence[dict[str, Any]],
    result: PyTorchJobPlan,
    now: datetime,
) -> str | None:
    name = job["metadata"]["name"]
    limit = policy.get("backoffLimit")
    # Only restarts inside running pods count, so this has no effect on pods that are made anew (ExitCode).
    if limit is not None:
        count = sum(restarts(pod) for pod in pods if phase(pod) == "Running")
        if count > 0 if limit == 0 else count >= limit:
            return f"Job {name} has failed because it has reached the specified backoff limit"
    deadline = policy.get("activeDeadlineSeconds")
    if deadline is not None:
        start = parse_timestamp(job["status"]["startTime"])
        left = (start + timedelta(seconds=deadline) - now).total_seconds()
        if left <= 0:
            return f"Job {name} has failed because it was active longer than specified deadline"
        result.look_again_seconds = left
    return None


def _replace_failed(
    job: dict[str, Any], result: PyTorchJobPlan, by_name: dict[str, dict[str, Any]], stamp: str
) -> None:
    """Failed pods end the job or, under ``ExitCode`` with a retryable code, make room for new ones."""
    name = job["metadata"]["name"]
    for type_, spec in job["spec"]["pytorchReplicaSpecs"].items():
        failed = [
            pod
            for pod_name, pod in by_name.items()
            if pod_name.startswith(f"{name}-{type_.lower()}-") and phase(pod) == "Failed" and not is_terminating(pod)
        ]
        if not failed:
            continue
        retryable = [pod for pod in failed if _is_retryable(spec.get("restartPolicy"), pod)]
        how_many = f"because {len(failed)} {type_} replica(s) failed."
        if len(retryable) < len(failed):
            _end(job, result, "Failed", f"{_KIND} {name} is failed {how_many}", stamp)
            return
        result.delete += [pod["metadata"]["name"] for pod in retryable]
        remove_condition(job, "Running")
        _mark(job, "Restarting", f"is restarting {how_many}", stamp)
        message = f"{_KIND} {name} is restarting {how_many}"
        result.events.append(("Warning", f"{_KIND}Restarting", message))


def _is_retryable(restart_policy: str | None, pod: dict[str, Any]) -> bool:
    """Always and OnFailure pods are restarted in place; one that failed nevertheless was killed, and is replaced."""
    if restart_policy != "ExitCode":
        return restart_policy != "Never"
    return _exit_code(pod) >= _FIRST_RETRYABLE_EXIT_CODE


def _exit_code(pod: dict[str, Any]) -> int:
    for container in pod.get("status", {}).get("containerStatuses", ()):
        if container["name"] == CONTAINER_NAME and "terminated" in container.get("state", {}):
            return int(container["state"]["terminated"]["exitCode"])
    return 0


def _has_succeeded(job: dict[str, Any], by_name: dict[str, dict[str, Any]]) -> bool:
    """The master alone decides; without one all workers must succeed, or any of an elastic job's."""
    name, specs = job["metadata"]["name"], job["spec"]["pytorchReplicaSpecs"]
    if "Master" in specs:
        master = by_name.get(replica_name(name, "Master", 0))
        return master is not None and phase(master) == "Succeeded"
    done = [phase(by_name.get(replica_name(name, one.type, one.index), {})) == "Succeeded" for one in replicas(job)]
    return any(done) if job["spec"].get("elasticPolicy") else all(done)


def _leads_run(job: dict[str, Any]) -> bool:
    statuses = job["status"]["replicaStatuses"]
    leading = "Master" if "Master" in job["spec"]["pytorchReplicaSpecs"] else "Worker"
    return bool(statuses[leading].get("active"))


def _clean_up(job: dict[str, Any], result: PyTorchJobPlan, pods: Sequence[dict[str, Any]], now: datetime) -> None:
    policy = job["spec"].get("runPolicy", {})
    cleaned = policy.get("cleanPodPolicy", "None")
    result.delete = [
        pod["metadata"]["name"]
        for pod in pods
        if not is_terminating(pod) and (cleaned == "All" or (cleaned == "Running" and not is_finished(pod)))
    ]
    ttl = policy.get("ttlSecondsAfterFinished")
    if ttl is not None:
        ended = parse_timestamp(job["status"]["completionTime"])
        left = (ended + timedelta(seconds=ttl) - now).total_seconds()
        result.delete_job = left <= 0
        result.look_again_seconds = left if left > 0 else None


def _end(job: dict[str, Any], result: PyTorchJobPlan, type_: str, message: str, stamp: str) -> None:
    job["status"]["completionTime"] = stamp
    set_false(job, "Running", stamp)
    remove_condition(job, "Restarting")
    set_condition(job, type_, f"{_KIND}{type_}", message, stamp)
    result.events.append(("Normal" if type_ == "Succeeded" else "Warning", f"{_KIND}{type_}", message))


def _mark(job: dict[str, Any], type_: str, what: str, stamp: str) -> None:
    set_condition(job, type_, f"{_KIND}{type_}", f"{_KIND} {job['metadata']['name']} {what}", stamp)
