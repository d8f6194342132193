"""Waits for a Katib Experiment."""

from __future__ import annotations

from typing import Any

from airflow_llmtune.resources import experiment
from airflow_llmtune.triggers.base import WaitTrigger

__all__ = ["KatibExperimentTrigger"]


class KatibExperimentTrigger(WaitTrigger):
    """Fires when an Experiment has finished; see :class:`WaitTrigger` for the arguments."""

    kind = experiment.KIND
    read_outcome = staticmethod(experiment.read_outcome)

    @staticmethod
    def describe(obj: dict[str, Any]) -> str:
        counts = experiment.read_counts(obj)
        total = obj["spec"].get("maxTrialCount", "unbounded")
        done = counts["trials"] - counts["running"] - counts["pending"]
        parts = [f"{done}/{total} trials done, {counts['running']} running"]
        parts += [f"{counts[key]} {key}" for key in ("failed", "metrics_unavailable", "early_stopped") if counts[key]]
        if (best := experiment.read_optimum(obj)) is not None:
            metric = obj["spec"]["objective"]["objectiveMetricName"]
            parts.append(f"best {metric}={best.objective:.6g} ({best.trial})")
        return ", ".join(parts)
