"""A real kubectl against the whole control plane: what a person types."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from airflow_llmtune.controlplane import ControlPlane
from objects import job, tuning_experiment

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="no kubectl on this machine")

Kubectl = Callable[..., str]

SPACE = {"min": "0.01", "max": "0.1"}
EXPERIMENT = tuning_experiment(
    "demo",
    # Katib joins the words unquoted, so a command that survives that.
    job("echo", "loss=${trialParameters.rate}"),
    retain=True,
    maxTrialCount=2,
    parameters=[{"name": "lr", "parameterType": "double", "feasibleSpace": SPACE}],
)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        yield running


@pytest.fixture(scope="module")
def environment(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("kubectl")
    plane.write_kubeconfig(home / "kubeconfig")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "KUBECONFIG": str(home / "kubeconfig"),
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture
def kubectl(environment: dict[str, str]) -> Kubectl:
    def run(*words: str, stdin: str = "") -> str:
        done = subprocess.run(
            [str(KUBECTL), *words],
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def watched_trials(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [str(KUBECTL), "get", "trials", "--watch"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        yield watching
        watching.terminate()


def test_an_experiment_from_apply_to_delete(
    kubectl: Kubectl, watched_trials: subprocess.Popen[str], tmp_path: Path
) -> None:
    manifest = tmp_path / "experiment.yaml"
    manifest.write_text(yaml.safe_dump(EXPERIMENT))
    assert kubectl("apply", "-f", str(manifest)) == "experiment.kubeflow.org/demo created\n"
    kubectl("wait", "--for=condition=Succeeded", "experiment/demo", "--timeout=60s")
    assert watched_trials.stdout.readline().split() == ["NAME", "TYPE", "STATUS", "AGE"]
    assert watched_trials.stdout.readline().startswith("demo-")
    # kubectl sends the list of parameters again, for admission completed it; that makes no new generation.
    assert kubectl("apply", "-f", str(manifest)) == "experiment.kubeflow.org/demo configured\n"
    assert kubectl("get", "experiment", "demo", "-o", "jsonpath={.metadata.generation}") == "1"
    assert kubectl("get", "experiment", "demo", "--no-headers").split()[:3] == ["demo", "Succeeded", "True"]
    listed = kubectl("get", "experiments,trials,jobs", "--no-headers")
    assert listed.count("trial.kubeflow.org/demo-") == 2
    assert listed.count("Complete") == 2
    trial = json.loads(kubectl("get", "trials", "-o", "json"))["items"][0]["metadata"]["name"]
    # Katib sends the output of the trial's container to a file that its collector prints.
    log = kubectl("logs", "-l", f"katib.kubeflow.org/trial={trial}", "-c", "metrics-logger-and-collector")
    assert "loss=0.0" in log
    described = kubectl("describe", "experiment", "demo")
    assert "Experiment has succeeded because max trial count has reached" in described
    assert kubectl("delete", "experiment", "demo").startswith('experiment.kubeflow.org "demo" deleted')
    kubectl("wait", "--for=delete", f"trial/{trial}", "--timeout=30s")


def test_a_refused_experiment_tells_why(environment: dict[str, str]) -> None:
    wrong = EXPERIMENT | {"metadata": {"name": "wrong"}}
    wrong = wrong | {"spec": EXPERIMENT["spec"] | {"parallelTrialCount": 9}}
    done = subprocess.run(
        [str(KUBECTL), "create", "-f", "-"],
        input=yaml.safe_dump(wrong),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert 'admission webhook "validator.experiment.katib.kubeflow.org" denied the request' in done.stderr
    assert "spec.parallelTrialCount" in done.stderr


def test_a_pods_log_is_followed_to_its_end(kubectl: Kubectl) -> None:
    script = "for i in 1 2 3; do echo line $i; sleep 0.2; done"
    kubectl("run", "tick", "--image=busybox", "--restart=Never", "--command", "--", "sh", "-c", script)
    kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/tick", "--timeout=30s")
    assert kubectl("logs", "-f", "tick") == "line 1\nline 2\nline 3\n"
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/tick", "--timeout=30s")
    assert kubectl("logs", "tick", "--tail=1") == "line 3\n"
    assert kubectl("get", "pod", "tick", "--no-headers").split()[:4] == ["tick", "0/1", "Completed", "0"]
    assert "Started container tick" in kubectl("get", "events", "--field-selector", "involvedObject.name=tick")
    kubectl("delete", "pod", "tick")


def test_objects_are_created_changed_and_shown(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    kubectl("create", "secret", "generic", "s", "--from-literal=token=xyz")
    kubectl("create", "serviceaccount", "robot")
    kubectl("patch", "configmap", "c", "-p", '{"data":{"b":"2"}}')
    kubectl("patch", "configmap", "c", "--type=json", "-p", '[{"op":"remove","path":"/data/a"}]')
    kubectl("label", "configmap", "c", "team=x")
    kubectl("annotate", "configmap", "c", "note=y")
    shown = yaml.safe_load(kubectl("get", "configmap", "-l", "team=x", "-o", "yaml"))["items"][0]
    assert shown["data"] == {"b": "2"}
    assert shown["metadata"]["annotations"] == {"note": "y"}
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.token}") == "eHl6"
    assert kubectl("get", "sa", "robot", "-o", "name") == "serviceaccount/robot\n"
    applied = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {c: '3'}\n"
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", stdin=applied)
    assert "created (server dry run)" in kubectl(
        "apply", "--dry-run=server", "-f", "-", stdin=applied.replace("name: c", "name: d")
    )
    kubectl("delete", "configmap,secret,sa", "--all")
    assert kubectl("get", "configmap", "-o", "name") == ""


def test_a_namespace_comes_and_goes_with_its_content(kubectl: Kubectl) -> None:
    kubectl("create", "namespace", "temporary")
    kubectl("-n", "temporary", "create", "configmap", "c")
    kubectl("delete", "namespace", "temporary", "--timeout=30s")
    assert "temporary" not in kubectl("get", "namespaces", "-o", "name")
    assert kubectl("get", "configmap", "-A", "-o", "name") == ""


def test_the_cluster_describes_itself(kubectl: Kubectl) -> None:
    resources = kubectl("api-resources", "-o", "name").split()
    assert {"experiments.kubeflow.org", "jobs.batch", "pods", "pytorchjobs.kubeflow.org"} <= set(resources)
    assert "KIND:       Experiment" in kubectl("explain", "experiments")
    assert "Server Version: v1." in kubectl("version")
    assert kubectl("get", "--raw", "/readyz") == "ok"
