from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_llmtune.exceptions import InvalidSpecError, OutcomeError
from airflow_llmtune.resources import experiment
from airflow_llmtune.resources.experiment import ExperimentSpec
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.search_space import (
    SearchSpace,
    categorical,
    discrete,
    double,
    integer,
    log_uniform,
)

JSON = dict[str, Any]
SPACE: JSON = {"learning_rate": log_uniform(1e-5, 1e-3), "lora_r": integer(4, 64)}
ARGS: JSON = {
    "objective_metric_name": "eval_loss",
    "objective_type": "minimize",
    "max_trial_count": 6,
    "parallel_trial_count": 2,
}


def build(parameters: JSON | None = None, **changes: Any) -> tuple[ExperimentSpec, Problems]:
    problems = Problems()
    space = SearchSpace.from_json(SPACE if parameters is None else parameters, problems)
    return ExperimentSpec.from_args(parameters=space, problems=problems, **{**ARGS, **changes}), problems


# --- the spec -------------------------------------------------------------------------------------------------


def test_numbers_may_come_as_rendered_text() -> None:
    spec, problems = build(max_trial_count="6", parallel_trial_count="2", objective_goal="1.5")
    assert problems.errors == []
    assert (spec.max_trial_count, spec.parallel_trial_count, spec.objective_goal) == (6, 2, 1.5)


@pytest.mark.parametrize(("trials", "given_limit", "limit"), [(12, None, 3), (2, None, 2), (6, "5", 5), (6, 0, 0)])
def test_three_failed_trials_end_an_experiment_unless_told_otherwise(trials: int, given_limit: Any, limit: int) -> None:
    spec, problems = build(max_trial_count=trials, parallel_trial_count=1, max_failed_trial_count=given_limit)
    assert problems.errors == []
    assert spec.max_failed_trial_count == limit


@pytest.mark.parametrize(
    ("changes", "argument", "rule"),
    [
        ({"objective_metric_name": "eval loss"}, "objective_metric_name", "is not a metric name"),
        ({"objective_metric_name": "a;b"}, "objective_metric_name", "is not a metric name"),
        ({"objective_metric_name": None}, "objective_metric_name", "is not a metric name"),
        ({"objective_type": "min"}, "objective_type", "is not known"),
        ({"objective_goal": "low"}, "objective_goal", "is not a finite number"),
        ({"objective_goal": float("nan")}, "objective_goal", "is not a finite number"),
        ({"additional_metric_names": "train_loss"}, "additional_metric_names", "is not a list"),
        ({"additional_metric_names": ["a b"]}, "additional_metric_names[0]", "is not a metric name"),
        ({"additional_metric_names": ["eval_loss"]}, "additional_metric_names", "contains the objective"),
        ({"additional_metric_names": ["a", "a"]}, "additional_metric_names", "is listed twice"),
        ({"algorithm_name": "radnom"}, "algorithm_name", "is not known"),
        ({"algorithm_settings": "x"}, "algorithm_settings", "is not a mapping"),
        ({"algorithm_settings": {"random_state": [1]}}, "algorithm_settings.random_state", "is not a text"),
        ({"algorithm_settings": {"random_sate": 1}}, "algorithm_settings.random_sate", "is not known to random"),
        ({"algorithm_settings": {"random_state": float("nan")}}, "algorithm_settings.random_state", "is not a text"),
        ({"algorithm_name": "sobol", "algorithm_settings": {"a": 1}}, "algorithm_settings.a", "not known to sobol"),
        ({"max_trial_count": 0}, "max_trial_count", "is less than 1"),
        ({"max_trial_count": "many"}, "max_trial_count", "is not a whole number"),
        ({"parallel_trial_count": 0}, "parallel_trial_count", "is less than 1"),
        ({"parallel_trial_count": 7}, "parallel_trial_count", "is more than `max_trial_count`=6"),
        ({"max_failed_trial_count": 7}, "max_failed_trial_count", "is more than `max_trial_count`=6"),
        ({"max_failed_trial_count": -1}, "max_failed_trial_count", "is less than 0"),
        ({"algorithm_name": "grid"}, "parameters.learning_rate.step", "is missing; grid needs it"),
        ({"algorithm_name": "grid", "parameters": {"r": integer(1, 4)}}, "max_trial_count", "is more than the 4"),
        ({"algorithm_name": "cmaes", "parameters": {"r": integer(1, 4)}}, "algorithm_name", "needs two or more"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(changes: JSON, argument: str, rule: str) -> None:
    _, problems = build(**changes)
    assert [error.argument for error in problems.errors] == [argument], problems.errors
    assert rule in problems.errors[0].rule


def test_a_wrong_count_hides_no_mistake_of_the_algorithm() -> None:
    settings = {"r_l": 0, "resource_name": "depth", "gamma": 1}
    _, problems = build(algorithm_name="hyperband", algorithm_settings=settings, parallel_trial_count="two")
    told = [error.argument.removeprefix("algorithm_settings.") for error in problems.errors]
    assert told == ["parallel_trial_count", "gamma", "resource_name", "r_l"]


@pytest.mark.parametrize(
    ("settings", "parallel", "mistakes"),
    [
        ({"r_l": 9, "resource_name": "max_steps"}, 9, []),
        ({"r_l": 9, "resource_name": "max_steps", "eta": 9}, 9, []),
        ({"r_l": 9, "resource_name": "max_steps"}, 8, ["parallel_trial_count"]),
        ({"r_l": 8, "resource_name": "max_steps"}, 3, []),
        ({"r_l": 9, "resource_name": "steps"}, 9, ["algorithm_settings.resource_name"]),
        ({"resource_name": "max_steps"}, 9, ["algorithm_settings.r_l"]),
        ({"r_l": "x", "resource_name": "max_steps"}, 9, ["algorithm_settings.r_l"]),
        ({"r_l": 9, "resource_name": "max_steps", "eta": 1}, 9, ["algorithm_settings.eta"]),
        ({}, 9, ["algorithm_settings.r_l", "algorithm_settings.resource_name"]),
    ],
)
def test_hyperband_is_checked_before_its_suggestion_fails(settings: JSON, parallel: int, mistakes: list[str]) -> None:
    _, problems = build(
        {"max_steps": integer(1, 9)},
        algorithm_name="hyperband",
        algorithm_settings=settings,
        max_trial_count=20,
        parallel_trial_count=parallel,
    )
    assert [error.argument for error in problems.errors] == mistakes


def test_population_based_training_gets_its_volume() -> None:
    settings = {"suggestion_trial_dir": "/data", "n_population": 5, "truncation_threshold": 0.4}
    space = {"lr": double(0.1, 1, step=0.1)}
    spec, problems = build(space, algorithm_name="pbt", algorithm_settings=settings)
    assert problems.errors == []
    assert spec.to_manifest("x", "ns", {}, {}, {})["spec"]["resumePolicy"] == "FromVolume"
    _, problems = build(algorithm_name="pbt", algorithm_settings=settings)
    assert [error.argument for error in problems.errors] == [
        "parameters.learning_rate.step",
        "parameters.lora_r.step",
    ]


def test_what_follows_from_a_wrong_search_space_is_not_told_as_well() -> None:
    _, problems = build({"r": integer(4, 1)}, algorithm_name="grid")
    assert [error.argument for error in problems.errors] == ["parameters.r.min"]


def test_mistakes_of_space_and_budget_come_in_one_error() -> None:
    _, problems = build({"lr": log_uniform(0, 1)}, parallel_trial_count=9, objective_type="down", algorithm_name="tp")
    with pytest.raises(InvalidSpecError, match="has 4 mistakes") as caught:
        problems.raise_if_any("Task tune")
    assert "did you mean `tpe`?" in str(caught.value)


spaces = st.sampled_from(
    [
        SPACE,
        {"batch": discrete([8, 16]), "scheduler": categorical(["cosine", "linear", True])},
        {"dropout": double(0, "0.1", step="0.05")},
    ]
)
metric_names = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)


@given(
    spaces,
    st.lists(metric_names, min_size=1, max_size=4, unique=True),
    st.integers(1, 50),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_good_spec_is_an_experiment_of_katib(
    through_katib: Callable[[JSON], JSON], space: JSON, metrics: list[str], trials: int, goal: float | None
) -> None:
    spec, problems = build(
        space,
        objective_metric_name=metrics[0],
        additional_metric_names=metrics[1:],
        objective_goal=goal,
        max_trial_count=trials,
        parallel_trial_count=1,
        algorithm_settings={"random_state": 1},
    )
    assert problems.errors == []
    manifest = spec.to_manifest("x", "ns", {"a": "1"}, {"b": "2"}, {"trialSpec": {"kind": "Job"}})
    assert through_katib(manifest) == manifest
    assert json.loads(json.dumps(manifest, allow_nan=False)) == manifest


# --- reading ------------------------------------------------------------------------------------------------------

OBJECTIVE: JSON = {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["acc"]}
PARAMETERS: list[JSON] = [
    {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.01", "max": "0.1"}},
    {"name": "opt", "parameterType": "categorical", "feasibleSpace": {"list": ["sgd", "adam"]}},
]
BEST: JSON = {
    "bestTrialName": "demo-x7k2m9qp",
    "parameterAssignments": [{"name": "lr", "value": "0.05"}, {"name": "opt", "value": "adam"}],
    "observation": {
        "metrics": [
            {"name": "acc", "min": "0.1", "max": "0.8", "latest": "0.7"},
            {"name": "loss", "min": "0.2", "max": "0.9", "latest": "0.3"},
        ]
    },
}


def with_best(best: JSON, objective: JSON | None = None) -> JSON:
    spec = {"parameters": PARAMETERS, "objective": objective or OBJECTIVE}
    metadata = {"name": "demo", "namespace": "ml"}
    succeeded = {"type": "Succeeded", "status": "True", "reason": "R", "message": "m"}
    return {"metadata": metadata, "spec": spec, "status": {"conditions": [succeeded], "currentOptimalTrial": best}}


@pytest.mark.parametrize(
    ("objective", "loss", "acc"),
    [
        ({"type": "minimize"}, 0.2, 0.1),
        ({"type": "maximize"}, 0.9, 0.8),
        ({"type": "minimize", "metricStrategies": [{"name": "loss", "value": "latest"}]}, 0.3, 0.1),
        ({"type": "minimize", "metricStrategies": [{"name": "acc", "value": "max"}]}, 0.2, 0.8),
    ],
)
def test_metrics_are_resolved_by_their_strategies(objective: JSON, loss: float, acc: float) -> None:
    given_objective = {"objectiveMetricName": "loss", "additionalMetricNames": ["acc"], **objective}
    optimum = experiment.read_optimum(with_best(BEST, given_objective))
    assert optimum is not None
    assert (optimum.trial, optimum.objective) == ("demo-x7k2m9qp", loss)
    assert optimum.metrics == {"loss": loss, "acc": acc}
    assert optimum.assignments == {"lr": "0.05", "opt": "adam"}


@pytest.mark.parametrize("text", ["", "nan", "inf", "unavailable", "Genotype(x)"])
def test_an_objective_without_a_finite_value_is_no_optimum(text: str) -> None:
    metric = {"name": "loss", "min": text, "max": text, "latest": text}
    obj = with_best({**BEST, "observation": {"metrics": [metric]}})
    assert experiment.read_optimum(obj) is None
    outcome = experiment.read_outcome(obj)
    assert (outcome.phase, outcome.reason) == ("Failed", "NoUsableTrial")
    with pytest.raises(OutcomeError, match="demo has no trial with a finite objective"):
        experiment.read_result(obj, experiment.search_space_of(obj), None)


def test_min_falls_back_to_latest_as_in_katib() -> None:
    metric = {"name": "loss", "min": "unavailable", "max": "unavailable", "latest": "0.5"}
    optimum = experiment.read_optimum(with_best({**BEST, "observation": {"metrics": [metric]}}))
    assert optimum is not None
    assert optimum.objective == 0.5


def test_the_result_is_plain_json() -> None:
    obj = with_best(BEST)
    result = experiment.read_result(obj, experiment.search_space_of(obj), "/artifacts/x")
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result.keys() == {
        "parameters", "metrics", "trial", "experiment", "namespace", "counts", "artifact_uri",
    }  # fmt: skip
    assert result["parameters"] == {"lr": 0.05, "opt": "adam"}
    assert result["artifact_uri"] == "/artifacts/x"


def test_a_callers_search_space_types_the_result() -> None:
    space = SearchSpace.from_json({"lr": double(0, 1), "opt": categorical(["adam", "sgd"])}, Problems())
    assert experiment.read_result(with_best(BEST), space.decode, None)["parameters"] == {"lr": 0.05, "opt": "adam"}


def test_parameters_of_any_experiment_are_typed_by_their_declaration() -> None:
    types = {"a": "int", "b": "double", "c": "discrete", "d": "categorical"}
    parameters = [{"name": name, "parameterType": type_} for name, type_ in types.items()]
    decode = experiment.search_space_of({"spec": {"parameters": parameters}})
    decoded = decode({"a": "3", "b": "3", "c": "3.0", "d": "3", "e": "3"})
    assert [(value, type(value)) for value in decoded.values()] == [
        (3, int), (3.0, float), (3, int), ("3", str), ("3", str),
    ]  # fmt: skip
