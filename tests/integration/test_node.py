"""The node of a whole control plane: how much runs at once, and what cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.controlplane.__main__ import parser
from clients import http_client
from objects import EXPERIMENTS, PODS, Object, pod, shell_job, tuning_experiment
from waiting import wait_for

NODES = "/api/v1/nodes"
EVENTS = PODS.replace("pods", "events")


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    resources = {"cpu": "1", "nvidia.com/gpu": "1"}
    with ControlPlane(node_resources=resources) as plane, http_client(plane.kubeconfig) as client:
        yield client


def asking(**resources: str) -> Object:
    """A change for the only container of a pod."""
    return {"resources": {"requests": resources}}


def test_trials_run_as_many_at_once_as_the_node_has_room_for(http: httpx.Client, tmp_path: Path) -> None:
    script = f"mkdir {tmp_path}/alone || exit 1; sleep 0.2; rmdir {tmp_path}/alone; echo loss=${{trialParameters.rate}}"
    job = shell_job(script)
    job["spec"]["template"]["spec"]["containers"][0] |= asking(cpu="600m")
    assert http.post(EXPERIMENTS, json=tuning_experiment("narrow", job)).status_code == 201
    status = wait_for(lambda: completed(http, "narrow"), 60)
    assert (status["trialsSucceeded"], status.get("trialsFailed", 0)) == (4, 0)
    held = [one for one in http.get(EVENTS).json()["items"] if one["reason"] == "FailedScheduling"]
    assert any("1 Insufficient cpu" in one["message"] for one in held)


def test_the_collectors_take_no_room_from_the_trials(http: httpx.Client, tmp_path: Path) -> None:
    # Each trial ends only when the other one runs as well.
    meet = f"mktemp -p {tmp_path}; until [ $(ls {tmp_path} | wc -l) -ge 2 ]; do sleep 0.05; done"
    job = shell_job(f"{meet}; echo loss=${{trialParameters.rate}}")
    job["spec"]["template"]["spec"]["containers"][0] |= asking(cpu="500m")
    experiment = tuning_experiment("pair", job)
    experiment["spec"] |= {"maxTrialCount": 2, "parallelTrialCount": 2}
    assert http.post(EXPERIMENTS, json=experiment).status_code == 201
    assert wait_for(lambda: completed(http, "pair"), 60)["trialsSucceeded"] == 2


def completed(http: httpx.Client, name: str) -> Object:
    status: Object = http.get(f"{EXPERIMENTS}/{name}").json().get("status", {})
    return status if status.get("completionTime") else {}


def test_a_pod_that_asks_for_too_many_gpus_waits_as_on_a_cluster(http: httpx.Client) -> None:
    wants = pod("greedy", "true")
    wants["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 2}}
    assert http.post(PODS, json=wants).status_code == 201
    held = wait_for(lambda: http.get(f"{PODS}/greedy").json()["status"].get("conditions"))[0]
    assert (held["reason"], held["status"]) == ("Unschedulable", "False")
    assert "1 Insufficient nvidia.com/gpu." in held["message"]
    assert http.delete(f"{PODS}/greedy").status_code == 200
    assert http.get(f"{PODS}/greedy").status_code == 404


def test_the_node_shows_what_it_has(http: httpx.Client) -> None:
    (node,) = http.get(NODES).json()["items"]
    assert node["metadata"]["name"] == "llmtune-node"
    assert node["status"]["allocatable"]["cpu"] == "1"
    assert {one["type"]: one["status"] for one in node["status"]["conditions"]}["Ready"] == "True"


def test_the_log_of_one_of_several_containers_must_be_named(http: httpx.Client) -> None:
    several = pod("several", "sh", "-c", "echo one; echo two")
    several["spec"]["containers"].append({**several["spec"]["containers"][0], "name": "side"})
    assert http.post(PODS, json=several).status_code == 201
    wait_for(lambda: http.get(f"{PODS}/several").json()["status"]["phase"] == "Succeeded")
    refused = http.get(f"{PODS}/several/log")
    assert refused.status_code == 400
    text = "a container name must be specified for pod several, choose one of: [main side]"
    assert refused.json()["message"] == text
    query = {"container": "side", "timestamps": "true", "sinceSeconds": "600", "tailLines": "1"}
    assert http.get(f"{PODS}/several/log", params=query).text.endswith("Z two\n")
    refused = http.get(f"{PODS}/several/log", params={"container": "side", "tailLines": "-1"})
    assert (refused.status_code, refused.json()["details"]["causes"][0]["field"]) == (422, "tailLines")


@pytest.mark.parametrize("text", ["cpu", "=4", "cpu=four"])
def test_a_wrong_resource_is_told_on_the_command_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--kubeconfig", "kc", "--node-resource", text])
    assert "--node-resource" in capsys.readouterr().err
