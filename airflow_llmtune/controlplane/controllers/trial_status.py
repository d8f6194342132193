"""A Trial's conditions, and how its job's state is read through the success and failure conditions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from airflow_llmtune.controlplane.controllers import gjson
from airflow_llmtune.controlplane.controllers.conditions import has_condition, set_condition, set_false

JobState = Literal["Running", "Succeeded", "Failed"]

_ENDED = ("Succeeded", "Failed", "Killed", "EarlyStopped", "MetricsUnavailable")


@dataclass(frozen=True)
class JobStatus:
    state: JobState
    reason: str = ""
    message: str = ""


def is_completed(trial: dict[str, Any]) -> bool:
    return any(has_condition(trial, type_) for type_ in _ENDED)


def job_status(trial: dict[str, Any], job: dict[str, Any]) -> JobStatus:
    """The failure condition is asked first, so a job that shows both has failed."""
    failed = _selected(job, trial["spec"]["failureCondition"])
    if failed is not None:
        return JobStatus("Failed", str(failed.get("reason", "")), str(failed.get("message", "")))
    succeeded = _selected(job, trial["spec"]["successCondition"])
    if succeeded is not None:
        return JobStatus("Succeeded", str(succeeded.get("reason", "")), str(succeeded.get("message", "")))
    return JobStatus("Running")


def _selected(job: dict[str, Any], path: str) -> dict[str, Any] | None:
    """A path holds when it selects an object or a list that is not empty; the (first) object explains it."""
    found = gjson.get(job, path)
    if isinstance(found, list) and found:
        return found[0] if isinstance(found[0], dict) else {}
    return found if isinstance(found, dict) else None


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


def _mark_ended(trial: dict[str, Any], type_: str, reason: str, message: str, job: JobStatus, now: str) -> None:
    if job.reason:
        reason = f"{reason}. Job reason: {job.reason}"
    if job.message:
        message = f"{message}. Job message: {job.message}"
    set_false(trial, "Running", now)
    set_condition(trial, type_, reason, message, now)
    trial["status"]["completionTime"] = now
