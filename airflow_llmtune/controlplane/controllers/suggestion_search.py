"""From a Suggestion, its Experiment and the Trials to what the algorithm is asked, and from its reply to assignments.
Pure.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_llmtune.controlplane.algorithms import search_space
from airflow_llmtune.controlplane.algorithms.request import PastTrial, SearchRequest, Suggested, TrialOutcome
from airflow_llmtune.controlplane.controllers.conditions import has_condition
from airflow_llmtune.controlplane.controllers.observation import objective_value, trial_number
from airflow_llmtune.controlplane.controllers.suggestion_status import SEARCH_ENDED, kept_settings

Object = dict[str, Any]

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 8

_ENDED_BADLY = ("Failed", "Killed", "MetricsUnavailable")


class UnreadableValueError(Exception):
    """Strict: a Trial's objective is a text that upstream's algorithms cannot read."""


def search_request(
    suggestion: Object, experiment: Object, trials: Sequence[Object], settings: Mapping[str, str], *, strict: bool
) -> SearchRequest:
    """Raises InvalidSettingsError for a space that cannot be searched."""
    spec = experiment["spec"]
    return SearchRequest(
        space=search_space.parse(spec.get("parameters", ())),
        minimize=spec["objective"]["type"] == "minimize",
        settings=settings,
        past=_past(suggestion, experiment, trials, strict=strict),
        max_trial_count=spec.get("maxTrialCount"),
        parallel_trial_count=spec["parallelTrialCount"],
        resume_policy=spec["resumePolicy"],
        experiment_name=experiment["metadata"]["name"],
        experiment_uid=experiment["metadata"]["uid"],
        strict=strict,
    )


def own_settings(suggestion: Object) -> dict[str, str]:
    return {
        one.get("name", ""): one.get("value", "")
        for one in suggestion["spec"]["algorithm"].get("algorithmSettings") or ()
    }


def overlaid_settings(suggestion: Object) -> dict[str, str]:
    """With the state that the algorithm gave back last time."""
    settings = {**own_settings(suggestion), **kept_settings(suggestion)}
    settings.pop(SEARCH_ENDED, None)
    return settings


def _past(suggestion: Object, experiment: Object, trials: Sequence[Object], *, strict: bool) -> list[PastTrial]:
    """Everything suggested so far; a parameter set without a Trial is about to run.

    In ``strict`` the trials may be of other namespaces too; those come first, so that this search's own end the list.
    """
    namespace, objective = experiment["metadata"]["namespace"], experiment["spec"]["objective"]
    by_name = {one["metadata"]["name"]: one for one in trials if one["metadata"]["namespace"] == namespace}
    own = [
        _past_trial(one, by_name.get(one["name"]), objective, strict=strict)
        for one in suggestion.get("status", {}).get("suggestions", ())
    ]
    names = {parameter["name"] for parameter in experiment["spec"].get("parameters", ())}
    foreign = [_foreign(one, objective) for one in trials if one["metadata"]["namespace"] != namespace]
    return [*(one for one in foreign if one.assignments.keys() == names), *own]


def _foreign(trial: Object, objective: Object) -> PastTrial:
    suggested = {
        "name": trial["metadata"]["name"],
        "parameterAssignments": trial["spec"].get("parameterAssignments", []),
    }
    return _past_trial(suggested, trial, objective, strict=True)


def _past_trial(suggested: Object, trial: Object | None, objective: Object, *, strict: bool) -> PastTrial:
    assignments = {one["name"]: one["value"] for one in suggested["parameterAssignments"]}
    outcome: TrialOutcome = "running"
    number = None
    if trial is not None:
        if strict:
            _check_readable(trial, objective)
        number = trial_number(trial, objective)
        outcome = "complete" if number is not None else _outcome_without_value(trial)
    return PastTrial(assignments, outcome, number, suggested["name"], suggested.get("labels") or {})


def _outcome_without_value(trial: Object) -> TrialOutcome:
    if has_condition(trial, "EarlyStopped"):
        # Until its metrics are stored nothing is known of it.
        return "failed" if "observation" in trial["status"] else "running"
    return "failed" if any(has_condition(trial, type_) for type_ in _ENDED_BADLY) else "running"


def _check_readable(trial: Object, objective: Object) -> None:
    text = objective_value(trial.get("status", {}).get("observation", {}), objective)
    if text is None or has_condition(trial, "MetricsUnavailable"):
        return
    try:
        float(text)
    except ValueError as error:
        raise UnreadableValueError(f"Exception calling application: {error}") from error


def assignments_of(suggestion: Object, suggested: Iterable[Suggested], rules: Sequence[Object]) -> list[Object]:
    """As they stand in the Suggestion's status."""
    made = []
    for one in suggested:
        assignment: Object = {
            "name": one.name or f"{suggestion['metadata']['name']}-{_suffix()}",
            "parameterAssignments": [{"name": name, "value": value} for name, value in one.assignments.items()],
        }
        if rules:
            assignment["earlyStoppingRules"] = list(rules)
        if one.labels:
            assignment["labels"] = dict(one.labels)
        made.append(assignment)
    return made


def _suffix() -> str:
    return "".join(random.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))  # noqa: S311  a name, no secret
