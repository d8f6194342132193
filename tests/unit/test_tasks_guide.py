"""The guide to other tasks than chat shows operators that Airflow takes, with arguments that pass all checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_llmtune.operators.kserve import DeployLLMOperator
from airflow_llmtune.resources.problems import Problems
from airflow_llmtune.resources.trainer_metrics import OBJECTIVES

GUIDE = (Path(__file__).parents[2] / "docs/how-to/tasks.md").read_text()
HEAD, *SECTIONS = GUIDE.split("\n## ")


def tasks_of(section: str) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    with DAG("guide", schedule=None) as dag:
        for block in re.findall(r"```python\n(.*?)```", HEAD + section, re.DOTALL):
            exec(compile(block, "tasks.md", "exec"), scope)
    return dag.task_dict


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_its_tasks_pass_all_checks(section: str) -> None:
    tasks = tasks_of(section)
    assert "tune" in tasks
    problems = Problems()
    for task in tasks.values():
        if isinstance(task, DeployLLMOperator):
            assert task.upstream_task_ids == {"tune"}
            task.model = "s3://bucket/trials/experiment/trial"  # as Airflow renders it
        task.build_manifest(problems)
    assert problems.errors == []


def test_its_metrics_are_those_there_are() -> None:
    told: dict[str, dict[str, str]] = {}
    task = "sft"
    for _, arguments, metrics, better in re.findall(r"^\|(.*)\|(.*)\|(.*)\| `(m.*imize)` \|$", HEAD, re.MULTILINE):
        task = next(iter(re.findall(r'"task": "(\w+)"', arguments)), task)
        told.setdefault(task, {}).update(dict.fromkeys(re.findall(r"`(\w+)`", metrics), better))
    assert told == OBJECTIVES
