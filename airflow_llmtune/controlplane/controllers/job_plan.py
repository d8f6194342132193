"""What a batch/v1 Job does next: its status, the pods to make and to delete. Pure.

Only ``completionMode: NonIndexed``; ``podFailurePolicy``, ``successPolicy`` and ``podReplacementPolicy`` are
not looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from airflow_llmtune.controlplane.clock import parse_timestamp, timestamp
from airflow_llmtune.controlplane.controllers.pod_template import (
    finished_at,
    is_active,
    is_finished,
    is_ready,
    is_terminating,
    phase,
    restarts,
)

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
"""On each pod until the Job has counted its end, so that a deleted pod is not lost from the counters."""

LONGEST_BACKOFF_SECONDS = 360.0
_MOST_DOUBLINGS = 20

_BACKOFF = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
_DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
_COMPLETE = ("CompletionsReached", "Reached expected number of succeeded pods")


@dataclass
class JobPlan:
    status: dict[str, Any]
    create: int = 0
    delete: list[str] = field(default_factory=list)
    release: list[dict[str, Any]] = field(default_factory=list)
    """Finished pods that are in the counters now."""
    delete_job: bool = False
    look_again_seconds: float | None = None
    event: tuple[str, str, str] | None = None
    """Type, reason and message."""


def is_job_finished(job: dict[str, Any]) -> bool:
    return any(_condition(job.get("status", {}), type_) for type_ in ("Complete", "Failed"))


def plan(job: dict[str, Any], pods: Sequence[dict[str, Any]], now: datetime, base_seconds: float) -> JobPlan:
    """``base_seconds`` is the delay after the first failed pod; each further one doubles it."""
    spec = job["spec"]
    result = JobPlan(copy.deepcopy(job.get("status", {})))
    if is_job_finished(job):
        result.release = _tracked(pods)
        _expire(job, result, now)
        return result
    status = result.status
    _count(result, pods, suspended=bool(spec.get("suspend")))
    active = [pod for pod in pods if is_active(pod)]
    _suspend_or_resume(job, result, active, now)
    if not spec.get("suspend"):
        status.setdefault("startTime", timestamp(now))
        _decide(spec, result, pods, active, now, base_seconds)
    removed = set(result.delete)
    _summarise(status, [pod for pod in active if pod["metadata"]["name"] not in removed], pods, result.create)
    return result


def _tracked(pods: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [pod for pod in pods if is_finished(pod) and _is_tracked(pod)]


def _is_tracked(pod: dict[str, Any]) -> bool:
    return TRACKING_FINALIZER in pod["metadata"].get("finalizers", ())


def _count(result: JobPlan, pods: Sequence[dict[str, Any]], *, suspended: bool) -> None:
    result.release = _tracked(pods)
    for pod in result.release:
        if suspended and is_terminating(pod):
            continue  # Stopped by the suspension: that is no failure.
        counter = phase(pod).lower()
        result.status[counter] = result.status.get(counter, 0) + 1


def _suspend_or_resume(job: dict[str, Any], result: JobPlan, active: Sequence[dict[str, Any]], now: datetime) -> None:
    status, suspended = result.status, _condition(result.status, "Suspended")
    if job["spec"].get("suspend"):
        result.delete = [pod["metadata"]["name"] for pod in active]
        status.pop("startTime", None)
        if not suspended:
            _set(status, "Suspended", "JobSuspended", "Job suspended", now)
    elif suspended:
        _set(status, "Suspended", "JobResumed", "Job resumed", now, value="False")


def _decide(
    spec: dict[str, Any],
    result: JobPlan,
    pods: Sequence[dict[str, Any]],
    active: Sequence[dict[str, Any]],
    now: datetime,
    base_seconds: float,
) -> None:
    status = result.status
    verdict = _target(status) or _verdict(spec, status, active, now)
    if verdict is None:
        _scale(spec, result, pods, active, now, base_seconds)
        _look_again(result, _seconds_to_deadline(spec, status, now))
        return
    target, final, reason, message = verdict
    if not _condition(status, target):
        _set(status, target, reason, message, now)
    result.delete = [pod["metadata"]["name"] for pod in active]
    # As since Kubernetes 1.31: the Job has ended only when all its pods have.
    if all(is_finished(pod) for pod in pods):
        _set(status, final, reason, message, now)
        if final == "Complete":
            status["completionTime"] = timestamp(now)
            result.event = ("Normal", "Completed", "Job completed")
        else:
            result.event = ("Warning", reason, message)


def _target(status: dict[str, Any]) -> tuple[str, str, str, str] | None:
    """The verdict of an earlier call that still waits for pods to end."""
    for target, final in (("FailureTarget", "Failed"), ("SuccessCriteriaMet", "Complete")):
        condition = _condition(status, target)
        if condition:
            return target, final, condition["reason"], condition["message"]
    return None


def _verdict(
    spec: dict[str, Any], status: dict[str, Any], active: Sequence[dict[str, Any]], now: datetime
) -> tuple[str, str, str, str] | None:
    if status.get("failed", 0) > spec["backoffLimit"] or _restarted_too_often(spec, active):
        return ("FailureTarget", "Failed", *_BACKOFF)
    seconds = _seconds_to_deadline(spec, status, now)
    if seconds is not None and seconds <= 0:
        return ("FailureTarget", "Failed", *_DEADLINE)
    if _is_complete(spec, status, active):
        return ("SuccessCriteriaMet", "Complete", *_COMPLETE)
    return None


def _restarted_too_often(spec: dict[str, Any], active: Sequence[dict[str, Any]]) -> bool:
    """With ``restartPolicy: OnFailure`` the kubelet restarts in place; those restarts count as failures."""
    if spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    count = sum(restarts(pod) for pod in active)
    return count > 0 if spec["backoffLimit"] == 0 else count >= spec["backoffLimit"]


def _is_complete(spec: dict[str, Any], status: dict[str, Any], active: Sequence[dict[str, Any]]) -> bool:
    succeeded = status.get("succeeded", 0)
    if spec.get("completions") is None:  # A work queue: any success means that the queue is empty.
        return succeeded > 0 and not active
    return bool(succeeded >= spec["completions"])


def _scale(
    spec: dict[str, Any],
    result: JobPlan,
    pods: Sequence[dict[str, Any]],
    active: Sequence[dict[str, Any]],
    now: datetime,
    base_seconds: float,
) -> None:
    wanted = spec["parallelism"]
    if spec.get("completions") is not None:
        wanted = min(wanted, spec["completions"] - result.status.get("succeeded", 0))
    elif result.status.get("succeeded", 0):
        wanted = len(active)
    missing = wanted - len(active)
    if missing < 0:
        result.delete = [pod["metadata"]["name"] for pod in active[missing:]]
        return
    delay = _backoff_seconds(pods, now, base_seconds)
    if missing and delay > 0:
        _look_again(result, delay)
    else:
        result.create = missing


def _backoff_seconds(pods: Sequence[dict[str, Any]], now: datetime, base_seconds: float) -> float:
    """How long to wait still, given the failures since the last success."""
    ended = sorted((pod for pod in pods if is_finished(pod)), key=finished_at)
    failures: list[dict[str, Any]] = []
    for pod in ended:
        failures = [*failures, pod] if phase(pod) == "Failed" else []
    if not failures:
        return 0.0
    delay = min(base_seconds * 2 ** min(len(failures) - 1, _MOST_DOUBLINGS), LONGEST_BACKOFF_SECONDS)
    return (parse_timestamp(finished_at(failures[-1])) + timedelta(seconds=delay) - now).total_seconds()


def _seconds_to_deadline(spec: dict[str, Any], status: dict[str, Any], now: datetime) -> float | None:
    limit = spec.get("activeDeadlineSeconds")
    if limit is None or "startTime" not in status:
        return None
    return (parse_timestamp(status["startTime"]) + timedelta(seconds=limit) - now).total_seconds()


def _expire(job: dict[str, Any], result: JobPlan, now: datetime) -> None:
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None:
        return
    ended = _condition(result.status, "Complete") or _condition(result.status, "Failed")
    assert ended is not None
    left = (parse_timestamp(ended["lastTransitionTime"]) + timedelta(seconds=ttl) - now).total_seconds()
    result.delete_job = left <= 0
    if left > 0:
        _look_again(result, left)


def _look_again(result: JobPlan, seconds: float | None) -> None:
    if seconds is not None:
        earlier = result.look_again_seconds
        result.look_again_seconds = seconds if earlier is None else min(earlier, seconds)


def _summarise(
    status: dict[str, Any], active: Sequence[dict[str, Any]], pods: Sequence[dict[str, Any]], created: int
) -> None:
    terminating = sum("deletionTimestamp" in pod["metadata"] and not is_finished(pod) for pod in pods)
    counters = {
        "active": len(active) + created,
        "ready": sum(map(is_ready, active)),
        "terminating": terminating,
    }
    for name, value in counters.items():
        # Kubernetes shows ready and terminating also when they are zero, active only when it is not.
        if value or name != "active":
            status[name] = value
        else:
            status.pop(name, None)
    status["uncountedTerminatedPods"] = {}


def _condition(status: dict[str, Any], type_: str) -> dict[str, Any] | None:
    for condition in status.get("conditions", ()):
        if condition["type"] == type_ and condition["status"] == "True":
            found: dict[str, Any] = condition
            return found
    return None


def _set(status: dict[str, Any], type_: str, reason: str, message: str, now: datetime, *, value: str = "True") -> None:
    conditions = status.setdefault("conditions", [])
    conditions[:] = [one for one in conditions if one["type"] != type_]
    moment = timestamp(now)
    conditions.append(
        {
            "type": type_,
            "status": value,
            "reason": reason,
            "message": message,
            "lastProbeTime": moment,
            "lastTransitionTime": moment,
        }
    )
