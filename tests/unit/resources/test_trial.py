from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.trial import read_missing_metric

JSON = dict[str, Any]
ASSIGNMENTS = [{"name": "lr", "value": "0.05"}, {"name": "opt", "value": "adam"}]
OBSERVATION = {
    "metrics": [
        {"name": "acc", "min": "0.1", "max": "0.8", "latest": "0.7"},
        {"name": "loss", "min": "0.2", "max": "0.9", "latest": "0.3"},
    ]
}


def trial(*conditions: tuple[str, str], **status: Any) -> JSON:
    listed = [
        {"type": type_, "status": value, "reason": f"Trial{type_}", "message": "m"} for type_, value in conditions
    ]
    return {
        "metadata": {"name": "demo-x7k2m9qp"},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["acc"]},
            "parameterAssignments": ASSIGNMENTS,
        },
        "status": {"conditions": listed, **status},
    }


@pytest.mark.parametrize(
    ("conditions", "phase", "finished", "failed"),
    [
        ([], "Pending", False, False),
        ([("Created", "True")], "Created", False, False),
        ([("Created", "True"), ("Running", "True")], "Running", False, False),
        ([("Created", "True"), ("Running", "False"), ("Succeeded", "True")], "Succeeded", True, False),
        ([("Running", "False"), ("Failed", "True")], "Failed", True, True),
        ([("Running", "False"), ("MetricsUnavailable", "True")], "MetricsUnavailable", True, True),
        ([("Running", "True"), ("EarlyStopped", "True")], "EarlyStopped", True, False),
    ],
)
def test_a_trials_phase_is_the_condition_that_ends_it(
    conditions: list[tuple[str, str]], phase: str, finished: bool, failed: bool
) -> None:
    read = experiment.read_trial(trial(*conditions))
    assert (read["phase"], read["finished"], read["failed"]) == (phase, finished, failed)
    assert read["reason"] == (f"Trial{phase}" if conditions else "")


def test_a_trial_is_read_into_plain_values() -> None:
    obj = trial(
        ("Succeeded", "True"),
        startTime="2026-11-22T09:00:00Z",
        completionTime="2026-11-22T09:01:30Z",
        observation=OBSERVATION,
    )
    read = experiment.read_trial(obj)
    assert read["name"] == "demo-x7k2m9qp"
    assert read["parameters"] == {"lr": "0.05", "opt": "adam"}
    assert read["metrics"] == {"loss": 0.2, "acc": 0.1}
    assert read["seconds"] == 90.0
    assert json.loads(json.dumps(read)) == read


def test_a_running_trial_has_taken_no_seconds_yet() -> None:
    read = experiment.read_trial(trial(("Running", "True"), startTime="2026-11-22T09:00:00Z", completionTime=None))
    assert (read["seconds"], read["completion"]) == (None, None)


def observed(phase: str, latest: str | None) -> JSON:
    metrics = [] if latest is None else [{"name": "loss", "min": latest, "max": latest, "latest": latest}]
    return trial((phase, "True"), observation={"metrics": metrics})


@pytest.mark.parametrize(
    ("phase", "latest", "told"),
    [
        (
            "MetricsUnavailable",
            None,
            "no finite value of loss was found in its output: it needs a line such as loss=0.5",
        ),
        ("MetricsUnavailable", "unavailable", "no finite value of loss was found"),
        # Katib's collector finds no number in "loss=nan", and calls the trial succeeded.
        ("Succeeded", "", "the value of loss is no finite number: ''"),
        ("Succeeded", "NaN", "the value of loss is no finite number: 'NaN'"),
        ("Succeeded", "0.5", None),
        ("Failed", None, None),
        ("EarlyStopped", None, None),
        ("Running", None, None),
    ],
)
def test_a_trial_of_no_use_names_the_metric_that_it_lacks(phase: str, latest: str | None, told: str | None) -> None:
    missing = read_missing_metric(observed(phase, latest))
    assert missing is None if told is None else (missing is not None and missing.startswith(told))


def test_of_a_trial_that_pushes_its_metrics_nobody_reads_the_output() -> None:
    obj = observed("MetricsUnavailable", "unavailable")
    obj["spec"]["metricsCollector"] = {"collector": {"kind": "Push"}}
    assert "no finite value of loss was reported to Katib's DB manager" in str(read_missing_metric(obj))
