"""What a PyTorchJob does next: its status, the pods to make and to delete. Pure."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.clock import seconds_left, timestamp
from airflow_llmtune.controlplane.controllers.conditions import (
    has_condition,
    remove_condition,
    set_condition,
    set_false,
)
from airflow_llmtune.controlplane.controllers.pytorch_env import (
    CONTAINER_NAME,
    Replica,
    replica_name,
    replicas,
    type_selector,
    with_defaults,
)
from airflow_llmtune.controlplane.pods import is_active, is_finished, is_terminating, phase, restarts

Object = dict[str, Any]

_KIND = "PyTorchJob"
_FIRST_RETRYABLE_EXIT_CODE = 128
_NO_EXIT_CODE = 0xBEEF
"""The operator's word for a pod that never told one, such as a lost node's: it counts as retryable."""


@dataclass
class PyTorchJobPlan:
    status: Object
    replicas: list[Replica] = field(default_factory=list)
    """All that are to be there now, each with its Service."""
    create: list[Replica] = field(default_factory=list)
    """Those without a pod."""
    delete: list[str] = field(default_factory=list)
    delete_services: list[str] = field(default_factory=list)
    delete_job: bool = False
    look_again_seconds: float | None = None
    events: list[tuple[str, str, str]] = field(default_factory=list)
    """Type, reason and message."""


def is_job_finished(job: Object) -> bool:
    return has_condition(job, "Succeeded") or has_condition(job, "Failed")


def plan(job: Object, pods: Sequence[Object], now: datetime) -> PyTorchJobPlan:
    """``pods`` are those the job owns; they are told apart by name."""
    job = with_defaults(job)
    result = PyTorchJobPlan(copy.deepcopy(job.setdefault("status", {})))
    job["status"] = result.status
    _mark(job, "Created", f"{_title(job)} is created.", timestamp(now))
    if is_job_finished(job):
        _clean_up(job, result, pods, now)
        if has_condition(job, "Succeeded"):
            _count_rest_as_succeeded(job)
    elif job["spec"]["runPolicy"].get("suspend"):
        _suspend(job, result, pods, timestamp(now))
    else:
        _advance(job, result, pods, now)
    return result


def _advance(job: Object, result: PyTorchJobPlan, pods: Sequence[Object], now: datetime) -> None:
    stamp = timestamp(now)
    if has_condition(job, "Suspended"):
        message = f"{_title(job)} is resumed."
        set_condition(job, "Suspended", f"{_KIND}Resumed", message, stamp, status="False")
        result.events.append(("Normal", f"{_KIND}Resumed", message))
        job["status"]["startTime"] = stamp
    job["status"].setdefault("startTime", stamp)
    over_limit = _limit_reached(job, pods, result, now)
    if over_limit is not None:
        job["status"].setdefault("completionTime", stamp)
        _end(job, result, "Failed", over_limit, stamp)
    else:
        _count_replicas(job, pods)
        _replace_failed(job, result, pods, stamp)
        for type_ in job["spec"]["pytorchReplicaSpecs"]:
            _judge(job, result, type_, stamp)
    if is_job_finished(job):
        _clean_up(job, result, pods, now)
        return
    result.replicas = replicas(job)
    wanted = {replica_name(job["metadata"]["name"], one.type, one.index): one for one in result.replicas}
    there = {pod["metadata"]["name"]: pod for pod in pods}
    result.create = [replica for name, replica in wanted.items() if name not in there]
    result.delete_services = [name for name, pod in there.items() if name not in wanted and not is_terminating(pod)]
    result.delete += result.delete_services


def _suspend(job: Object, result: PyTorchJobPlan, pods: Sequence[Object], stamp: str) -> None:
    result.delete = result.delete_services = [pod["metadata"]["name"] for pod in pods if not is_terminating(pod)]
    for counters in job["status"].get("replicaStatuses", {}).values():
        counters.pop("active", None)
    reason, message = f"{_KIND}Suspended", f"{_title(job)} is suspended."
    if has_condition(job, "Running"):
        set_condition(job, "Running", reason, message, stamp, status="False")
    if not has_condition(job, "Suspended"):
        set_condition(job, "Suspended", reason, message, stamp)
        result.events.append(("Normal", reason, message))


def _of_type(job: Object, pods: Sequence[Object], type_: str) -> list[Object]:
    prefix = f"{job['metadata']['name']}-{type_.lower()}-"
    return [pod for pod in pods if pod["metadata"]["name"].startswith(prefix)]


def _count_replicas(job: Object, pods: Sequence[Object]) -> None:
    """Only pods that run are active to the operator, and a deleted one that still runs has failed."""
    statuses: Object = {}
    for type_ in job["spec"]["pytorchReplicaSpecs"]:
        mine = _of_type(job, pods, type_)
        going = sum(phase(pod) == "Running" and is_terminating(pod) for pod in mine)
        counters = {
            "active": sum(phase(pod) == "Running" and is_active(pod) for pod in mine),
            "succeeded": sum(phase(pod) == "Succeeded" for pod in mine),
            "failed": sum(phase(pod) == "Failed" for pod in mine) + going,
        }
        statuses[type_] = {key: value for key, value in counters.items() if value}
        statuses[type_]["selector"] = type_selector(job["metadata"]["name"], type_)
    job["status"]["replicaStatuses"] = statuses


def _count_rest_as_succeeded(job: Object) -> None:
    for counters in job["status"].get("replicaStatuses", {}).values():
        active = counters.pop("active", 0)
        if active:
            counters["succeeded"] = counters.get("succeeded", 0) + active


def _limit_reached(job: Object, pods: Sequence[Object], result: PyTorchJobPlan, now: datetime) -> str | None:
    name, policy = job["metadata"]["name"], job["spec"]["runPolicy"]
    limit = policy.get("backoffLimit")
    if limit is not None and (_restarted(job, pods) >= max(limit, 1) or (limit == 0 and _has_new_failure(job, pods))):
        return f"Job {name} has failed because it has reached the specified backoff limit"
    deadline = policy.get("activeDeadlineSeconds")
    if deadline is not None:
        left = seconds_left(job["status"]["startTime"], deadline, now)
        if left <= 0:
            return f"Job {name} has failed because it was active longer than specified deadline"
        result.look_again_seconds = left
    return None


def _restarted(job: Object, pods: Sequence[Object]) -> int:
    """Only restarts inside running pods count, so the limit has no effect on pods that are made anew (ExitCode)."""
    return sum(
        restarts(pod)
        for type_, spec in job["spec"]["pytorchReplicaSpecs"].items()
        if spec["restartPolicy"] != "Never"
        for pod in _of_type(job, pods, type_)
        if phase(pod) == "Running"
    )


def _has_new_failure(job: Object, pods: Sequence[Object]) -> bool:
    known = sum(one.get("failed", 0) for one in job["status"].get("replicaStatuses", {}).values())
    failed = sum(phase(pod) == "Failed" for pod in pods)
    return failed > known and sum(is_active(pod) for pod in pods) != len(replicas(job))


def _replace_failed(job: Object, result: PyTorchJobPlan, pods: Sequence[Object], stamp: str) -> None:
    """A failed pod makes room for a new one; under ``ExitCode`` a code that is not retryable ends the job."""
    name, namespace = job["metadata"]["name"], job["metadata"].get("namespace", "")
    for type_, spec in job["spec"]["pytorchReplicaSpecs"].items():
        failed = [pod for pod in _of_type(job, pods, type_) if phase(pod) == "Failed" and not is_terminating(pod)]
        for pod in failed if spec["restartPolicy"] != "Never" else ():
            code = _exit_code(pod)
            if code != _NO_EXIT_CODE:
                text = f"Pod: {namespace}.{pod['metadata']['name']} exited with code {code}"
                result.events.append(("Normal", "ExitedWithCode", text))
            if spec["restartPolicy"] == "ExitCode" and code < _FIRST_RETRYABLE_EXIT_CODE:
                # The operator forgets the completion time here, so that such a job has no time to live either.
                message = f'job "{name}" is failing because "{type_}" replica(s) failed.'
                _end(job, result, "Failed", message, stamp, event_type="Warning")
                continue
            result.delete.append(pod["metadata"]["name"])
            message = f"job {name} is restarting because {type_} replica(s) failed."
            _restart(job, message, stamp)
            result.events.append(("Warning", f"{_KIND}Restarting", message))


def _exit_code(pod: Object) -> int:
    for container in pod.get("status", {}).get("containerStatuses", ()):
        if container["name"] == CONTAINER_NAME and "terminated" in container.get("state", {}):
            return int(container["state"]["terminated"]["exitCode"])
    return _NO_EXIT_CODE


def _judge(job: Object, result: PyTorchJobPlan, type_: str, stamp: str) -> None:
    """What the counters of one type of replica say. After a failure nothing is recorded any more."""
    if is_job_finished(job):
        return
    spec, counters = job["spec"]["pytorchReplicaSpecs"][type_], job["status"]["replicaStatuses"][type_]
    running, succeeded, failed = (counters.get(key, 0) for key in ("active", "succeeded", "failed"))
    leads = type_ == "Master" or "Master" not in job["spec"]["pytorchReplicaSpecs"]
    elastic = type_ == "Worker" and job["spec"].get("elasticPolicy") is not None
    if leads and (succeeded >= spec["replicas"] or (elastic and succeeded)):
        job["status"].setdefault("completionTime", stamp)
        done = "is successfully completed." if type_ == "Master" else "successfully completed."
        _end(job, result, "Succeeded", f"{_title(job, type_)} {done}", stamp)
        return
    if leads and running and not has_condition(job, "Running"):
        remove_condition(job, "Restarting")
        _mark(job, "Running", f"{_title(job, type_)} is running.", stamp)
    if failed and spec["replicas"] > succeeded + running:
        _judge_failed(job, result, type_, failed, stamp)


def _judge_failed(job: Object, result: PyTorchJobPlan, type_: str, failed: int, stamp: str) -> None:
    why = f"because {failed} {type_} replica(s) failed."
    if job["spec"]["pytorchReplicaSpecs"][type_]["restartPolicy"] == "Never":
        job["status"].setdefault("completionTime", stamp)
        _end(job, result, "Failed", f"{_title(job)} is failed {why}", stamp)
    else:
        _restart(job, f"{_title(job)} is restarting {why}", stamp)


def _title(job: Object, type_: str = "Master") -> str:
    """The operator names a job of workers only by its namespace too, once it runs."""
    metadata = job["metadata"]
    return f"{_KIND} {metadata['name']}" if type_ == "Master" else f"{_KIND} {metadata['namespace']}/{metadata['name']}"


def _restart(job: Object, message: str, stamp: str) -> None:
    if not has_condition(job, "Failed"):
        remove_condition(job, "Running")
        _mark(job, "Restarting", message, stamp)


def _clean_up(job: Object, result: PyTorchJobPlan, pods: Sequence[Object], now: datetime) -> None:
    policy = job["spec"]["runPolicy"]
    cleaned = policy["cleanPodPolicy"]
    result.delete = result.delete_services = [
        pod["metadata"]["name"]
        for pod in pods
        if not is_terminating(pod) and (cleaned == "All" or (cleaned == "Running" and not is_finished(pod)))
    ]
    ttl, ended = policy.get("ttlSecondsAfterFinished"), job["status"].get("completionTime")
    if ttl is not None and ended is not None:
        left = seconds_left(ended, ttl, now)
        result.delete_job = left <= 0
        result.look_again_seconds = left if left > 0 else None


def _end(
    job: Object, result: PyTorchJobPlan, type_: str, message: str, stamp: str, *, event_type: str = "Normal"
) -> None:
    set_false(job, "Running", stamp)
    set_condition(job, type_, f"{_KIND}{type_}", message, stamp)
    result.events.append((event_type, f"{_KIND}{type_}", message))


def _mark(job: Object, type_: str, message: str, stamp: str) -> None:
    set_condition(job, type_, f"{_KIND}{type_}", message, stamp)
