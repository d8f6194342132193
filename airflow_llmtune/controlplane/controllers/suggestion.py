"""The Suggestion controller: draws as many parameter sets as are requested.

Differs from Katib: the algorithm runs in this process, so there is no Deployment, Service or gRPC; the
conditions are set as if one were there and ready at once.
"""

from __future__ import annotations

import asyncio
import copy
import random
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.algorithms import catalog, search_space
from airflow_llmtune.controlplane.algorithms.request import PastTrial, SearchAlgorithm, SearchRequest
from airflow_llmtune.controlplane.apiserver.kinds import EXPERIMENT, SUGGESTION, TRIAL
from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.controllers import suggestion_status
from airflow_llmtune.controlplane.controllers.conditions import has_condition
from airflow_llmtune.controlplane.controllers.experiment_plan import EXPERIMENT_LABEL
from airflow_llmtune.controlplane.controllers.observation import trial_number
from airflow_llmtune.controlplane.controllers.runtime import Controller

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 8

_ENDED_BADLY = ("Failed", "Killed", "MetricsUnavailable")


class ShortfallError(Exception):
    """The algorithm has fewer parameter sets left than are requested."""


class SuggestionController(Controller):
    kind = SUGGESTION

    def __init__(self, registry: Registry, clock: Clock) -> None:
        super().__init__(registry)
        self._clock = clock

    async def reconcile(self, namespace: str, name: str) -> float | None:
        suggestion = self.registry.find(SUGGESTION, namespace, name)
        if suggestion is None or suggestion_status.is_completed(suggestion):
            return None
        algorithm = await asyncio.to_thread(catalog.load, suggestion["spec"]["algorithm"]["algorithmName"])
        experiment = self.registry.find(EXPERIMENT, namespace, name)
        if experiment is None:
            return None
        before = copy.deepcopy(suggestion.get("status"))
        self._advance(suggestion, experiment, algorithm)
        if suggestion.get("status") != before:
            self.registry.update_status(SUGGESTION, suggestion)
        return None

    def _advance(self, suggestion: dict[str, Any], experiment: dict[str, Any], algorithm: SearchAlgorithm) -> None:
        now = timestamp(self._clock())
        suggestion_status.mark_created(suggestion, now)
        suggestion_status.mark_ready(suggestion, now)
        try:
            request = self._search_request(suggestion, experiment)
            if not has_condition(suggestion, "Running"):
                algorithm.validate(request)
        except search_space.InvalidSettingsError as error:
            suggestion_status.mark_invalid(suggestion, str(error), now)
            return
        suggestion_status.mark_running(suggestion, now)
        _draw(suggestion, algorithm, request)

    def _search_request(self, suggestion: dict[str, Any], experiment: dict[str, Any]) -> SearchRequest:
        spec = experiment["spec"]
        settings = suggestion["spec"]["algorithm"].get("algorithmSettings") or []
        return SearchRequest(
            space=search_space.parse(spec.get("parameters", ())),
            minimize=spec["objective"]["type"] == "minimize",
            settings={setting["name"]: setting["value"] for setting in settings},
            past=self._past(suggestion, experiment),
            max_trial_count=spec.get("maxTrialCount"),
            experiment_uid=experiment["metadata"]["uid"],
        )

    def _past(self, suggestion: dict[str, Any], experiment: dict[str, Any]) -> list[PastTrial]:
        """Everything suggested so far; a parameter set without a Trial is about to run.

        Differs from Katib: Trials are looked up in the Experiment's own namespace only.
        """
        metadata = experiment["metadata"]
        selector = f"{EXPERIMENT_LABEL}={metadata['name']}"
        trials, _ = self.registry.list(TRIAL, metadata["namespace"], label_selector=selector)
        by_name = {trial["metadata"]["name"]: trial for trial in trials}
        return [
            _past_trial(one, by_name.get(one["name"]), experiment["spec"]["objective"])
            for one in suggestion.get("status", {}).get("suggestions", ())
        ]


def _past_trial(suggested: dict[str, Any], trial: dict[str, Any] | None, objective: dict[str, Any]) -> PastTrial:
    assignments = {one["name"]: one["value"] for one in suggested["parameterAssignments"]}
    if trial is None:
        return PastTrial(assignments)
    number = trial_number(trial, objective)
    if number is not None:
        return PastTrial(assignments, "complete", number)
    failed = any(has_condition(trial, type_) for type_ in _ENDED_BADLY)
    return PastTrial(assignments, "failed" if failed else "running")


def _draw(suggestion: dict[str, Any], algorithm: SearchAlgorithm, request: SearchRequest) -> None:
    status = suggestion["status"]
    missing = suggestion["spec"]["requests"] - status.get("suggestionCount", 0)
    if missing <= 0:
        return
    drawn = algorithm.suggest(request, missing)
    if len(drawn) != missing:
        raise ShortfallError(f"The response contains unexpected trials: {len(drawn)} instead of {missing}")
    status.setdefault("suggestions", []).extend(
        {
            "name": f"{suggestion['metadata']['name']}-{_suffix()}",
            "parameterAssignments": [{"name": name, "value": value} for name, value in one.items()],
        }
        for one in drawn
    )
    status["suggestionCount"] = len(status["suggestions"])


def _suffix() -> str:
    return "".join(random.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))  # noqa: S311  a name, no secret
