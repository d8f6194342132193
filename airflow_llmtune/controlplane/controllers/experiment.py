"""The Experiment controller: asks for suggestions, turns them into Trials, tells how far it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from airflow_llmtune.controlplane.apiserver.kinds import CONFIG_MAP, EXPERIMENT, SUGGESTION, TRIAL
from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.controllers import (
    experiment_plan,
    experiment_status,
    suggestion_status,
    suggestion_workload,
    trial_status,
)
from airflow_llmtune.controlplane.controllers.conditions import has_condition
from airflow_llmtune.controlplane.controllers.experiment_plan import EXPERIMENT_LABEL
from airflow_llmtune.controlplane.controllers.runtime import Controller, is_left_behind, owner_reference
from airflow_llmtune.controlplane.controllers.trial_template import RenderError, render, template_text

if TYPE_CHECKING:
    from airflow_llmtune.controlplane.apiserver.registry import Registry

FINALIZER = "update-prometheus-metrics"


class ExperimentController(Controller):
    kind = EXPERIMENT
    owns = (SUGGESTION, TRIAL)
    failure_prefix = "Failed to reconcile: "

    def __init__(self, registry: Registry, clock: Clock, *, strict: bool = False) -> None:
        super().__init__(registry)
        self._clock = clock
        self._strict = strict

    async def reconcile(self, namespace: str, name: str) -> float | None:
        experiment = self.registry.find(EXPERIMENT, namespace, name)
        if experiment is None or self._keep_finalizer(experiment):
            return None
        before = copy.deepcopy(experiment.get("status"))
        self._advance(experiment)
        if experiment.get("status") != before:
            if experiment_status.is_completed(experiment):
                self._settle(experiment)
            self.registry.update_status(EXPERIMENT, experiment)
        return None

    def _keep_finalizer(self, experiment: dict[str, Any]) -> bool:
        """Whether the finalizer had to be put or taken; the write brings us back here."""
        finalizers = experiment["metadata"].get("finalizers", [])
        deleted = "deletionTimestamp" in experiment["metadata"]
        if deleted != (FINALIZER in finalizers):
            return deleted
        changed = [one for one in finalizers if one != FINALIZER] if deleted else [*finalizers, FINALIZER]
        experiment["metadata"]["finalizers"] = changed
        self.registry.update(EXPERIMENT, experiment)
        return True

    def _advance(self, experiment: dict[str, Any]) -> None:
        now = timestamp(self._clock())
        if experiment_status.is_completed(experiment):
            if self._restarts(experiment):
                experiment_status.mark_restarting(experiment, now)
                self._restart_suggestion(experiment)
            else:
                self._settle_suggestion(experiment)
                if not experiment_status.count(experiment, "Running", "Pending"):
                    return
        if not has_condition(experiment, "Created"):
            experiment_status.mark_created(experiment, now)
            return
        trials = self._trials(experiment)
        is_over = self._search_is_over(experiment, trials)
        # Differs from Katib unless strict: there the counters stay as they were when the only Trial is deleted, so that
        # none is ever made again.
        if trials or is_over or (not self._strict and experiment["status"].get("trials")):
            experiment_status.refresh(experiment, trials, now, search_is_over=is_over, strict=self._strict)
        if not experiment_status.is_completed(experiment):
            self._spend_budget(experiment, trials, now)

    def _restarts(self, experiment: dict[str, Any]) -> bool:
        """Whether a completed Experiment got a larger budget.

        Differs from Katib unless strict: without a ``maxTrialCount`` upstream restarts it again at each look.
        """
        most, trials = experiment["spec"].get("maxTrialCount"), experiment["status"].get("trials", 0)
        if most is None:
            return self._strict and trials != 0
        return bool(experiment_status.is_restartable(experiment) and most > trials)

    def _search_is_over(self, experiment: dict[str, Any], trials: Sequence[dict[str, Any]]) -> bool:
        """Whether nothing more will be suggested, and all that was suggested has its Trial.

        Differs from Katib: there the Experiment waits for ever. A strict Suggestion never says that it has ended.
        """
        suggestion = self._suggestion(experiment)
        if suggestion is None or not suggestion_status.search_ended(suggestion):
            return False
        return not experiment_plan.new_assignments(trials, suggestion, 1)

    def _trials(self, experiment: dict[str, Any]) -> list[dict[str, Any]]:
        """In order of creation: the first seen wins ties of the optimum.

        Differs from Katib: Trials left by an earlier Experiment of the same name are not counted, nor are any whose
        names do not begin with its name, as those of all algorithms do: there may be thousands of others.
        """
        metadata = experiment["metadata"]
        prefix = f"{metadata['name']}-"
        found = self.registry.entries(TRIAL, metadata["namespace"], after=(metadata["namespace"], prefix))
        named = [entry.copy() for entry in takewhile(lambda entry: entry.key[1].startswith(prefix), found)]
        trials = [one for one in named if one["metadata"].get("labels", {}).get(EXPERIMENT_LABEL) == metadata["name"]]
        return sorted((one for one in trials if not is_left_behind(one, experiment)), key=experiment_plan.age)

    def _spend_budget(self, experiment: dict[str, Any], trials: list[dict[str, Any]], now: str) -> None:
        if any("deletionTimestamp" in trial["metadata"] for trial in trials):
            return  # Their end brings us back here; counting them now would delete or add too many.
        budget = experiment_plan.budget(experiment, strict=self._strict)
        if budget.remove:
            self._remove_trials(experiment, experiment_plan.surplus(trials, budget.remove))
        elif budget.add:
            self._add_trials(experiment, trials, budget.add, now)

    def _add_trials(self, experiment: dict[str, Any], trials: Sequence[dict[str, Any]], add: int, now: str) -> None:
        suggestion = self._request(experiment, experiment_plan.wanted_requests(trials, add, strict=self._strict))
        if has_condition(suggestion, "Failed"):
            experiment_status.mark_suggestion_failed(experiment, now, strict=self._strict)
            return
        for assignment in experiment_plan.new_assignments(trials, suggestion, add, strict=self._strict):
            self.registry.create(TRIAL, self._trial(experiment, assignment))

    def _request(self, experiment: dict[str, Any], requests: int) -> dict[str, Any]:
        """The Suggestion, created or with its ``requests`` brought up to date."""
        metadata = experiment["metadata"]
        suggestion = self.registry.find(SUGGESTION, metadata["namespace"], metadata["name"])
        if suggestion is None:
            return self.registry.create(SUGGESTION, _new_suggestion(experiment, requests))
        if is_left_behind(suggestion, experiment):
            return {}  # When it has gone we are called again.
        if suggestion["spec"]["requests"] != requests and not has_condition(suggestion, "Failed"):
            suggestion["spec"]["requests"] = requests
            return self.registry.update(SUGGESTION, suggestion)
        return suggestion

    def _remove_trials(self, experiment: dict[str, Any], names: Sequence[str]) -> None:
        """Forget the parameter sets first: a Trial that is gone but still suggested would come back."""
        metadata = experiment["metadata"]
        suggestion = self.registry.get(SUGGESTION, metadata["namespace"], metadata["name"])
        experiment_plan.without_suggestions(suggestion, names)
        stored = self.registry.update(SUGGESTION, suggestion)
        self.registry.update_status(SUGGESTION, {**stored, "status": suggestion["status"]})
        for name in names:
            self.registry.delete(TRIAL, metadata["namespace"], name)

    def _trial(self, experiment: dict[str, Any], assignment: dict[str, Any]) -> dict[str, Any]:
        metadata, spec = experiment["metadata"], experiment["spec"]
        template = spec["trialTemplate"]
        name, namespace = assignment["name"], metadata["namespace"]
        parameters = assignment.get("parameterAssignments", [])
        text = template_text(template, self._config_map_text(template))
        labels = {
            **metadata.get("labels", {}),
            **assignment.get("labels", {}),
            EXPERIMENT_LABEL: metadata["name"],
        }
        trial_spec = {
            "objective": spec["objective"],
            "parameterAssignments": parameters,
            "runSpec": render(template, text, parameters, name, namespace),
            "metricsCollector": spec["metricsCollectorSpec"],
            "primaryPodLabels": template.get("primaryPodLabels"),
            "primaryContainerName": template["primaryContainerName"],
            "successCondition": template["successCondition"],
            "failureCondition": template["failureCondition"],
            "retainRun": template.get("retain") or None,
            "earlyStoppingRules": assignment.get("earlyStoppingRules"),
        }
        return {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": labels,
                "ownerReferences": [owner_reference(EXPERIMENT, experiment)],
            },
            "spec": {field: value for field, value in trial_spec.items() if value is not None},
        }

    def _config_map_text(self, template: dict[str, Any]) -> str | None:
        source = template.get("configMap")
        if source is None:
            return None
        config_map = self.registry.get(CONFIG_MAP, source["configMapNamespace"], source["configMapName"])
        text = config_map.get("data", {}).get(source["templatePath"])
        if text is None:
            raise RenderError(f"ConfigMap {source['configMapName']} has no {source['templatePath']}")
        return str(text)

    def _settle(self, experiment: dict[str, Any]) -> None:
        """Before the end of the Experiment can be seen: nobody shall find its parts half done."""
        if not self._strict:
            self._kill_leftovers(experiment)
        self._settle_suggestion(experiment)

    def _kill_leftovers(self, experiment: dict[str, Any]) -> None:
        """Differs from Katib unless strict: there what still runs when the goal is reached, or too much has failed,
        runs on to its end, and the final numbers change after ``completionTime``.
        """
        now = timestamp(self._clock())
        trials = self._trials(experiment)
        running = [one for one in trials if not trial_status.is_completed(one)]
        for trial in running:
            trial_status.mark_killed(trial, now)
            self.registry.update_status(TRIAL, trial)
            message = f"Trial {trial['metadata']['name']} has been killed: its Experiment is completed"
            self.registry.record_event(trial, "Normal", "TrialKilled", message)
        if running:
            experiment_status.refresh(experiment, trials, now)

    def _settle_suggestion(self, experiment: dict[str, Any]) -> None:
        policy, suggestion = experiment["spec"].get("resumePolicy"), self._suggestion(experiment)
        if suggestion is None or policy == "LongRunning" or suggestion_status.is_completed(suggestion):
            return
        suggestion_status.mark_succeeded(suggestion, policy, timestamp(self._clock()))
        self.registry.update_status(SUGGESTION, suggestion)
        suggestion_workload.remove(self.registry, suggestion)

    def _restart_suggestion(self, experiment: dict[str, Any]) -> None:
        suggestion = self._suggestion(experiment)
        if suggestion is not None and has_condition(suggestion, "Succeeded"):
            suggestion_status.mark_restarting(suggestion, timestamp(self._clock()))
            self.registry.update_status(SUGGESTION, suggestion)

    def _suggestion(self, experiment: dict[str, Any]) -> dict[str, Any] | None:
        """Its own, not that of an earlier Experiment of the same name."""
        metadata = experiment["metadata"]
        found = self.registry.find(SUGGESTION, metadata["namespace"], metadata["name"])
        return None if found is None or is_left_behind(found, experiment) else found


def _new_suggestion(experiment: dict[str, Any], requests: int) -> dict[str, Any]:
    metadata, spec = experiment["metadata"], experiment["spec"]
    wanted = {field: spec[field] for field in ("algorithm", "earlyStopping", "resumePolicy") if field in spec}
    copied = {field: metadata[field] for field in ("labels", "annotations") if field in metadata}
    return {
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "ownerReferences": [owner_reference(EXPERIMENT, experiment)],
            **copied,
        },
        "spec": {**wanted, "requests": requests},
    }
