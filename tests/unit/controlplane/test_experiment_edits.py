"""What of an Experiment may be edited, and when."""

from __future__ import annotations

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import EXPERIMENT
from airflow_llmtune.controlplane.apiserver.registry import Registry
from objects import Object
from refusal import DENIED, denied


def test_only_the_three_counts_can_be_edited(registry: Registry, experiment: Object) -> None:
    stored = registry.create(EXPERIMENT, experiment)
    stored["spec"]["maxTrialCount"] = 9
    stored = registry.update(EXPERIMENT, stored)
    stored["spec"]["algorithm"]["algorithmName"] = "tpe"
    with pytest.raises(ApiError) as caught:
        registry.update(EXPERIMENT, stored)
    assert caught.value.message == (
        f"{DENIED}spec: Forbidden: only spec.parallelTrialCount, spec.maxTrialCount and "
        "spec.maxFailedTrialCount are editable"
    )


def test_the_budget_must_stay_above_the_trials_there_are(registry: Registry, experiment: Object) -> None:
    stored = registry.create(EXPERIMENT, experiment)
    stored["status"] = {"trials": 3}
    stored = registry.update_status(EXPERIMENT, stored)
    stored["spec"]["maxTrialCount"] = 3
    with pytest.raises(ApiError, match=r"must be greater than status\.trials count"):
        registry.update(EXPERIMENT, stored)


def test_a_completed_experiment_cannot_be_changed_unless_it_can_be_restarted(
    registry: Registry, experiment: Object
) -> None:
    stored = registry.create(EXPERIMENT, experiment)
    done = {"type": "Succeeded", "status": "True", "reason": "ExperimentMaxTrialsReached"}
    stored["status"] = {"trials": 4, "conditions": [done]}
    stored = registry.update_status(EXPERIMENT, stored)
    stored["spec"]["maxTrialCount"] = 4
    stored["spec"]["parallelTrialCount"] = 1
    stored["spec"]["objective"]["goal"] = 1.0
    with pytest.raises(ApiError) as caught:
        registry.update(EXPERIMENT, stored)
    restart = (
        'spec.resumePolicy: Invalid value: "Never": Experiment can be restarted if it is in succeeded state by '
        "reaching max trials and spec.resumePolicy = LongRunning or spec.resumePolicy = FromVolume, when experiment "
        "is completed"
    )
    texts = [
        restart,
        "spec.maxTrialCount: Invalid value: 4: must be greater than status.trials count",
        "spec: Forbidden: only spec.parallelTrialCount, spec.maxTrialCount and spec.maxFailedTrialCount are editable",
    ]
    assert caught.value.message == denied(texts)


def test_a_completed_experiment_keeps_its_labels_editable(registry: Registry, experiment: Object) -> None:
    stored = registry.create(EXPERIMENT, experiment)
    done = {"type": "Succeeded", "status": "True", "reason": "ExperimentGoalReached"}
    stored = registry.update_status(EXPERIMENT, {**stored, "status": {"trials": 4, "conditions": [done]}})
    stored["metadata"]["labels"] = {"team": "nlp"}
    assert registry.update(EXPERIMENT, stored)["metadata"]["labels"] == {"team": "nlp"}
