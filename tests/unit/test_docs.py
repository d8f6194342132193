"""The documents show code that works and facts that hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_llmtune.exceptions import InvalidSpecError
from airflow_llmtune.operators.katib import KatibTuneLLMOperator
from airflow_llmtune.resources import search_space as search
from airflow_llmtune.resources.problems import Problems

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "trainer/README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_of_this_repository_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_dag_in_the_readme_is_a_dag():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    scope = {}
    exec(compile(block.replace('schedule="@weekly"):', 'schedule="@weekly") as dag:'), "README.md", "exec"), scope)
    assert sorted(scope["dag"].task_ids) == ["fine_tune", "tune"]
    assert scope["dag"].get_task("fine_tune").upstream_task_ids == {"tune"}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_mistakes_in_the_tutorial_are_told_in_these_words():
    (block,) = re.findall(r"```text\n(.*?)```", (ROOT / "docs/tutorial.md").read_text(), re.DOTALL)
    operator = KatibTuneLLMOperator(
        task_id="tune",
        model="org/model",
        dataset="/data",
        parameters={"learning_rate": search.double(1, 0.1)},
        max_trial_count=4,
        parallel_trial_count=8,
    )
    problems = Problems()
    operator.build_manifest(problems)
    with pytest.raises(InvalidSpecError) as caught:
        problems.raise_if_any("Task tune")
    assert str(caught.value) == block.strip()


def test_the_control_planes_how_to_shows_its_help():
    command = [sys.executable, "-m", "airflow_llmtune.controlplane", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"COLUMNS": "100", "PATH": ""})
    assert done.stdout.strip() in (ROOT / "docs/how-to/control-plane.md").read_text()
