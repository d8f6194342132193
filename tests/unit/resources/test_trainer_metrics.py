"""What a search may be after: metrics of the task, the better way round, and of trials that compare."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.exceptions import InvalidSpecError
from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.resources import search_space as search
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.trainer_metrics import OBJECTIVES

SPACE = {"learning_rate": search.log_uniform(1e-5, 1e-3)}
SIMPLE = {"model": "org/model", "dataset": "org/data", "parameters": SPACE}


def mistakes(**settings: Any) -> str:
    operator = KatibTuneLLMOperator(task_id="tune", **{**SIMPLE, **settings})
    problems = Problems()
    operator.build_manifest(problems)
    try:
        problems.raise_if_any("Task tune")
    except InvalidSpecError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("task", "metric", "direction"),
    [(task, metric, direction) for task, known in OBJECTIVES.items() for metric, direction in known.items()],
)
def test_a_metric_is_taken_the_better_way_round_only(task: str, metric: str, direction: str) -> None:
    settings = {"objective_metric_name": metric, "trainer_args": {"task": task}}
    other = "maximize" if direction == "minimize" else "minimize"
    assert mistakes(objective_type=direction, **settings) == ""
    told = mistakes(objective_type=other, **settings)
    assert f"`objective_type`={other!r} searches for the worst {metric}" in told
    assert f"give objective_type={direction!r}" in told


def test_a_metric_of_another_task_is_told_before_a_trial_starts() -> None:
    told = mistakes(objective_metric_name="eval_f1", additional_metric_names=["eval_los"])
    assert "`objective_metric_name`='eval_f1' is not reported by a training of task sft" in told
    assert "`additional_metric_names`='eval_los' is not reported by a training of task sft. Fix: did you mean" in told


def test_what_is_only_told_may_be_recorded() -> None:
    assert mistakes(additional_metric_names=["train_loss", "base_eval_loss", "peak_memory_bytes"]) == ""
    assert "is not reported" in mistakes(objective_metric_name="epoch")


def test_trials_that_differ_in_what_a_metric_is_computed_with_do_not_compare() -> None:
    settings = {"parameters": {"beta": search.double(0.01, 0.5)}, "trainer_args": {"task": "dpo"}}
    assert "`parameters.beta`='beta' is searched, and eval_loss is computed with it" in mistakes(**settings)
    by_rank = {"objective_metric_name": "eval_rewards_accuracy", "objective_type": "maximize"}
    assert mistakes(**settings, **by_rank) == ""


def test_the_metrics_of_another_image_are_its_own() -> None:
    assert mistakes(image="other/trainer:1", objective_metric_name="bleu", objective_type="maximize") == ""


def test_a_form_that_the_collector_cannot_read_is_told() -> None:
    assert "`trainer_args.metrics_format`='json' is not what" in mistakes(trainer_args={"metrics_format": "json"})
    assert mistakes(trainer_args={"metrics_format": "text"}) == ""
    assert mistakes(trainer_args={"metrics_format": "json", "metrics_push": True}) == ""
