"""How many Trials an Experiment gets next, and which of the suggested ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_llmtune.controlplane.controllers.conditions import has_condition
from airflow_llmtune.controlplane.controllers.experiment_status import awaits_observation, count, ended_count
from airflow_llmtune.controlplane.controllers.observation import is_available

EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
"""On every Trial: the name of its Experiment."""


@dataclass(frozen=True)
class Budget:
    add: int = 0
    remove: int = 0


def budget(experiment: dict[str, Any], *, strict: bool = False) -> Budget:
    """The Trials to add or to remove, given the counters of a fresh status.

    Differs from Katib unless strict: Trials without metrics count as ended here too, so there are never more
    Trials than ``maxTrialCount``. Upstream leaves them out and creates a surplus.
    """
    spec = experiment["spec"]
    parallel, most = spec["parallelTrialCount"], spec.get("maxTrialCount")
    active = count(experiment, "Pending", "Running")
    if active > parallel:
        return Budget(remove=active - parallel)
    ended = ended_count(experiment) - (count(experiment, "MetricsUnavailable") if strict else 0)
    required = parallel if most is None else min(most - ended, parallel)
    return Budget(add=max(required - active, 0))


def wanted_requests(trials: Sequence[dict[str, Any]], add: int, *, strict: bool = False) -> int:
    """``requests`` of the Suggestion: early-stopped Trials whose metrics are not there yet are held back."""
    unobserved = sum(_is_unobserved(trial, strict=strict) for trial in trials)
    return len(trials) + add - unobserved


def _is_unobserved(trial: dict[str, Any], *, strict: bool) -> bool:
    """Differs from Katib unless strict: a Trial whose metrics will never come is not waited for."""
    if not strict:
        return awaits_observation(trial)
    observation = trial.get("status", {}).get("observation", {})
    return has_condition(trial, "EarlyStopped") and not is_available(observation, trial["spec"]["objective"])


def new_assignments(
    trials: Sequence[dict[str, Any]], suggestion: dict[str, Any], add: int, *, strict: bool = False
) -> list[dict[str, Any]]:
    """The suggested parameter sets that no Trial has yet; a deleted Trial therefore comes back.

    Differs from Katib unless strict: when several were deleted, no more come back at once than may run.
    """
    taken = {trial["metadata"]["name"] for trial in trials}
    suggested = suggestion.get("status", {}).get("suggestions", [])
    missing = [assignment for assignment in suggested if assignment["name"] not in taken]
    return missing if strict else missing[:add]


def surplus(trials: Sequence[dict[str, Any]], remove: int) -> list[str]:
    """The Trials to delete: the newest, whatever their state."""
    newest_first = sorted(trials, key=age, reverse=True)
    return [trial["metadata"]["name"] for trial in newest_first[:remove]]


def age(trial: dict[str, Any]) -> tuple[str, str]:
    return trial["metadata"]["creationTimestamp"], trial["metadata"]["name"]


def without_suggestions(suggestion: dict[str, Any], names: Sequence[str]) -> None:
    """Forget parameter sets, so that their Trials do not come back, and ask for no others."""
    status = suggestion.setdefault("status", {})
    kept = [one for one in status.get("suggestions", []) if one["name"] not in names]
    status["suggestions"] = kept
    status["suggestionCount"] = suggestion["spec"]["requests"] = len(kept)
