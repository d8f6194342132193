"""kubectl of a current release, as a person at a terminal uses it on an Experiment."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from objects import job, shell_job, tuning_experiment

Kubectl = Callable[..., str]

KUBECTL = Path(__file__).parent.parent.parent / ".interop/kubectl/bin/kubectl"
SLOW = "for i in 1 2 3; do echo step $i; sleep 0.3; done; echo loss=${trialParameters.rate}"
COLLECTOR = "metrics-logger-and-collector"


@pytest.fixture
def watched(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [str(KUBECTL), "get", "experiments", "-w"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        yield watching
        watching.terminate()


@pytest.fixture
def editor(tmp_path: Path) -> Callable[[str], str]:
    """An EDITOR that runs one sed command on the file it is given."""

    def make(expression: str) -> str:
        script = tmp_path / "editor"
        script.write_text(f'#!/bin/sh\nexec sed -i "{expression}" "$1"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return str(script)

    return make


def test_an_experiment_from_apply_to_delete(
    kubectl: Kubectl, watched: subprocess.Popen[str], editor: Callable[[str], str]
) -> None:
    manifest = tuning_experiment(
        "typed", job("echo", "loss=${trialParameters.rate}"), retain=True, maxTrialCount=2, resumePolicy="LongRunning"
    )
    assert kubectl("apply", "-f", "-", stdin=yaml.safe_dump(manifest)) == "experiment.kubeflow.org/typed created\n"
    kubectl("wait", "--for=condition=Succeeded", "experiment/typed", "--timeout=60s")
    assert watched.stdout is not None
    seen = [watched.stdout.readline().split() for _ in range(3)]
    assert seen[0] == ["NAME", "TYPE", "STATUS", "AGE"]
    assert {line[0] for line in seen[1:]} == {"typed"}
    described = kubectl("describe", "experiment", "typed")
    assert "Experiment has succeeded because max trial count has reached" in described
    assert "Best Trial Name:" in described

    assert "patched" in kubectl("patch", "experiment", "typed", "--type=merge", "-p", '{"spec":{"maxTrialCount":3}}')
    wanted = "--for=jsonpath={.status.trialsSucceeded}"
    kubectl("wait", f"{wanted}=3", "experiment/typed", "--timeout=60s")
    change = editor("s/maxTrialCount: 3/maxTrialCount: 4/")
    assert kubectl("edit", "experiment", "typed", EDITOR=change) == "experiment.kubeflow.org/typed edited\n"
    kubectl("wait", f"{wanted}=4", "experiment/typed", "--timeout=60s")

    assert kubectl("delete", "-f", "-", stdin=yaml.safe_dump(manifest)).startswith(
        'experiment.kubeflow.org "typed" deleted'
    )
    kubectl("wait", "--for=delete", "trials", "-l", "katib.kubeflow.org/experiment=typed", "--timeout=30s")


def test_a_trials_log_is_followed_while_it_runs(kubectl: Kubectl) -> None:
    manifest = tuning_experiment("slow", shell_job(f"({SLOW})"), retain=True, maxTrialCount=1, parallelTrialCount=1)
    kubectl("create", "-f", "-", stdin=yaml.safe_dump(manifest))
    kubectl("wait", "--for=condition=Running", "experiment/slow", "--timeout=30s")
    (trial,) = json.loads(kubectl("get", "trials", "-l", "katib.kubeflow.org/experiment=slow", "-o", "json"))["items"]
    name = trial["metadata"]["name"]
    kubectl("wait", "--for=create", "pod", "-l", f"katib.kubeflow.org/trial={name}", "--timeout=30s")
    pod = kubectl("get", "pod", "-l", f"katib.kubeflow.org/trial={name}", "-o", "name").strip()
    kubectl("wait", "--for=condition=Ready", pod, "--timeout=30s")
    followed = kubectl("logs", "-f", pod, "-c", COLLECTOR).splitlines()
    assert followed[:3] == ["step 1", "step 2", "step 3"]
    assert followed[3].startswith("loss=0.")
    kubectl("wait", "--for=condition=Succeeded", f"trial/{name}", "--timeout=30s")
    events = kubectl("events", "--for", f"trial/{name}")
    assert "JobSucceeded" in events
    kubectl("delete", "experiment", "slow")


def test_a_jobs_pods_are_seen_and_stopped(kubectl: Kubectl) -> None:
    manifest = {**job("sleep", "60"), "metadata": {"name": "sleeper"}}
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(manifest))
    kubectl("wait", "--for=create", "pod", "-l", "job-name=sleeper", "--timeout=30s")
    kubectl("wait", "--for=condition=Ready", "pod", "-l", "job-name=sleeper", "--timeout=30s")
    assert "Started container main" in kubectl("describe", "pods", "-l", "job-name=sleeper")
    assert kubectl("get", "jobs", "sleeper", "--no-headers").split()[:3] == ["sleeper", "Running", "0/1"]
    kubectl("delete", "job", "sleeper", "--cascade=foreground", "--timeout=30s")
    assert kubectl("get", "pods", "-l", "job-name=sleeper", "-o", "name") == ""


def test_the_api_describes_itself(kubectl: Kubectl) -> None:
    resources = kubectl("api-resources", "-o", "name").split()
    assert {"experiments.kubeflow.org", "trainjobs.trainer.kubeflow.org", "jobs.batch"} <= set(resources)
    assert "KIND:       Experiment" in kubectl("explain", "experiments")
    shown = kubectl(
        "get",
        "nodes,persistentvolumes,roles,rolebindings,trainjobs,jobsets,trainingruntimes,clustertrainingruntimes",
        "-A",
    )
    assert "torch-distributed" in shown
