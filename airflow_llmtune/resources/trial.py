"""A Katib Trial: one parameter set, its run and its metrics. We only read it; the Experiment makes it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_llmtune.resources.meta import ResourceKind, condition, finite, path

__all__ = [
    "KIND",
    "TRIAL_LABEL",
    "metric_strategies",
    "read_assignments",
    "read_metrics",
    "read_missing_metric",
    "read_trial",
]

KIND = ResourceKind("kubeflow.org", "v1beta1", "Trial", "trials")
# Katib's webhook puts a trial's name on its pods.
TRIAL_LABEL = "katib.kubeflow.org/trial"

# An early stopped trial keeps Running "True"; so the ends come before it.
_PHASES = ("Failed", "MetricsUnavailable", "EarlyStopped", "Killed", "Succeeded", "Running", "Created")
_FAILED = ("Failed", "MetricsUnavailable", "Killed")
_UNFINISHED = ("Running", "Created", "Pending")


def read_trial(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The Trial in plain values; parameters keep Katib's texts, ``seconds`` is None until it has ended."""
    held = ((phase, condition(obj, phase)) for phase in _PHASES)
    phase, entry = next(((phase, entry) for phase, entry in held if entry is not None), ("Pending", {}))
    start, completion = (_seconds(path(obj, "status", key)) for key in ("startTime", "completionTime"))
    return {
        "name": obj["metadata"]["name"],
        "phase": phase,
        "finished": phase not in _UNFINISHED,
        "failed": phase in _FAILED,
        "reason": entry.get("reason") or "",
        "message": entry.get("message") or "",
        "parameters": read_assignments(path(obj, "spec", "parameterAssignments")),
        "metrics": read_metrics(path(obj, "status", "observation"), metric_strategies(path(obj, "spec", "objective"))),
        "start": start,
        "completion": completion,
        "seconds": None if start is None or completion is None else completion - start,
    }


def read_missing_metric(obj: Mapping[str, Any]) -> str | None:
    """Why a trial whose job has ended well is of no use: which metric it lacks; None when it is not that."""
    read = read_trial(obj)
    metric = path(obj, "spec", "objective", "objectiveMetricName")
    if read["phase"] not in ("Succeeded", "MetricsUnavailable") or metric in read["metrics"]:
        return None
    entries = path(obj, "status", "observation", "metrics") or []
    latest = next((entry.get("latest") for entry in entries if entry["name"] == metric), None)
    if latest in (None, "unavailable"):
        if path(obj, "spec", "metricsCollector", "collector", "kind") == "Push":
            return f"no finite value of {metric} was reported to Katib's DB manager, and with Push nobody else looks"
        return f"no finite value of {metric} was found in its output: it needs a line such as {metric}=0.5"
    return f"the value of {metric} is no finite number: {latest!r}"


def read_assignments(assignments: Any) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in assignments or []}


def metric_strategies(objective: Any) -> dict[str, str]:
    """Metric name to ``min``, ``max`` or ``latest``, with Katib's defaults where the spec has none."""
    objective = objective if isinstance(objective, Mapping) else {}
    default = {"minimize": "min", "maximize": "max"}.get(objective.get("type", ""), "latest")
    names = [objective.get("objectiveMetricName"), *(objective.get("additionalMetricNames") or [])]
    strategies = {name: default for name in names if name}
    strategies |= {entry["name"]: entry["value"] for entry in objective.get("metricStrategies") or []}
    return strategies


def read_metrics(observation: Any, strategies: Mapping[str, str]) -> dict[str, float]:
    """One finite number a metric; a metric without one ("unavailable", "", NaN) is left out."""
    resolved = ((entry["name"], _resolve(entry, strategies)) for entry in path(observation, "metrics") or [])
    return {name: number for name, number in resolved if number is not None}


def _resolve(entry: Mapping[str, Any], strategies: Mapping[str, str]) -> float | None:
    text = entry.get(strategies.get(entry["name"], "latest"))
    # Katib falls back the same way: min and max exist only for values that it could parse.
    return finite(entry.get("latest") if text in (None, "unavailable") else text)


def _seconds(timestamp: Any) -> float | None:
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else None
