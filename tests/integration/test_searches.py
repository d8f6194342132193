"""Each algorithm from an Experiment's creation to its end: the whole control plane, real processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.controlplane.algorithms.catalog import ALGORITHM_NAMES
from airflow_llmtune.controlplane.algorithms.population_labels import GENERATION_LABEL
from clients import http_client
from objects import EXPERIMENTS, Object, shell_job, tuning_experiment
from searches import choice, double, integer
from waiting import wait_for

SECONDS = 40
KATIB = EXPERIMENTS.removesuffix("/experiments")
SPACE = [double("lr", "0.1", "0.9", step="0.4"), integer("layers", "1", "4", step="1"), choice("kind", "a", "b")]
SETTINGS = {
    "hyperband": {"r_l": "4", "eta": "2", "resource_name": "layers"},
    "pbt": {"suggestion_trial_dir": "/opt/ckpt", "n_population": "5", "truncation_threshold": "0.2"},
}
PROBE = f"""{sys.executable} -c '
import os, grpc
for name, port in ("Suggestion", 6789), ("EarlyStopping", 6788):
    with grpc.insecure_channel(os.environ["SERVICE"] + ":" + str(port)) as channel:
        service = ("manager.v1beta1." + name).encode()
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(bytes([10, len(service)]) + service, timeout=20) == bytes([8, 1])
'"""
ONE = {"maxTrialCount": 1, "parallelTrialCount": 1}
POLICIES = {"pbt": "FromVolume", "sobol": "LongRunning"}


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with ControlPlane() as plane, http_client(plane.kubeconfig) as client:
        yield client


def experiment(name: str, script: str = "echo loss=${trialParameters.rate}", **spec: Any) -> Object:
    made = tuning_experiment(name, shell_job(f"{script} ${{trialParameters.more}}"), parameters=SPACE, **spec)
    template = made["spec"]["trialTemplate"]
    template["trialParameters"] = [
        {"name": "rate", "reference": "lr"},
        {"name": "more", "reference": "layers"},
        {"name": "kind", "reference": "kind"},
    ]
    template["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"][2] += " ${trialParameters.kind}"
    return made


def algorithm(name: str) -> Object:
    settings = SETTINGS.get(name, {})
    return {"algorithmName": name, "algorithmSettings": [{"name": key, "value": settings[key]} for key in settings]}


def median_stop(**settings: str) -> Object:
    listed = [{"name": name, "value": value} for name, value in settings.items()]
    return {"algorithmName": "medianstop", "algorithmSettings": listed}


def finished(http: httpx.Client, name: str) -> Object:
    def end() -> Object | None:
        found: Object = http.get(f"{EXPERIMENTS}/{name}").json()
        conditions = found.get("status", {}).get("conditions", [])
        ended = any(one["type"] in {"Succeeded", "Failed"} and one["status"] == "True" for one in conditions)
        return found if ended else None

    return wait_for(end, SECONDS)


@pytest.mark.parametrize("name", ALGORITHM_NAMES)
def test_an_experiment_runs_to_its_end_with_every_algorithm(http: httpx.Client, name: str) -> None:
    policy = POLICIES.get(name, "Never")
    body = experiment(name, algorithm=algorithm(name), parallelTrialCount=4, maxTrialCount=8, resumePolicy=policy)
    assert http.post(EXPERIMENTS, json=body).status_code == 201
    ended = finished(http, name)
    assert ended["status"]["conditions"][-1]["reason"] == "ExperimentMaxTrialsReached"
    assert (ended["status"]["trials"], ended["status"]["trialsSucceeded"]) == (8, 8)
    suggestion = http.get(f"{KATIB}/suggestions/{name}").json()
    assert suggestion["status"]["suggestionCount"] == 8
    expected = {"Never": [404, 404, 404], "FromVolume": [404, 404, 200], "LongRunning": [200, 200, 404]}
    paths = (
        f"/apis/apps/v1/namespaces/default/deployments/{name}-{name}",
        f"/api/v1/namespaces/default/services/{name}-{name}",
        f"/api/v1/namespaces/default/persistentvolumeclaims/{name}-{name}",
    )
    assert [http.get(path).status_code for path in paths] == expected[policy]


@pytest.mark.parametrize(("name", "trials"), [("grid", 24), ("hyperband", 15)])
def test_a_search_without_a_limit_ends_when_the_algorithm_has(http: httpx.Client, name: str, trials: int) -> None:
    body = experiment(f"all-{name}", algorithm=algorithm(name), parallelTrialCount=9, maxTrialCount=None)
    assert http.post(EXPERIMENTS, json=body).status_code == 201
    ended = finished(http, f"all-{name}")
    assert ended["status"]["conditions"][-1]["reason"] == "ExperimentSuggestionEndReached"
    assert ended["status"]["trialsSucceeded"] == trials


def test_a_child_of_a_population_finds_the_checkpoint_of_its_parent(http: httpx.Client) -> None:
    script = "echo step >> /opt/ckpt/steps; echo loss=$(wc -l < /opt/ckpt/steps) ${trialParameters.rate}"
    spec = {"algorithm": algorithm("pbt"), "parallelTrialCount": 5, "maxTrialCount": 12, "resumePolicy": "FromVolume"}
    assert http.post(EXPERIMENTS, json=experiment("people", script, **spec)).status_code == 201
    assert finished(http, "people")["status"]["trialsSucceeded"] == 12
    trials = http.get(f"{KATIB}/trials", params={"labelSelector": "katib.kubeflow.org/experiment=people"}).json()[
        "items"
    ]
    generations = [int(trial["metadata"]["labels"][GENERATION_LABEL]) for trial in trials]
    steps = [int(trial["status"]["observation"]["metrics"][0]["latest"]) for trial in trials]
    assert max(generations) > 0
    assert steps == [generation + 1 for generation in generations]


def test_later_trials_carry_the_rule_of_early_stopping(http: httpx.Client) -> None:
    early_stopping = median_stop(min_trials_required="1", start_step="2")
    body = experiment(
        "stop",
        "printf 'loss=0.5\\nloss=0.25 %s %s %s' ${trialParameters.rate}",
        earlyStopping=early_stopping,
        parallelTrialCount=1,
    )
    created = http.post(EXPERIMENTS, json=body)
    assert created.status_code == 201, created.text
    assert finished(http, "stop")["status"]["trialsSucceeded"] == 4
    trials = http.get(f"{KATIB}/trials", params={"labelSelector": "katib.kubeflow.org/experiment=stop"}).json()["items"]
    rule = {"name": "loss", "value": "0.375", "comparison": "greater", "startStep": 2}
    rules = [trial["spec"].get("earlyStoppingRules", []) for trial in trials]
    assert sorted(map(len, rules)) == [0, 1, 1, 1]
    assert all(one == [rule] for one in rules if one)


def test_a_trial_that_is_worse_than_those_before_is_stopped(http: httpx.Client) -> None:
    # One child of the container's shell, which is what can be stopped; the worse a trial, the longer it would take.
    loop = "for step in 1 2 3 4 5 6 7 8; do echo loss=${trialParameters.rate}; sleep ${trialParameters.rate}; done"
    body = tuning_experiment(
        "worse",
        shell_job(f"sh -c '{loop}'"),
        parameters=SPACE[:1],
        algorithm={"algorithmName": "grid", "algorithmSettings": [{"name": "random_state", "value": "0"}]},
        earlyStopping=median_stop(min_trials_required="1", start_step="2"),
        parallelTrialCount=1,
        maxTrialCount=3,
    )
    created = http.post(EXPERIMENTS, json=body)
    assert created.status_code == 201, created.text
    status = finished(http, "worse")["status"]
    assert (status["trialsSucceeded"], status["trialsEarlyStopped"]) == (1, 2)
    assert status["currentOptimalTrial"]["parameterAssignments"] == [{"name": "lr", "value": "0.1"}]
    for name in status["earlyStoppedTrialList"]:
        trial = http.get(f"{KATIB}/trials/{name}").json()
        assert float(trial["status"]["observation"]["metrics"][0]["latest"]) > 0.1
        assert trial["status"]["conditions"][-1]["reason"] == "TrialEarlyStopped"


def test_a_pod_can_ask_for_the_health_of_its_suggestion_by_the_services_name(http: httpx.Client) -> None:
    made = experiment("health", f"set -e; {PROBE}; echo loss=0.1 ${{trialParameters.rate}}", **ONE)
    container = made["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "SERVICE", "value": "health-random.default"}]
    http.post(EXPERIMENTS, json=made).raise_for_status()
    assert finished(http, "health")["status"]["trialsSucceeded"] == 1
