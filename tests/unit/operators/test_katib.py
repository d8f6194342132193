"""What the arguments of a tuning become, without a cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.resources import search_space as search
from airflow_llmtune.resources.problems import Problems

JSON = dict[str, Any]
REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "operators.md"
MEDIAN = {"algorithm_name": "medianstop", "start_step": 4}
CHECKPOINTS = {"checkpoint_steps": 50, "checkpoint_uri": "s3://bucket/rungs"}


def operator(**changes: Any) -> KatibTuneLLMOperator:
    space = {"learning_rate": search.log_uniform(1e-5, 1e-2)}
    return KatibTuneLLMOperator(task_id="tune", model="/m", dataset="/d", parameters=space, **changes)


def spec_of(**changes: Any) -> JSON:
    problems = Problems()
    manifest = operator(**changes).build_manifest(problems)
    problems.raise_if_any("Task tune")
    return dict(manifest["spec"])


def told(**changes: Any) -> list[str]:
    problems = Problems()
    operator(**changes).build_manifest(problems)
    return [error.argument for error in problems.errors]


@pytest.mark.parametrize(("trainer_args", "kind"), [(None, "StdOut"), ({"metrics_push": True}, "Push")])
def test_metrics_are_read_or_pushed_and_never_both(trainer_args: Any, kind: str) -> None:
    assert spec_of(trainer_args=trainer_args)["metricsCollectorSpec"] == {"collector": {"kind": kind}}


def test_early_stopping_is_katibs() -> None:
    spec = spec_of(early_stopping=MEDIAN, trainer_args={"eval_steps": 50})
    settings = [{"name": "start_step", "value": "4"}]
    assert spec["earlyStopping"] == {"algorithmName": "medianstop", "algorithmSettings": settings}
    assert spec["trialTemplate"]["retain"] is True  # else one that was stopped would have no metrics
    assert "earlyStopping" not in spec_of()


def test_mistakes_of_several_arguments_come_at_once() -> None:
    assert told(early_stopping=MEDIAN, checkpoint_steps=50) == ["checkpoint_uri", "trainer_args.eval_steps"]
    pushed = {"metrics_push": True, "max_steps": 100}
    assert told(early_stopping=MEDIAN, checkpoint_uri="/kept", trainer_args=pushed) == [
        "checkpoint_steps",
        "early_stopping",
    ]


def test_what_a_trial_would_refuse_is_told_before_there_is_one() -> None:
    assert told(trainer_args={"use_peft": False, "load_in_4bit": True}) == ["trainer_args.load_in_4bit"]
    assert told(trainer_args={"merge_adapter": True}, output_uri="/out") == []
    assert told(**CHECKPOINTS) == ["checkpoint_uri"]
    pods: JSON = {"resources_per_trial": {"gpu": 8}, "job_options": {"num_procs_per_node": 1}}
    assert told(**pods) == ["job_options.num_procs_per_node"]


def test_where_trials_save_is_no_reason_to_search_again_and_when_they_are_stopped_is_one() -> None:
    stopped = {"early_stopping": MEDIAN}
    plain, saving, stopping = (operator(**changes).fingerprints({}) for changes in ({}, CHECKPOINTS, stopped))
    assert plain == saving
    assert plain != stopping


@pytest.mark.parametrize("name", ["early_stopping", "checkpoint_steps", "checkpoint_uri"])
def test_they_are_rendered(name: str) -> None:
    assert name in KatibTuneLLMOperator.template_fields


def test_the_searches_of_the_reference_are_without_mistakes() -> None:
    section = REFERENCE.read_text().partition("## Trials that end early")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        problems = Problems()
        eval(block, {"KatibTuneLLMOperator": KatibTuneLLMOperator, "search": search}).build_manifest(problems)
        problems.raise_if_any("The example")
