"""A control plane that is killed and started again takes up the pods that ran; what it cannot find has failed."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.controlplane.plane import StartError
from objects import EXPERIMENTS, PODS, Object, pod, shell_job, tuning_experiment
from program import Program
from waiting import wait_for

TRIALS = EXPERIMENTS.replace("experiments", "trials")


def log(program: Program, name: str) -> str:
    return program.http.get(f"{PODS}/{name}/log").text


def ended(program: Program, path: str) -> Object:
    """The status of a pod that has ended."""
    found = wait_for(lambda: program.get(path)["status"], 30)
    return found if found["phase"] in {"Succeeded", "Failed"} else {}


def test_a_pod_runs_on_and_is_taken_up_again(program: Program, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"echo $$$$; until [ -e {gate} ]; do sleep 0.02; done; echo done; exit 5"
    program.create(PODS, pod("lasting", "sh", "-c", script))
    wait_for(lambda: program.get(f"{PODS}/lasting")["status"]["phase"] == "Running", 30)
    pid = int(wait_for(lambda: log(program, "lasting")))
    program.kill()
    assert psutil.pid_exists(pid)
    program.restart()
    gate.touch()
    status = wait_for(lambda: ended(program, f"{PODS}/lasting"), 30)
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 5
    assert log(program, "lasting") == f"{pid}\ndone\n"


def test_a_start_that_fails_leaves_the_pods_that_run_to_the_next(program: Program, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    program.create(PODS, pod("lasting", "sh", "-c", f"until [ -e {gate} ]; do sleep 0.02; done; exit 5"))
    wait_for(lambda: program.get(f"{PODS}/lasting")["status"]["phase"] == "Running", 30)
    program.kill()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StartError, match="cannot listen on"):
        ControlPlane(state_dir=program.state, port=taken.getsockname()[1]).start()
    program.restart()
    gate.touch()
    status = wait_for(lambda: ended(program, f"{PODS}/lasting"), 30)
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 5


def test_an_experiment_goes_on_with_the_trials_that_ran(program: Program, tmp_path: Path) -> None:
    gate, starts = tmp_path / "gate", tmp_path / "starts"
    script = f"echo x >> {starts}; until [ -e {gate} ]; do sleep 0.02; done; echo loss=${{trialParameters.rate}}"
    program.create(EXPERIMENTS, tuning_experiment("search", shell_job(script), retain=True))
    wait_for(lambda: starts.exists() and len(starts.read_text().split()) == 2, 30)
    program.kill()
    gate.touch()
    program.restart()
    status = wait_for(lambda: completed(program, "search"), 60)
    assert (status["trials"], status["trialsSucceeded"]) == (4, 4)
    assert len(starts.read_text().split()) == 4


def test_trials_whose_processes_were_lost_fail_and_the_experiment_goes_on(program: Program, tmp_path: Path) -> None:
    first, starts = tmp_path / "first", tmp_path / "starts"
    script = f"echo x >> {starts}; mkdir {first} && sleep 600; echo loss=${{trialParameters.rate}}"
    search = tuning_experiment("search", shell_job(script), parallelTrialCount=1, maxTrialCount=3, retain=True)
    program.create(EXPERIMENTS, search)
    wait_for(first.exists, 30)
    wait_for(lambda: [one["status"]["phase"] for one in program.get(PODS)["items"]] == ["Running"], 30)
    runtime = program.runtime()
    program.kill()
    runtime.kill()
    program.restart()
    status = wait_for(lambda: completed(program, "search"), 60)
    assert (status["trialsFailed"], status["trialsSucceeded"]) == (1, 2)
    reasons = [one["status"].get("reason") for one in program.get(PODS)["items"]]
    assert sorted(reasons, key=str) == ["NodeLost", None, None]


def completed(program: Program, name: str) -> Object:
    status: Object = program.get(f"{EXPERIMENTS}/{name}").get("status", {})
    return status if status.get("completionTime") else {}
