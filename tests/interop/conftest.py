"""One control plane for all foreign clients, and a runner for their scripts in the environments of their SDKs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane import ControlPlane
from trainer_image import make_image, names_of

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / ".interop"
# A client that waits for ever must not outlive pytest's own limit.
SECONDS = 110

RunClient = Callable[..., Any]
Kubectl = Callable[..., str]


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    here, katib = Path(sys.prefix), ENVIRONMENTS / "katib"
    images = {
        # What Kubeflow's SDK asks for when nobody names an image; this environment has torch.
        "pytorch/pytorch": here,
        # What a person would build to push metrics from a trial.
        "example.com/katib-sdk": katib,
        "busybox": Path("/usr"),
        # What this project's operators run their trainer in.
        **names_of(make_image(tmp_path_factory.mktemp("image"))),
    }
    with ControlPlane(images=images, namespaces=["default", "team"]) as running:
        yield running


@pytest.fixture(scope="session")
def kubeconfig(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kube") / "config"
    plane.write_kubeconfig(path)
    return path


@pytest.fixture(scope="session")
def environment(kubeconfig: Path) -> dict[str, str]:
    """A shell's variables and no others: nothing of this process leads a client astray."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(kubeconfig.parent),
        "KUBECONFIG": str(kubeconfig),
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture(scope="session")
def run_client(plane: ControlPlane, environment: dict[str, str]) -> RunClient:
    """Run ``clients/NAME.py`` with an SDK's own Python; what it prints last is JSON and is returned."""

    def run(sdk: str, name: str, *words: str) -> Any:
        command = [str(ENVIRONMENTS / sdk / "bin/python"), str(HERE / "clients" / f"{name}.py"), *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def kubectl(environment: dict[str, str]) -> Kubectl:
    def run(*words: str, stdin: str = "", **variables: str) -> str:
        done = subprocess.run(
            [str(ENVIRONMENTS / "kubectl/bin/kubectl"), *words],
            input=stdin,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
