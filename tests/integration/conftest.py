"""A control plane per test module, and a task instance for each test."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.hooks.client import KubeflowClient
from airflow_llmtune.hooks.kubeflow import KubeflowHook
from airflow_llmtune.operators import waiting
from airflow_llmtune.operators.claim import attempt_of
from airflow_llmtune.resources import experiment
from airflow_llmtune.triggers import list_watch
from held_jobs import HeldJobs, new_namespace
from program import Program
from task_run import Run
from tasks import mine, names
from trainer_image import make_image, names_of


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """A control plane in a process of its own, which the test may kill."""
    running = Program(tmp_path)
    yield running
    running.close()


@pytest.fixture(scope="session")
def trainer_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``model`` and ``data`` for the trainer itself, in a control plane whose image is this Python."""
    folder = tmp_path_factory.mktemp("tiny")
    builder = Path(__file__).parent.parent / "support" / "tiny_model.py"
    command = [sys.executable, str(builder), str(folder / "model"), str(folder / "data")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def plane(trainer_image: Path) -> Iterator[ControlPlane]:
    with ControlPlane(images={**names_of(trainer_image), "busybox": Path("/usr")}) as plane:
        yield plane


@pytest.fixture
def kubeconfig(plane: ControlPlane, tmp_path: Path) -> str:
    path = tmp_path / "kubeconfig.yaml"
    plane.write_kubeconfig(path)
    return str(path)


@pytest.fixture
def ask(kubeconfig: str) -> Callable[[Callable[[KubeflowClient], Any]], Any]:
    """Run one question, a coroutine over a client, against the control plane."""

    def run(question: Callable[[KubeflowClient], Any]) -> Any:
        async def connected() -> Any:
            async with KubeflowHook(None, config_file=kubeconfig, api_retry_timeout=5).connect() as client:
                return await question(client)

        return asyncio.run(connected())

    return run


@pytest.fixture
def run() -> Run:
    return Run()


@pytest.fixture
def standing(
    plane: ControlPlane, ask: Callable[[Callable[[KubeflowClient], Any]], Any], run: Run
) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Return the task's Experiments that are not being deleted, oldest attempt first; no one outlives the test."""

    def find() -> list[dict[str, Any]]:
        found, _ = ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))
        return sorted((item for item in found if "deletionTimestamp" not in item["metadata"]), key=attempt_of)

    yield find
    plane.faults.clear()
    for name in names(find()):
        ask(lambda client, name=name: client.delete(experiment.KIND, "default", name))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="airflow_llmtune")
    return caplog


@pytest.fixture
def airflow_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the state of the task, which a worker asks its supervisor for; tests/chaos runs a real one."""

    def say(state: str) -> None:
        monkeypatch.setattr(waiting, "task_state", lambda ti: state)

    return say


@pytest.fixture
def jobs(plane: ControlPlane, kubeconfig: str) -> HeldJobs:
    return HeldJobs(kubeconfig, new_namespace(plane))


@pytest.fixture
def short_pauses(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a shared watch come back from a fault at once; no fault outlives its test."""
    monkeypatch.setattr(list_watch, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(list_watch, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(list_watch, "SHORTEST_POLL", 0.05)
    yield
    plane.faults.clear()
