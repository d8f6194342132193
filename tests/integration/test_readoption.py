"""A control plane that is killed and started again takes up the pods that ran; what it cannot find has failed."""

from __future__ import annotations

import base64
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from objects import EXPERIMENTS, PODS, Object, pod, shell_job, tuning_experiment
from waiting import wait_for

TRIALS = EXPERIMENTS.replace("experiments", "trials")


class Program:
    """The control plane as a program, run again and again on one state directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.start()

    def start(self) -> None:
        kubeconfig = self._folder / "kubeconfig"
        options = ["--kubeconfig", str(kubeconfig), "--state-dir", str(self._folder / "state")]
        self._process = psutil.Popen(
            [sys.executable, "-m", "airflow_llmtune.controlplane", *options],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout.readline().startswith(b"control plane ready")
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.http = httpx.Client(
            base_url=cluster["server"],
            verify=ssl.create_default_context(cadata=authority),
            headers={"authorization": f"Bearer {config['users'][0]['user']['token']}"},
            timeout=30,
        )

    def end(self, number: signal.Signals) -> None:
        self.http.close()
        self._process.send_signal(number)
        self._process.communicate(timeout=30)

    def runtime(self) -> psutil.Process:
        """The parent of all containers."""
        (found,) = [one for one in self._process.children() if one.cmdline()[3].endswith("/kubelet/runtime")]
        assert isinstance(found, psutil.Process)
        return found

    def create(self, path: str, body: Object) -> None:
        assert self.http.post(path, json=body).status_code == 201

    def get(self, path: str) -> Object:
        found: Object = self.http.get(path).json()
        return found

    def log(self, name: str) -> str:
        return self.http.get(f"{PODS}/{name}/log").text


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    running = Program(tmp_path)
    yield running
    running.end(signal.SIGTERM)


def ended(program: Program, path: str) -> Object:
    """The status of a pod that has ended."""
    found = wait_for(lambda: program.get(path)["status"], 30)
    return found if found["phase"] in {"Succeeded", "Failed"} else {}


def test_a_pod_runs_on_and_is_taken_up_again(program: Program, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"echo $$$$; until [ -e {gate} ]; do sleep 0.02; done; echo done; exit 5"
    program.create(PODS, pod("lasting", "sh", "-c", script))
    wait_for(lambda: program.get(f"{PODS}/lasting")["status"]["phase"] == "Running", 30)
    pid = int(wait_for(lambda: program.log("lasting")))
    program.end(signal.SIGKILL)
    assert psutil.pid_exists(pid)
    program.start()
    gate.touch()
    status = wait_for(lambda: ended(program, f"{PODS}/lasting"), 30)
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 5
    assert program.log("lasting") == f"{pid}\ndone\n"


def test_an_experiment_goes_on_with_the_trials_that_ran(program: Program, tmp_path: Path) -> None:
    gate, starts = tmp_path / "gate", tmp_path / "starts"
    script = f"echo x >> {starts}; until [ -e {gate} ]; do sleep 0.02; done; echo loss=${{trialParameters.rate}}"
    program.create(EXPERIMENTS, tuning_experiment("search", shell_job(script), retain=True))
    wait_for(lambda: starts.exists() and len(starts.read_text().split()) == 2, 30)
    program.end(signal.SIGKILL)
    gate.touch()
    program.start()
    status = wait_for(lambda: completed(program, "search"), 60)
    assert (status["trials"], status["trialsSucceeded"]) == (4, 4)
    assert len(starts.read_text().split()) == 4


def test_trials_whose_processes_were_lost_fail_and_the_experiment_goes_on(program: Program, tmp_path: Path) -> None:
    first, starts = tmp_path / "first", tmp_path / "starts"
    script = f"echo x >> {starts}; mkdir {first} && sleep 600; echo loss=${{trialParameters.rate}}"
    search = tuning_experiment("search", shell_job(script), parallelTrialCount=1, maxTrialCount=3, retain=True)
    program.create(EXPERIMENTS, search)
    wait_for(first.exists, 30)
    runtime = program.runtime()
    program.end(signal.SIGKILL)
    runtime.kill()
    program.start()
    status = wait_for(lambda: completed(program, "search"), 60)
    assert (status["trialsFailed"], status["trialsSucceeded"]) == (1, 2)
    reasons = [one["status"].get("reason") for one in program.get(PODS)["items"]]
    assert sorted(reasons, key=str) == ["NodeLost", None, None]


def completed(program: Program, name: str) -> Object:
    status: Object = program.get(f"{EXPERIMENTS}/{name}").get("status", {})
    return status if status.get("completionTime") else {}
