"""What a DAG file loads of ours when it is parsed; how long that takes is measured by `benchmarks.dag_parse`."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_llmtune import links, operators, resources, triggers

ROOT = Path(__file__).parent.parent.parent
MODULES = [
    *(
        f"{package.__name__}.{found.name}"
        for package in (operators, triggers, links)
        for found in pkgutil.iter_modules(package.__path__)
    ),
    "airflow_llmtune.exceptions",
    "airflow_llmtune.get_provider_info",
    "airflow_llmtune.notifications",
    "airflow_llmtune.resources.search_space",
]
DAGS = [f"dags/{path.name}" for path in sorted((ROOT / "dags").glob("*.py"))]
# What reads and writes objects, waits for them, and asks a cluster: tasks need it, DAG files do not.
OF_TASKS = (
    "airflow.providers.cncf",
    "airflow_llmtune.hooks",
    "airflow_llmtune.resources.champion",
    "airflow_llmtune.resources.experiment",
    "airflow_llmtune.resources.serving_spec",
    "airflow_llmtune.resources.trial_template",
    "airflow_llmtune.triggers.base",
)


@pytest.fixture(scope="module")
def loaded():
    command = [sys.executable, "tests/support/loaded_modules.py", *MODULES, *DAGS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.rpartition("loaded: ")[2])


@pytest.mark.parametrize("name", [*MODULES, *DAGS])
def test_it_loads_no_package_that_a_dag_without_it_would_not_load(loaded, name):
    assert loaded[name]["third_party"] == []


@pytest.mark.parametrize("name", ["aiohttp", "boto3", "huggingface_hub", "kubernetes", "kubernetes_asyncio", "torch"])
def test_airflow_itself_does_not_load_what_would_then_go_unseen(loaded, name):
    assert name not in loaded["any DAG"]["third_party"]


@pytest.mark.parametrize("name", [name for name in [*MODULES, *DAGS] if ".triggers." not in name])
def test_it_loads_nothing_that_only_tasks_need(loaded, name):
    assert [module for module in loaded[name]["modules"] if module.startswith(OF_TASKS)] == []


def test_a_module_of_resources_that_does_not_exist_is_told_where_it_is_imported():
    with pytest.raises(ImportError, match="no_such_kind"):
        from airflow_llmtune.resources import no_such_kind  # noqa: F401


def test_a_module_of_resources_that_is_loaded_later_is_the_module(monkeypatch):
    job = importlib.import_module("airflow_llmtune.resources.job")
    monkeypatch.delattr(resources, "job")  # as long as nobody has loaded it
    from airflow_llmtune.resources import job as later

    assert later.KIND is job.KIND
    with pytest.raises(AttributeError, match="no_such_name"):
        later.no_such_name  # noqa: B018
