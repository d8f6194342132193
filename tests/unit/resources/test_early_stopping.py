from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.resources.early_stopping import EarlyStopping, check_reports
from airflow_llmtune.resources.job_options import read_options
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.trainer_spec import TrainerSpec

JSON = dict[str, Any]
MEDIAN: JSON = {"algorithm_name": "medianstop"}


@pytest.mark.parametrize(
    ("given", "argument", "rule"),
    [
        ("medianstop", "early_stopping", "is not a mapping"),
        ({}, "early_stopping.algorithm_name", "is not known"),
        ({"algorithm_name": "median"}, "early_stopping.algorithm_name", "is not known"),
        ({**MEDIAN, "start": 4}, "early_stopping.start", "is not known"),
        ({**MEDIAN, "start_step": 0}, "early_stopping.start_step", "is less than 1"),
        ({**MEDIAN, "start_step": "late"}, "early_stopping.start_step", "is not a whole number"),
        ({**MEDIAN, "min_trials_required": 1.5}, "early_stopping.min_trials_required", "is not a whole number"),
        ({**MEDIAN, "min_trials_required": None}, "early_stopping.min_trials_required", "is not a whole number"),
    ],
)
def test_each_mistake_is_named(given: Any, argument: str, rule: str) -> None:
    problems = Problems()
    EarlyStopping.read(given, problems)
    assert [error.argument for error in problems.errors] == [argument]
    assert rule in problems.errors[0].rule


def test_all_mistakes_come_at_once() -> None:
    problems = Problems()
    EarlyStopping.read({"algorithm_name": "mean", "start_step": 0, "min_trails_required": 3}, problems)
    assert len(problems.errors) == 3
    assert problems.errors[-1].fix == "did you mean `min_trials_required`?"


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        (MEDIAN, None),
        ({**MEDIAN, "start_step": "4"}, [{"name": "start_step", "value": "4"}]),
        (
            {"min_trials_required": 3, **MEDIAN, "start_step": 4.0},
            [{"name": "min_trials_required", "value": "3"}, {"name": "start_step", "value": "4"}],
        ),
    ],
)
def test_settings_are_katibs_texts(given: JSON, settings: Any) -> None:
    read = EarlyStopping.read(given, Problems())
    assert read is not None
    expected = {"algorithmName": "medianstop", **({} if settings is None else {"algorithmSettings": settings})}
    assert read.to_manifest() == expected


def told(trainer_args: JSON, objective: str = "eval_loss", given: Any = MEDIAN, **changes: Any) -> list[str]:
    problems = Problems()
    trainer = TrainerSpec.from_args(model="/m", dataset="/d", trainer_args=trainer_args, problems=problems, **changes)
    check_reports(EarlyStopping.read(given, problems), objective, trainer, problems)
    return [error.argument for error in problems.errors]


def test_a_trial_has_to_report_before_its_end() -> None:
    assert told({}) == ["trainer_args.eval_steps"]
    assert told({"eval_steps": 5}) == []
    assert told({}, objective="train_loss") == []
    assert told({}, image="example.com/trainer:1") == []
    assert told({}, given=None) == []


def test_nobody_stops_a_trial_that_pushes_its_metrics() -> None:
    assert told({"metrics_push": True, "eval_steps": 5}) == ["early_stopping"]
    assert told({"metrics_push": "no", "eval_steps": 5}) == []
    assert told({"metrics_push": True}, given=None) == []


@pytest.mark.parametrize(
    ("job_options", "expected"),
    [
        ({"job_kind": "TrainJob", "num_nodes": 2}, ["job_options.num_nodes"]),
        ({"job_kind": "TrainJob", "num_nodes": 1, "num_procs_per_node": 2}, []),
        ({"job_kind": "TrainJob", "num_nodes": 2, "runtime_ref": "of-the-team"}, []),
        ({"job_kind": "PyTorchJob", "num_nodes": 2}, []),
    ],
)
def test_a_trial_ends_with_all_its_nodes(job_options: JSON, expected: list[str]) -> None:
    options = read_options("job_options", job_options, Problems())
    assert told({"eval_steps": 5}, **options) == expected
    assert told({"eval_steps": 5}, given=None, **options) == []
