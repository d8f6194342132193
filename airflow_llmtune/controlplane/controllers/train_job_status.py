"""A TrainJob's status, read off its JobSet. Pure.

Only ``Suspended``, ``Complete`` and ``Failed`` exist: whether it runs is told by ``jobsStatus``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.clock import seconds_left, timestamp
from airflow_llmtune.controlplane.controllers.meta_conditions import condition, find, is_true, put

Object = dict[str, Any]

_DEADLINE = condition("Failed", "DeadlineExceeded", "TrainJob exceeded its active deadline")
_SUSPENDED = condition("Suspended", "Suspended", "TrainJob is suspended")
_RESUMED = condition("Suspended", "Resumed", "TrainJob is resumed", status="False")


def is_finished(job: Object) -> bool:
    status = job.get("status", {})
    return is_true(status, "Complete") or is_true(status, "Failed")


def set_suspended(job: Object, now: datetime) -> None:
    status = job.setdefault("status", {})
    if job["spec"].get("suspend"):
        put(status, _SUSPENDED, timestamp(now))
    elif is_true(status, "Suspended"):
        put(status, _RESUMED, timestamp(now))


def mirror(job: Object, job_set: Object, now: datetime) -> None:
    """The JobSet's end with its reason, message and time, and its counters."""
    status, seen = job.setdefault("status", {}), job_set.get("status", {})
    for theirs, ours in (("Completed", "Complete"), ("Failed", "Failed")):
        found = find(seen, theirs)
        if found is not None and found["status"] == "True":
            put(status, {**found, "type": ours}, timestamp(now))
    names = ("name", "ready", "succeeded", "failed", "active", "suspended")
    counters = [{name: one[name] for name in names} for one in seen.get("replicatedJobsStatus", ())]
    if counters:
        status["jobsStatus"] = counters


def set_unsupported(job: Object, text: str, now: datetime) -> None:
    put(job.setdefault("status", {}), condition("Failed", "TrainingRuntimeNotSupported", text), timestamp(now))


def set_overdue(job: Object, now: datetime) -> None:
    put(job.setdefault("status", {}), _DEADLINE, timestamp(now))


def seconds_to_deadline(job: Object, now: datetime) -> float | None:
    """Counted from the creation, or from the last time it was resumed."""
    limit = job["spec"].get("activeDeadlineSeconds")
    if limit is None or is_finished(job) or job["spec"].get("suspend"):
        return None
    resumed = find(job.get("status", {}), "Suspended")
    start = job["metadata"]["creationTimestamp"] if resumed is None else resumed["lastTransitionTime"]
    return seconds_left(start, limit, now)
