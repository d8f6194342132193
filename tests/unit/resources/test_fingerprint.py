"""What makes a search, a training and an evaluation another one."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources import search_space as search
from airflow_llmtune.resources.experiment import ExperimentSpec
from airflow_llmtune.resources.fingerprint import (
    evaluation_fingerprint,
    read_annotations,
    to_annotations,
    training_fingerprint,
    tuning_fingerprint,
)
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.search_space import SearchSpace
from airflow_llmtune.resources.trainer_flags import evaluation_flags
from airflow_llmtune.resources.trial_template import TrainerSpec
from llmtune_trainer.settings import evaluation_settings

VERSIONS = {"model": "hub:1", "dataset": "s3:1"}


def trainer(**changes: Any) -> TrainerSpec:
    problems = Problems()
    settings = {"model": "org/base", "dataset": "s3://rows", "trainer_args": {"max_steps": 10}, **changes}
    spec = TrainerSpec.from_args(**settings, problems=problems)
    problems.raise_if_any("trainer")
    return spec


def experiment(**changes: Any) -> ExperimentSpec:
    problems = Problems()
    space = changes.pop("space", {"learning_rate": search.log_uniform(1e-5, 1e-2)})
    settings = {
        "objective_metric_name": "eval_loss",
        "objective_type": "minimize",
        "max_trial_count": 8,
        "parallel_trial_count": 2,
        **changes,
    }
    spec = ExperimentSpec.from_args(parameters=SearchSpace.from_json(space, problems), **settings, problems=problems)
    problems.raise_if_any("experiment")
    return spec


def tuned(spec: dict[str, Any] | None = None, versions: Any = VERSIONS, **changes: Any) -> str:
    return tuning_fingerprint(experiment(**(spec or {})), trainer(**changes), versions)


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {"space": {"learning_rate": search.log_uniform(1e-5, 1e-3)}}},
        {"spec": {"objective_type": "maximize"}},
        {"spec": {"objective_goal": 1.0}},
        {"spec": {"max_trial_count": 9}},
        {"spec": {"algorithm_name": "tpe"}},
        {"spec": {"algorithm_settings": {"random_state": 1}}},
        {"versions": {**VERSIONS, "dataset": "s3:2"}},
        {"versions": {**VERSIONS, "model": "hub:2"}},
        {"model": "org/other"},
        {"dataset": "s3://other"},
        {"trainer_args": {"max_steps": 20}},
        {"image": "airflow-llmtune/trainer:0.2.0"},
        {"num_nodes": 2, "job_kind": "PyTorchJob"},
    ],
    ids=str,
)
def test_another_search(changes):
    assert tuned(**changes) != tuned()


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {"parallel_trial_count": 4}},
        {"spec": {"max_trial_count": "8"}},
        {"spec": {"max_failed_trial_count": 1}},
        {"trainer_args": {"max_steps": "10"}},
        {"resources": {"cpu": 4}},
        {"output_uri": "s3://models/other"},
        {"service_account_name": "trainer"},
        {"versions": dict(reversed(VERSIONS.items()))},
    ],
    ids=str,
)
def test_the_same_search(changes):
    assert tuned(**changes) == tuned()


def test_a_setting_is_the_same_wherever_it_comes_from():
    found = training_fingerprint(trainer(), {"lora_r": "8"}, VERSIONS)
    assert found == training_fingerprint(trainer(trainer_args={"max_steps": 10, "lora_r": 8}), {}, VERSIONS)
    assert found != training_fingerprint(trainer(), {"lora_r": "4"}, VERSIONS)


def test_an_evaluation_is_that_of_the_training_whatever_was_trained_how():
    judged = evaluation_fingerprint(trainer(trainer_args={"max_eval_samples": 8}), {}, "s3://a", VERSIONS)
    trained = trainer(trainer_args={"max_eval_samples": 8, "max_steps": 10}, num_nodes=2, job_kind="PyTorchJob")
    assert evaluation_fingerprint(trained, {"lora_r": "8"}, "s3://a", VERSIONS) == judged
    assert evaluation_fingerprint(trained, {"max_length": "64"}, "s3://a", VERSIONS) != judged
    assert evaluation_fingerprint(trained, {}, "s3://b", VERSIONS) != judged


def test_what_an_evaluation_depends_on_is_what_the_trainer_says():
    assert set(evaluation_flags()) == set(evaluation_settings())


def test_fingerprints_return_from_the_object_that_carries_them():
    given = {"trainings": "0123456789abcdef", "evaluations": "fedcba9876543210"}
    assert read_annotations({"metadata": {"annotations": to_annotations(given)}}) == given
    assert to_annotations({}) == {}
    assert read_annotations({"metadata": {}}) == {}
