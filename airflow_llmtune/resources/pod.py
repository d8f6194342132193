"""Pods as we read them: why one failed or cannot start, and what the trainer in it left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_llmtune.resources import job, pytorch_job, train_job
from airflow_llmtune.resources.cause import lacks_claim
from airflow_llmtune.resources.meta import ResourceKind, finite, path
from airflow_llmtune.resources.redaction import redacted

__all__ = ["KIND", "LOG_COLLECTOR", "log_containers", "read_failure", "read_hang", "read_life", "read_training_result"]

KIND = ResourceKind("", "v1", "Pod", "pods")

# Katib sends the output of a trial's last command to a container of its own; what came before is in the trial's.
LOG_COLLECTOR = "metrics-logger-and-collector"

_PRIMARY = (job.CONTAINER, pytorch_job.CONTAINER, train_job.CONTAINER)
# A container passes through these on its way to running.
_STARTING = ("ContainerCreating", "PodInitializing")
# In these it stays until somebody brings what is missing, or another pod.
_HANGING = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
)
_MAX_MESSAGE_LENGTH = 600


def log_containers(pod: Mapping[str, Any]) -> list[str]:
    """The containers whose logs show the training, or why it does not begin."""
    for status in path(pod, "status", "initContainerStatuses") or []:
        if _tell_status("init container", status):
            return [str(status["name"])]
    names = [container["name"] for container in path(pod, "spec", "containers") or []]
    own = [name for name in names if name != LOG_COLLECTOR]
    primary = next((name for name in _PRIMARY if name in own), own[0])
    return [primary, LOG_COLLECTOR] if LOG_COLLECTOR in names else [primary]


def read_failure(pod: Mapping[str, Any]) -> str | None:
    """Why the pod failed or cannot start, in one sentence; None while nothing is wrong with it."""
    # Evicted, or past its deadline: the kubelet ended the pod, and its containers only tell that they were killed.
    if path(pod, "status", "phase") == "Failed" and (reason := path(pod, "status", "reason")):
        return _sentence(f"the pod was ended ({reason})", path(pod, "status", "message"))
    told = (_tell_status(kind, status) for kind, status in _statuses(pod))
    return next((sentence for sentence in told if sentence), None) or _tell_unschedulable(pod)


def read_hang(pod: Mapping[str, Any], missing_volume: str | None = None) -> str | None:
    """
    Why the pod cannot start, in one sentence; None while it may still.

    :param missing_volume: what an event of the pod has told, whose status says nothing of its volumes.
    """
    if path(pod, "status", "phase") in ("Succeeded", "Failed") or path(pod, "metadata", "deletionTimestamp"):
        return None
    for kind, status in _statuses(pod):
        if path(status, "state", "waiting", "reason") in _HANGING:
            return _tell_status(kind, status)
    # No autoscaler makes a claim.
    if (unschedulable := _tell_unschedulable(pod)) and lacks_claim(unschedulable):
        return unschedulable
    if missing_volume is not None and path(pod, "status", "phase") == "Pending":
        return _sentence("a volume cannot be mounted (FailedMount)", missing_volume)
    return None


def read_life(pod: Mapping[str, Any]) -> str:
    """What a pod does with which nothing is wrong."""
    phase = path(pod, "status", "phase") or "Pending"
    since = path(pod, "status", "startTime")
    if phase == "Running" and since:
        return f"runs since {since}"
    waiting = (path(status, "state", "waiting", "reason") for _, status in _statuses(pod))
    reason = next((reason for reason in waiting if reason), None)
    return f"is {phase}" if reason is None else f"is {phase} ({reason})"


def _statuses(pod: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Container statuses, the primary container's first: its failure explains those of its sidecars."""
    regular = path(pod, "status", "containerStatuses") or []
    for status in sorted(regular, key=lambda status: status["name"] not in _PRIMARY):
        yield "container", status
    for status in path(pod, "status", "initContainerStatuses") or []:
        yield "init container", status


def _tell_status(kind: str, status: Mapping[str, Any]) -> str | None:
    subject = f"{kind} {status['name']}"
    waiting = path(status, "state", "waiting") or {}
    ended = path(status, "state", "terminated") or {}
    if not ended and waiting.get("reason") in (None, "CrashLoopBackOff"):
        # It runs again, or will, until a deadline comes; the end before tells why.
        ended = path(status, "lastState", "terminated") or {}
    if ended.get("exitCode"):
        return _tell_end(subject, ended)
    reason = waiting.get("reason")
    if reason and reason not in _STARTING:
        return _sentence(f"{subject} cannot start ({reason})", waiting.get("message"))
    return None


def _tell_end(subject: str, ended: Mapping[str, Any]) -> str:
    reason = ended.get("reason") or "Error"
    if reason == "OOMKilled":
        return f"{subject} ran out of memory (OOMKilled): raise its memory limit, or lower the batch size"
    message = ended.get("message") or ""
    report = _read_report(message)
    if report is not None and report.get("error"):
        message = str(report["error"])
    return _sentence(f"{subject} ended with exit code {ended['exitCode']} ({reason})", message)


def _tell_unschedulable(pod: Mapping[str, Any]) -> str | None:
    for entry in path(pod, "status", "conditions") or []:
        scheduled = entry.get("type") != "PodScheduled" or entry.get("status") != "False"
        if not scheduled and entry.get("reason") == "Unschedulable":
            return _sentence("no node can take the pod (Unschedulable)", entry.get("message"))
    return None


def _sentence(what: str, message: str | None) -> str:
    message = redacted((message or "").strip(), ())
    if len(message) > _MAX_MESSAGE_LENGTH:  # the end of a log says more than its start
        message = "…" + message[-_MAX_MESSAGE_LENGTH:]
    return f"{what}: {message}" if message else what


def read_training_result(pod: Mapping[str, Any]) -> dict[str, Any] | None:
    """The trainer's own summary, finite numbers only; None when it left none."""
    for kind, status in _statuses(pod):
        if kind == "container" and status["name"] in _PRIMARY:
            return _read_report(path(status, "state", "terminated", "message") or "")
    return None


def _read_report(text: str) -> dict[str, Any] | None:
    try:
        report = json.loads(text, parse_constant=lambda _: None, parse_float=finite)
    except ValueError:
        return None
    if not isinstance(report, dict) or report.get("schema_version") != 1:
        return None
    metrics = path(report, "metrics") or {}
    return {
        **report,
        "metrics": {name: value for name, value in metrics.items() if finite(value) is not None},
    }
