"""How many Trials an Experiment gets next, and which of the suggested ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_llmtune.controlplane.controllers.conditions import has_condition
from airflow_llmtune.controlplane.controllers.experiment_status import count, ended_count

EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
"""On every Trial: the name of its Experiment."""


@dataclass(frozen=True)
class Budget:
    add: int = 0
    remove: int = 0


def budget(experiment: dict[str, Any]) -> Budget:
    """The Trials to add or to remove, given the counters of a fresh status.

    Differs from Katib: Trials without metrics count as ended here too, so there are never more Trials than
    ``maxTrialCount``. Upstream leaves them out and creates a surplus.
    """
    spec = experiment["spec"]
    parallel, most = spec["parallelTrialCount"], spec.get("maxTrialCount")
    active = count(experiment, "Pending", "Running")
    if active > parallel:
        return Budget(remove=active - parallel)
    required = parallel if most is None else min(most - ended_count(experiment), parallel)
    return Budget(add=max(required - active, 0))


def wanted_requests(trials: Sequence[dict[str, Any]], add: int) -> int:
    """``requests`` of the Suggestion: early-stopped Trials whose metrics are not there yet are held back."""
    unobserved = sum(has_condition(trial, "EarlyStopped") and "observation" not in trial["status"] for trial in trials)
    return len(trials) + add - unobserved


def new_assignments(trials: Sequence[dict[str, Any]], suggestion: dict[str, Any], add: int) -> list[dict[str, Any]]:
    """The suggested parameter sets that no Trial has yet; a deleted Trial therefore comes back."""
    taken = {trial["metadata"]["name"] for trial in trials}
    suggested = suggestion.get("status", {}).get("suggestions", [])
    return [assignment for assignment in suggested if assignment["name"] not in taken][:add]


def surplus(trials: Sequence[dict[str, Any]], remove: int) -> list[str]:
    """The Trials to delete: the newest, whatever their state."""
    newest_first = sorted(trials, key=age, reverse=True)
    return [trial["metadata"]["name"] for trial in newest_first[:remove]]


def age(trial: dict[str, Any]) -> tuple[str, str]:
    return trial["metadata"]["creationTimestamp"], trial["metadata"]["name"]


def without_suggestions(suggestion: dict[str, Any], names: Sequence[str]) -> None:
    """Forget parameter sets, so that their Trials do not come back."""
    status = suggestion.setdefault("status", {})
    kept = [one for one in status.get("suggestions", []) if one["name"] not in names]
    status["suggestions"] = kept
    status["suggestionCount"] = len(kept)
