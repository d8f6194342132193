"""What a batch/v1 Job does next: its status, the pods to make and to delete. Pure.

Who has succeeded and failed is counted in ``job_count``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_llmtune.controlplane.clock import seconds_left, timestamp
from airflow_llmtune.controlplane.controllers import job_count
from airflow_llmtune.controlplane.controllers.job_conditions import is_true, set_condition, true_condition
from airflow_llmtune.controlplane.controllers.job_count import Count, is_indexed
from airflow_llmtune.controlplane.controllers.job_indexes import failure_counts, indexes_of, rule_met, unneeded
from airflow_llmtune.controlplane.pods import finished_at, is_finished, is_ready, phase, restarts

Object = dict[str, Any]

LONGEST_BACKOFF_SECONDS = 360.0
_MOST_DOUBLINGS = 20

_BACKOFF = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
_DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
_TOO_MANY_INDEXES = (
    "MaxFailedIndexesExceeded",
    "Job has exceeded the specified maximal number of failed indexes",
)
_FAILED_INDEXES = ("FailedIndexes", "Job has failed indexes")
_COMPLETE = ("CompletionsReached", "Reached expected number of succeeded pods")


@dataclass(frozen=True)
class NewPod:
    """One to make; the numbers are for an Indexed Job only."""

    index: int | None = None
    failures: int | None = None
    ignored_failures: int = 0


@dataclass(frozen=True)
class _Verdict:
    """The end that the job is heading for: first the target condition, the final one when all pods are gone."""

    target: str
    reason: str
    message: str

    @property
    def final(self) -> str:
        return "Failed" if self.target == "FailureTarget" else "Complete"


@dataclass
class JobPlan:
    status: Object
    create: list[NewPod] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    drop: list[Object] = field(default_factory=list)
    """Active pods to delete without counting them, so their finalizer goes first."""
    release: list[Object] = field(default_factory=list)
    """Pods that are in the counters now."""
    delete_job: bool = False
    look_again_seconds: float | None = None
    events: list[tuple[str, str, str]] = field(default_factory=list)
    """Type, reason and message."""

    def look_again(self, seconds: float | None) -> None:
        if seconds is not None:
            self.look_again_seconds = min(seconds, self.look_again_seconds or seconds)

    def withdraw(self, count: int) -> None:
        """So many of the pods to make could not be made."""
        self.status["active"] -= count
        if not self.status["active"]:
            del self.status["active"]


def is_job_finished(job: Object) -> bool:
    return any(is_true(job.get("status", {}), type_) for type_ in ("Complete", "Failed"))


def plan(job: Object, pods: Sequence[Object], now: datetime, base_seconds: float) -> JobPlan:
    """``base_seconds`` is the delay after the first failed pod; each further one doubles it."""
    spec = job["spec"]
    result = JobPlan(copy.deepcopy(job.get("status", {})))
    if is_job_finished(job):
        result.release = [pod for pod in pods if job_count.is_tracked(pod)]
        _expire(spec, result, now)
        return result
    status = result.status
    if not spec.get("suspend"):
        status.setdefault("startTime", timestamp(now))
    count = job_count.count(spec, status, pods)
    verdict = _target(status) or _verdict(count, now)
    if verdict is not None:
        _wind_up(count, result, verdict, now)
    else:
        _scale(count, result, now, base_seconds)
        _suspend_or_resume(spec, result, now)
        _look_at_deadline(spec, result, now)
    job_count.write_counters(count)
    _summarise(result, count)
    return result


def _target(status: Object) -> _Verdict | None:
    """The verdict of an earlier call that still waits for pods to end."""
    for target in ("SuccessCriteriaMet", "FailureTarget"):
        condition = true_condition(status, target)
        if condition is not None:
            return _Verdict(target, condition["reason"], condition["message"])
    return None


def _verdict(count: Count, now: datetime) -> _Verdict | None:
    failure = _failure(count, now)
    if failure is not None:
        return _Verdict("FailureTarget", *failure)
    met = rule_met(count.spec.get("successPolicy"), count.succeeded_indexes, count.spec.get("completions") or 0)
    if met is not None:
        return _Verdict("SuccessCriteriaMet", "SuccessPolicy", met)
    return _Verdict("SuccessCriteriaMet", *_COMPLETE) if _is_complete(count) else None


def _failure(count: Count, now: datetime) -> tuple[str, str] | None:
    spec = count.spec
    fatal = job_count.fatal_message(count)
    if fatal:
        return "PodFailurePolicy", fatal
    if count.failed > spec["backoffLimit"] or _restarted_too_often(count):
        return _BACKOFF
    left = _seconds_to_deadline(count.spec, count.status, now)
    if left is not None and left <= 0:
        return _DEADLINE
    failed = len(count.failed_indexes)
    if failed and failed > spec.get("maxFailedIndexes", failed):
        return _TOO_MANY_INDEXES
    if failed and failed + count.succeeded >= spec["completions"]:
        return _FAILED_INDEXES
    return None


def _restarted_too_often(count: Count) -> bool:
    """With ``restartPolicy: OnFailure`` the kubelet restarts in place; those restarts count as failures."""
    if count.spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    total = sum(restarts(pod) for pod in count.pods if not is_finished(pod))
    limit = count.spec["backoffLimit"]
    return bool(total > 0 if limit == 0 else total >= limit)


def _is_complete(count: Count) -> bool:
    completions = count.spec.get("completions")
    if completions is None:  # A work queue: any success means that the queue is empty.
        return count.succeeded > 0 and not count.active
    return count.succeeded >= completions and not count.active


def _wind_up(count: Count, result: JobPlan, verdict: _Verdict, now: datetime) -> None:
    """As since Kubernetes 1.31: the Job has ended only when all its pods have, and are counted."""
    status = result.status
    result.delete = [pod["metadata"]["name"] for pod in count.active]
    result.release = count.tracked()
    if verdict.final == "Failed":
        for pod in count.tracked():
            if phase(pod) != "Succeeded" and not job_count.ignores(count.spec, pod):
                count.note_failed(pod)
    if not is_true(status, verdict.target):
        set_condition(status, verdict.target, verdict.reason, verdict.message, now)
    if count.active or count.terminating or not count.is_settled:
        return
    set_condition(status, verdict.final, verdict.reason, verdict.message, now)
    if verdict.final == "Complete":
        status["completionTime"] = timestamp(now)
        result.events.append(("Normal", "Completed", "Job completed"))
    else:
        result.events.append(("Warning", verdict.reason, verdict.message))


def _suspend_or_resume(spec: Object, result: JobPlan, now: datetime) -> None:
    status, suspended = result.status, is_true(result.status, "Suspended")
    if spec.get("suspend"):
        status.pop("startTime", None)
        if not suspended:
            set_condition(status, "Suspended", "JobSuspended", "Job suspended", now)
            result.events.append(("Normal", "Suspended", "Job suspended"))
    elif suspended:
        set_condition(status, "Suspended", "JobResumed", "Job resumed", now, value="False")
        status["startTime"] = timestamp(now)
        result.events.append(("Normal", "Resumed", "Job resumed"))


def _scale(count: Count, result: JobPlan, now: datetime, base_seconds: float) -> None:
    result.release = job_count.countable(count)
    if count.spec.get("suspend"):
        result.drop = count.active
        return
    wanted, active = _wanted(count), count.active
    extra = unneeded(active, count.spec["completions"]) if is_indexed(count.spec) else []
    names = {pod["metadata"]["name"] for pod in extra}
    kept = [pod for pod in active if pod["metadata"]["name"] not in names]
    result.drop = [*extra, *kept[max(wanted, 0) :]]
    if result.drop:
        return
    # A job that replaces only what has failed waits for pods that are still going.
    busy = len(active) + (len(count.terminating) if job_count.replaces_only_failed(count.spec) else 0)
    if wanted > busy:
        _create(count, result, wanted - busy, now, base_seconds)


def _wanted(count: Count) -> int:
    parallelism: int = count.spec["parallelism"]
    completions: int | None = count.spec.get("completions")
    if completions is not None:
        return min(parallelism, completions - count.succeeded)
    return len(count.active) if count.succeeded else parallelism


def _create(count: Count, result: JobPlan, missing: int, now: datetime, base_seconds: float) -> None:
    if count.spec.get("backoffLimitPerIndex") is None:
        delay = _backoff_seconds(count.pods, count.spec, now, base_seconds)
        if delay > 0:
            result.look_again(delay)
        elif is_indexed(count.spec):
            result.create = [NewPod(index) for index in _pending_indexes(count)[:missing]]
        else:
            result.create = [NewPod()] * missing
        return
    replaced = job_count.last_failures(count)
    for index in _pending_indexes(count)[:missing]:
        pod = replaced.get(index)
        delay = 0.0 if pod is None else _delay(sum(failure_counts(pod)) + 1, finished_at(pod), now, base_seconds)
        if delay > 0:
            result.look_again(delay)
        else:
            result.create.append(NewPod(index, *_next_counts(count, pod)))


def _next_counts(count: Count, replaced: Object | None) -> tuple[int, int]:
    if replaced is None:
        return 0, 0
    failures, ignored = failure_counts(replaced)
    return (failures, ignored + 1) if job_count.ignores(count.spec, replaced) else (failures + 1, ignored)


def _pending_indexes(count: Count) -> list[int]:
    completions = count.spec["completions"]
    taken = count.succeeded_indexes | count.failed_indexes | indexes_of(count.active, completions)
    if job_count.replaces_only_failed(count.spec):
        taken |= indexes_of(count.terminating, completions)
    return [index for index in range(completions) if index not in taken]


def _backoff_seconds(pods: Sequence[Object], spec: Any, now: datetime, base_seconds: float) -> float:
    """How long to wait still, given the failures since the last success."""
    ended = [pod for pod in pods if phase(pod) == "Succeeded" or job_count.is_failed(pod, spec)]
    failures: list[Object] = []
    for pod in sorted(ended, key=finished_at):
        failures = [] if phase(pod) == "Succeeded" else [*failures, pod]
    return _delay(len(failures), finished_at(failures[-1]), now, base_seconds) if failures else 0.0


def _delay(failures: int, last: str, now: datetime, base_seconds: float) -> float:
    delay = min(base_seconds * 2 ** min(failures - 1, _MOST_DOUBLINGS), LONGEST_BACKOFF_SECONDS)
    return seconds_left(last, delay, now)


def _look_at_deadline(spec: Object, result: JobPlan, now: datetime) -> None:
    if not spec.get("suspend"):
        result.look_again(_seconds_to_deadline(spec, result.status, now))


def _seconds_to_deadline(spec: Any, status: Object, now: datetime) -> float | None:
    limit = spec.get("activeDeadlineSeconds")
    if limit is None or spec.get("suspend") or "startTime" not in status:
        return None
    return seconds_left(status["startTime"], limit, now)


def _expire(spec: Object, result: JobPlan, now: datetime) -> None:
    ttl = spec.get("ttlSecondsAfterFinished")
    if ttl is None:
        return
    ended = true_condition(result.status, "Complete") or true_condition(result.status, "Failed")
    assert ended is not None
    left = seconds_left(ended["lastTransitionTime"], ttl, now)
    if left <= 0:
        result.delete_job = True
    else:
        result.look_again(left)


def _summarise(result: JobPlan, count: Count) -> None:
    """The counters of the present; a pod that this plan deletes counts as terminating already."""
    going = {*result.delete, *(pod["metadata"]["name"] for pod in result.drop)}
    active = [pod for pod in count.active if pod["metadata"]["name"] not in going]
    counters = {
        "active": len(active) + len(result.create),
        "ready": sum(is_ready(pod) for pod in active),
        "terminating": len(count.terminating) + len(count.active) - len(active),
    }
    for name, value in counters.items():
        # Kubernetes shows ready and terminating also when they are zero, active only when it is not.
        if value or name != "active":
            result.status[name] = value
        else:
            result.status.pop(name, None)
