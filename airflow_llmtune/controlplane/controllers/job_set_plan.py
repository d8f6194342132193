"""What a JobSet does next: its status, the Jobs to make, to delete and to hold or set going. Pure.

One call looks at everything; what it decides is written before the next.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.clock import seconds_left, timestamp
from airflow_llmtune.controlplane.controllers import job_set_jobs as parts
from airflow_llmtune.controlplane.controllers.job_conditions import true_condition
from airflow_llmtune.controlplane.controllers.meta_conditions import Condition, condition, find, is_true, put

Object = dict[str, Any]

_COUNTERS = ("ready", "succeeded", "failed", "active", "suspended")
_STARTUP = ("StartupPolicyInProgress", "StartupPolicyCompleted")
_IN_PROGRESS = condition(
    "StartupPolicyInProgress", "InOrderStartupPolicyInProgress", "in order startup policy is in progress"
)
_STARTED = condition("StartupPolicyCompleted", "InOrderStartupPolicyCompleted", "in order startup policy has completed")
_COMPLETED = condition("Completed", "AllJobsCompleted", "jobset completed successfully")
_SUSPENDED = condition("Suspended", "SuspendedJobs", "jobset is suspended")
_RESUMED = condition("Suspended", "ResumeJobs", "jobset is resumed", status="False")
_RESTART_TEXTS = {
    "RestartJobSet": "applying RestartJobSet failure policy action",
    "RestartJobSetAndIgnoreMaxRestarts": "applying RestartJobSetAndIgnoreMaxRestarts failure policy action",
}


@dataclass
class JobSetPlan:
    status: Object
    create: list[Object] = field(default_factory=list)
    update: list[Object] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    service: Object | None = None
    delete_job_set: bool = False
    look_again_seconds: float | None = None
    events: list[tuple[str, str, str]] = field(default_factory=list)
    """Type, reason and message."""


@dataclass
class _Children:
    """The Jobs of this attempt by how they stand; ``previous`` are those of attempts before."""

    active: list[Object] = field(default_factory=list)
    succeeded: list[Object] = field(default_factory=list)
    failed: list[Object] = field(default_factory=list)
    previous: list[Object] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        everyone = [*self.active, *self.succeeded, *self.failed, *self.previous]
        return {child["metadata"]["name"] for child in everyone}


def is_finished(job_set: Object) -> bool:
    status = job_set.get("status", {})
    return is_true(status, "Completed") or is_true(status, "Failed")


def plan(job_set: Object, jobs: Sequence[Object], now: datetime) -> JobSetPlan:
    """``jobs`` are those that the JobSet owns."""
    job_set = copy.deepcopy(job_set)
    status = job_set.setdefault("status", {})
    status.setdefault("restarts", 0)
    result = JobSetPlan(status)
    children = _sorted(jobs, status["restarts"])
    status["replicatedJobsStatus"] = _counters(job_set, children)
    if is_finished(job_set):
        result.delete = _names(children.active)
        _expire(job_set, result, now)
        return result
    result.delete = _names(children.previous)
    stamp = timestamp(now)
    suspended = bool(job_set["spec"].get("suspend"))
    if not suspended and _all_ready(job_set):
        _end_restart(result, "JobsReady", "all jobs are ready", stamp)
    if children.failed:
        _apply_failure_policy(job_set, children.failed, result, stamp)
    elif children.succeeded and _has_succeeded(job_set, children.succeeded):
        _finish(result, _COMPLETED, "JobSetCompleted", _COMPLETED["message"], stamp)
    else:
        if job_set["spec"]["network"]["enableDNSHostnames"]:
            result.service = parts.service(job_set)
        _make_jobs(job_set, children, result, stamp)
        _hold_or_resume(job_set, children, result, stamp)
    return result


def _sorted(jobs: Sequence[Object], restarts: int) -> _Children:
    found = _Children()
    for child in jobs:
        status = child.get("status", {})
        if int(child["metadata"]["labels"].get(parts.RESTART, 0)) < restarts:
            found.previous.append(child)
        elif true_condition(status, "Complete"):
            found.succeeded.append(child)
        elif true_condition(status, "Failed"):
            found.failed.append(child)
        else:
            found.active.append(child)
    return found


def _names(jobs: Sequence[Object]) -> list[str]:
    return [child["metadata"]["name"] for child in jobs if "deletionTimestamp" not in child["metadata"]]


def _of(jobs: Sequence[Object], name: str) -> list[Object]:
    return [child for child in jobs if child["metadata"]["labels"].get(parts.REPLICATED_JOB) == name]


def _counters(job_set: Object, children: _Children) -> list[Object]:
    found = []
    for replicated in job_set["spec"].get("replicatedJobs") or ():
        name = replicated["name"]
        active = _of(children.active, name)
        values = (
            sum(_is_ready(child) for child in active),
            len(_of(children.succeeded, name)),
            len(_of(children.failed, name)),
            sum(child.get("status", {}).get("active", 0) > 0 for child in active),
            sum(bool(child["spec"].get("suspend")) for child in active),
        )
        found.append({"name": name, **dict(zip(_COUNTERS, values, strict=True))})
    return found


def _is_ready(child: Object) -> bool:
    spec, status = child["spec"], child.get("status", {})
    expected = min(spec["parallelism"], spec.get("completions", spec["parallelism"]))
    return bool(status.get("succeeded", 0) + status.get("ready", 0) >= expected)


def _all_ready(job_set: Object) -> bool:
    wanted = sum(one["replicas"] for one in job_set["spec"].get("replicatedJobs") or ())
    return bool(wanted == sum(one["ready"] + one["succeeded"] for one in job_set["status"]["replicatedJobsStatus"]))


def _counters_of(job_set: Object, name: str) -> Object:
    found: Object = next(one for one in job_set["status"]["replicatedJobsStatus"] if one["name"] == name)
    return found


def _has_succeeded(job_set: Object, succeeded: Sequence[Object]) -> bool:
    policy = job_set["spec"]["successPolicy"]
    jobs = job_set["spec"]["replicatedJobs"]
    targets = policy.get("targetReplicatedJobs") or [one["name"] for one in jobs]
    wanted = 1 if policy["operator"] == "Any" else sum(one["replicas"] for one in jobs if one["name"] in targets)
    return sum(child["metadata"]["labels"][parts.REPLICATED_JOB] in targets for child in succeeded) >= wanted


def _apply_failure_policy(job_set: Object, failed: Sequence[Object], result: JobSetPlan, stamp: str) -> None:
    policy, status = job_set["spec"].get("failurePolicy"), result.status
    ordered = sorted(
        failed, key=lambda child: str((true_condition(child["status"], "Failed") or {})["lastTransitionTime"])
    )
    if policy is None:
        _fail(result, "FailedJobs", "jobset failed due to one or more job failures", ordered[0], stamp)
        return
    rule, child = _matching_rule(policy, ordered)
    action = "RestartJobSet" if rule is None else rule["action"]
    if action == "FailJobSet":
        _fail(result, "FailJobSetFailurePolicyAction", "applying FailJobSet failure policy action", child, stamp)
        return
    if action == "RestartJobSet":
        if status.get("restartsCountTowardsMax", 0) >= policy.get("maxRestarts", 0):
            text = "jobset failed due to reaching max number of restarts"
            _fail(result, "ReachedMaxRestarts", text, child, stamp)
            return
        status["restartsCountTowardsMax"] = status.get("restartsCountTowardsMax", 0) + 1
    status["restarts"] += 1
    message = _with_first(_RESTART_TEXTS[action], child)
    reason = "DefaultFailurePolicy" if rule is None else f"FailurePolicy_{rule['name']}"
    _put(result, condition("RestartingJobSet", reason, message), stamp, "Warning")
    result.events.append(("Warning", f"{action}FailurePolicyAction", message))


def _matching_rule(policy: Object, ordered: Sequence[Object]) -> tuple[Object | None, Object]:
    for rule in policy.get("rules") or ():
        for child in ordered:
            if _applies(rule, child):
                return rule, child
    return None, ordered[0]


def _applies(rule: Object, child: Object) -> bool:
    failure = true_condition(child["status"], "Failed") or {}
    reasons, patterns = rule.get("onJobFailureReasons"), rule.get("onJobFailureMessagePatterns")
    targets = rule.get("targetReplicatedJobs")
    return (
        (not reasons or failure["reason"] in reasons)
        and (not patterns or any(re.search(pattern, failure["message"]) for pattern in patterns))
        and (not targets or child["metadata"]["labels"][parts.REPLICATED_JOB] in targets)
    )


def _make_jobs(job_set: Object, children: _Children, result: JobSetPlan, stamp: str) -> None:
    spec = job_set["spec"]
    in_order = not spec.get("suspend") and spec["startupPolicy"]["startupPolicyOrder"] == "InOrder"
    strategy = (spec.get("failurePolicy") or {}).get("restartStrategy")
    waits = strategy == "BlockingRecreate" and bool(children.previous)
    for replicated in spec.get("replicatedJobs") or ():
        if not _dependencies_met(job_set, replicated) or (in_order and _has_started(job_set, replicated)):
            continue
        if not waits:
            names = {index: parts.job_name(job_set, replicated, index) for index in range(replicated["replicas"])}
            missing = [index for index, name in names.items() if name not in children.names]
            result.create += [parts.job(job_set, replicated, index) for index in missing]
        if in_order:
            _put(result, _IN_PROGRESS, stamp)
            return
    if in_order:
        _put(result, _STARTED, stamp)


def _dependencies_met(job_set: Object, replicated: Object) -> bool:
    replicas = {one["name"]: one["replicas"] for one in job_set["spec"]["replicatedJobs"]}
    for dependency in replicated.get("dependsOn") or ():
        name, counters = dependency["name"], _counters_of(job_set, dependency["name"])
        counted = counters["succeeded"]
        if dependency["status"] == "Ready":
            counted += counters["ready"] + counters["failed"]
        if counted != replicas[name]:
            return False
    return True


def _has_started(job_set: Object, replicated: Object) -> bool:
    counters = _counters_of(job_set, replicated["name"])
    return bool(replicated["replicas"] == counters["failed"] + counters["ready"] + counters["succeeded"])


def _hold_or_resume(job_set: Object, children: _Children, result: JobSetPlan, stamp: str) -> None:
    spec = job_set["spec"]
    if spec.get("suspend"):
        result.update = [
            {**child, "spec": {**child["spec"], "suspend": True}}
            for child in children.active
            if not child["spec"].get("suspend")
        ]
        _put(result, _SUSPENDED, stamp)
        _end_restart(result, "JobSetSuspended", _SUSPENDED["message"], stamp)
        return
    in_order = spec["startupPolicy"]["startupPolicyOrder"] == "InOrder"
    for replicated in spec.get("replicatedJobs") or ():
        if not _dependencies_met(job_set, replicated) or (in_order and _has_started(job_set, replicated)):
            continue
        held = [child for child in _of(children.active, replicated["name"]) if child["spec"].get("suspend")]
        result.update += [parts.resumed(child, replicated) for child in held]
        if in_order:
            return
    if find(result.status, "Suspended") is not None:
        _put(result, _RESUMED, stamp)


def _fail(result: JobSetPlan, reason: str, text: str, child: Object, stamp: str) -> None:
    _finish(result, condition("Failed", reason, _with_first(text, child)), "JobSetFailed", "jobset failed", stamp)


def _with_first(text: str, child: Object) -> str:
    return f"{text} (first failed job: {child['metadata']['name']})"


def _finish(result: JobSetPlan, end: Condition, reason: str, message: str, stamp: str) -> None:
    _put(result, end, stamp, "Warning" if end["type"] == "Failed" else "Normal")
    _end_restart(result, reason, message, stamp)
    result.status["terminalState"] = end["type"]


def _end_restart(result: JobSetPlan, reason: str, message: str, stamp: str) -> None:
    if is_true(result.status, "RestartingJobSet"):
        _put(result, condition("RestartingJobSet", reason, message, status="False"), stamp)


def _put(result: JobSetPlan, new: Condition, stamp: str, event_type: str = "Normal") -> None:
    """Each change of a condition is told as an event."""
    if put(result.status, new, stamp):
        result.events.append((event_type, new["reason"], new["message"]))
    other = find(result.status, next((type_ for type_ in _STARTUP if type_ != new["type"]), ""))
    if new["type"] in _STARTUP and other is not None:
        other["status"] = "False"


def _expire(job_set: Object, result: JobSetPlan, now: datetime) -> None:
    ttl = job_set["spec"].get("ttlSecondsAfterFinished")
    if ttl is None:
        return
    done = "Completed" if is_true(result.status, "Completed") else "Failed"
    left = seconds_left((find(result.status, done) or {})["lastTransitionTime"], ttl, now)
    result.delete_job_set = left <= 0
    result.look_again_seconds = left if left > 0 else None
