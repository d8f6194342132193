"""What an Experiment's status says about its Trials: lists, counters, optimum, conditions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_llmtune.controlplane.controllers.conditions import (
    find_condition,
    has_condition,
    remove_condition,
    set_condition,
    set_false,
)
from airflow_llmtune.controlplane.controllers.observation import Optimum, find_optimum

GOAL_REACHED = "ExperimentGoalReached"
MAX_TRIALS_REACHED = "ExperimentMaxTrialsReached"
SUGGESTION_END_REACHED = "ExperimentSuggestionEndReached"
FAILED = "ExperimentFailed"

# In the order in which a Trial's conditions are asked; the counter of unavailable metrics is spelt irregularly.
_STATES = (
    ("Killed", "killedTrialList", "trialsKilled"),
    ("Failed", "failedTrialList", "trialsFailed"),
    ("Succeeded", "succeededTrialList", "trialsSucceeded"),
    ("EarlyStopped", "earlyStoppedTrialList", "trialsEarlyStopped"),
    ("Running", "runningTrialList", "trialsRunning"),
    ("MetricsUnavailable", "metricsUnavailableTrialList", "trialMetricsUnavailable"),
    ("Pending", "pendingTrialList", "trialsPending"),
)
_FIELDS = {state: (names, counter) for state, names, counter in _STATES}
_ENDED = ("Succeeded", "Failed", "Killed", "EarlyStopped", "MetricsUnavailable")


def is_completed(experiment: dict[str, Any]) -> bool:
    return has_condition(experiment, "Succeeded") or has_condition(experiment, "Failed")


def trial_state(trial: dict[str, Any]) -> str:
    for state, _, _ in _STATES:
        if has_condition(trial, state):
            return state
    return "Pending"


def awaits_observation(trial: dict[str, Any]) -> bool:
    """Whether it was stopped early and its metrics are not there yet."""
    return has_condition(trial, "EarlyStopped") and "observation" not in trial["status"]


def count(experiment: dict[str, Any], *states: str) -> int:
    status = experiment.get("status", {})
    return sum(status.get(_FIELDS[state][1], 0) for state in states)


def ended_count(experiment: dict[str, Any]) -> int:
    """All Trials that use up budget."""
    return count(experiment, *_ENDED)


def mark_created(experiment: dict[str, Any], now: str) -> None:
    status = experiment.setdefault("status", {})
    status.setdefault("startTime", now)
    status.setdefault("completionTime", None)
    status.setdefault("currentOptimalTrial", {"observation": {}})
    set_condition(experiment, "Created", "ExperimentCreated", "Experiment is created", now)


def mark_suggestion_failed(experiment: dict[str, Any], now: str, *, strict: bool = False) -> None:
    """Differs from Katib unless strict: there this end has no completionTime."""
    _fail(experiment, "Suggestion has failed", now)
    if strict:
        experiment["status"]["completionTime"] = None


def mark_restarting(experiment: dict[str, Any], now: str) -> None:
    remove_condition(experiment, "Succeeded")
    remove_condition(experiment, "Failed")
    set_condition(experiment, "Restarting", "ExperimentRestarting", "Experiment is restarted", now)


def is_restartable(experiment: dict[str, Any]) -> bool:
    """Whether it ended for want of budget and its policy lets it go on when it gets more."""
    if experiment["spec"].get("resumePolicy") not in {"LongRunning", "FromVolume"}:
        return False
    succeeded = find_condition(experiment, "Succeeded")
    return succeeded is not None and succeeded["status"] == "True" and succeeded.get("reason") == MAX_TRIALS_REACHED


def refresh(
    experiment: dict[str, Any],
    trials: Sequence[dict[str, Any]],
    now: str,
    *,
    search_is_over: bool = False,
    strict: bool = False,
) -> None:
    """Recompute the summary, and the conditions unless the Experiment is completed already."""
    _summarise(experiment, trials)
    optimum = find_optimum(trials, experiment["spec"]["objective"], strict=strict)
    if optimum.trial is not None:
        # As upstream, an optimum whose Trial is gone is kept until another Trial has a value.
        experiment["status"]["currentOptimalTrial"] = _shown(optimum.trial)
    if not is_completed(experiment):
        # Differs from Katib unless strict: the budget counts as used up only when all that was measured is known.
        unobserved = 0 if strict else sum(awaits_observation(trial) for trial in trials)
        _judge(experiment, optimum, ended_count(experiment) - unobserved, search_is_over, now)


def _summarise(experiment: dict[str, Any], trials: Sequence[dict[str, Any]]) -> None:
    status = experiment.setdefault("status", {})
    names_of: dict[str, list[str]] = {state: [] for state in _FIELDS}
    for trial in trials:
        names_of[trial_state(trial)].append(trial["metadata"]["name"])
    # Empty lists and zero counters are absent, as Go's omitempty leaves them out.
    for state, (names, counter) in _FIELDS.items():
        _set_or_drop(status, names, names_of[state])
        _set_or_drop(status, counter, len(names_of[state]))
    _set_or_drop(status, "trials", len(trials))


def _set_or_drop(status: dict[str, Any], field: str, value: list[str] | int) -> None:
    if value:
        status[field] = value
    else:
        status.pop(field, None)


def _shown(best: dict[str, Any]) -> dict[str, Any]:
    return {
        "bestTrialName": best["metadata"]["name"],
        "parameterAssignments": best["spec"].get("parameterAssignments", []),
        "observation": best["status"]["observation"],
    }


def _judge(experiment: dict[str, Any], optimum: Optimum, ended: int, search_is_over: bool, now: str) -> None:
    """Goal first, then the failure limit, then the budget: the order decides when several hold at once."""
    spec = experiment["spec"]
    failed = count(experiment, "Failed", "MetricsUnavailable")
    most, most_failed = spec.get("maxTrialCount"), spec.get("maxFailedTrialCount")
    if optimum.reaches_goal:
        _succeed(experiment, GOAL_REACHED, "Objective goal has reached", now)
    elif most_failed is not None and failed and failed >= most_failed:
        _fail(experiment, "Experiment has failed because max failed count has reached", now)
    elif most is not None and ended >= most:
        _succeed(experiment, MAX_TRIALS_REACHED, "max trial count has reached", now)
    elif search_is_over and ended == experiment["status"].get("trials"):
        _succeed(experiment, SUGGESTION_END_REACHED, "suggestion service has reached the end", now)
    else:
        set_condition(experiment, "Running", "ExperimentRunning", "Experiment is running", now)


def _succeed(experiment: dict[str, Any], reason: str, why: str, now: str) -> None:
    experiment["status"]["completionTime"] = now
    set_false(experiment, "Running", now)
    set_condition(experiment, "Succeeded", reason, f"Experiment has succeeded because {why}", now)


def _fail(experiment: dict[str, Any], message: str, now: str) -> None:
    experiment["status"]["completionTime"] = now
    set_false(experiment, "Running", now)
    set_condition(experiment, "Failed", FAILED, message, now)
