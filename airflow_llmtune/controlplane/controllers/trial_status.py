"""A Trial's conditions, and how its job's state is read through the success and failure conditions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from airflow_llmtune.controlplane.controllers import gjson
from airflow_llmtune.controlplane.controllers.conditions import has_condition, set_condition, set_false

JobState = Literal["Running", "Succeeded", "Failed", "Unreadable"]

_ENDED = ("Succeeded", "Failed", "Killed", "EarlyStopped", "MetricsUnavailable")


@dataclass(frozen=True)
class JobStatus:
    """``Unreadable``: a condition selects something that has no reason and message, so nothing can be said."""

    state: JobState
    reason: str = ""
    message: str = ""


def is_completed(trial: dict[str, Any]) -> bool:
    return any(has_condition(trial, type_) for type_ in _ENDED)


def job_status(trial: dict[str, Any], job: dict[str, Any]) -> JobStatus:
    """The failure condition is asked first, so a job that shows both has failed."""
    for state, path in (("Failed", "failureCondition"), ("Succeeded", "successCondition")):
        found = gjson.get(job, trial["spec"][path])
        if isinstance(found, dict) or (isinstance(found, list) and found):
            return _told(state, found[0] if isinstance(found, list) else found)  # type: ignore[arg-type]
    return JobStatus("Running")


def is_final_refusal(code: int, message: str) -> bool:
    """Whether the answer to the job's creation lies in the job itself.

    What is absent may come, and a 403 that is no webhook's (a quota, a namespace that ends) may pass.
    """
    return code in {400, 422} or (code == 403 and message.startswith("admission webhook"))


def _told(state: JobState, condition: Any) -> JobStatus:
    """A path holds when it selects an object or a list that is not empty; the (first) object explains it."""
    if not isinstance(condition, dict):
        return JobStatus("Unreadable")
    texts = [condition.get(field) or "" for field in ("reason", "message")]
    if not all(isinstance(text, str) for text in texts):
        return JobStatus("Unreadable")
    return JobStatus(state, *texts)


def mark_created(trial: dict[str, Any], now: str) -> None:
    status = trial.setdefault("status", {})
    status.setdefault("startTime", now)
    status.setdefault("completionTime", None)
    set_condition(trial, "Created", "TrialCreated", "Trial is created", now)


def mark_running(trial: dict[str, Any], now: str) -> None:
    set_condition(trial, "Running", "TrialRunning", "Trial is running", now)


def mark_succeeded(trial: dict[str, Any], job: JobStatus, now: str) -> None:
    _mark_ended(trial, "Succeeded", "TrialSucceeded", "Trial has succeeded", job, now)


def mark_failed(trial: dict[str, Any], job: JobStatus, now: str) -> None:
    _mark_ended(trial, "Failed", "TrialFailed", "Trial has failed", job, now)


def mark_metrics_unavailable(trial: dict[str, Any], job: JobStatus, now: str) -> None:
    _mark_ended(trial, "MetricsUnavailable", "MetricsUnavailable", "Metrics are not available", job, now)


def mark_killed(trial: dict[str, Any], now: str) -> None:
    if not has_condition(trial, "Created"):
        mark_created(trial, now)  # Put in later it would seem to be the newest state.
    _mark_ended(trial, "Killed", "TrialKilled", "Trial is killed", JobStatus("Running"), now)


def _mark_ended(trial: dict[str, Any], type_: str, reason: str, message: str, job: JobStatus, now: str) -> None:
    if job.reason:
        reason = f"{reason}. Job reason: {job.reason}"
    if job.message:
        message = f"{message}. Job message: {job.message}"
    set_false(trial, "Running", now)
    set_condition(trial, type_, reason, message, now)
    trial["status"]["completionTime"] = now
