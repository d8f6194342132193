"""The guide to the control plane shows code that works and names all that there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml

from airflow_llmtune.controlplane import ControlPlane
from clients import http_client
from objects import EXPERIMENTS, Object
from waiting import wait_for

GUIDE = (Path(__file__).parents[2] / "docs" / "how-to" / "control-plane.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: Object = {}
    # A test of metrics collectors runs the one that pushes metrics.
    for block in blocks("python"):
        if "import grpc" not in block:
            exec(compile(block, "control-plane.md", "exec"), scope)
    assert "certificate-authority-data" in (tmp_path / "kubeconfig.yaml").read_text()
    assert scope["plane"].url == "", "the last one is not started"


def test_its_experiment_succeeds() -> None:
    (text,) = blocks("yaml")
    with ControlPlane() as plane, http_client(plane.kubeconfig) as http:
        http.post(EXPERIMENTS, json=yaml.safe_load(text)).raise_for_status()

        def completed() -> Object:
            status: Object = http.get(f"{EXPERIMENTS}/first").json().get("status", {})
            return status if status.get("completionTime") else {}

        assert wait_for(completed, 60)["trialsSucceeded"] == 4


def test_it_names_every_argument_and_every_attribute() -> None:
    section = GUIDE.partition("## All of `ControlPlane`")[2].partition("\n## ")[0]
    arguments, _, attributes = section.partition("| attribute |")
    assert set(re.findall(r"^\| `(\w+)`", arguments, re.MULTILINE)) == set(inspect.signature(ControlPlane).parameters)
    with ControlPlane() as plane:
        public = {name for name in dir(plane) if not name.startswith("_")} - {"registry"}
    firsts = re.findall(r"^\| (.*?) \|", attributes, re.MULTILINE)
    assert {name for first in firsts for name in re.findall(r"`(\w+)", first)} == public
