"""Why an Experiment failed or does not get on, as its task tells it: each cause once, in the words of who knows it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.exceptions import ExperimentFailedError, LLMTuneError, StalledError
from airflow_llmtune.hooks.client import KubeflowClient
from airflow_llmtune.hooks.experiment_diagnosis import explain_experiment
from airflow_llmtune.resources import pod, suggestion
from task_run import Run
from tasks import LOSS, any_experiment, raw_experiment

pytestmark = pytest.mark.timeout(90)

# Else the template leaves a parameter out.
USED = "test ${trialParameters.lr} -a ${trialParameters.layers}"
STALL = timedelta(seconds=2)


def told(run: Run, error: type[LLMTuneError], operator: Any) -> str:
    with pytest.raises(error) as caught:
        run.complete(operator)
    assert type(caught.value) is error
    return str(caught.value)


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = manifest["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"][
        "containers"
    ][0]
    return container


def test_a_metric_that_no_trial_reported_is_named_with_what_they_printed(kubeconfig, run):
    manifest = raw_experiment(f"{USED}; echo los=0.5 after 3 epochs")
    text = told(run, ExperimentFailedError, any_experiment(kubeconfig, manifest))
    assert text.count("no finite value of loss was found in its output: it needs a line such as loss=0.5") == 1
    assert text.count("los=0.5 after 3 epochs") == 1
    assert text.count("for the same reason") == 1


def test_a_metric_without_a_finite_value_is_told_as_that(kubeconfig, run):
    text = told(run, ExperimentFailedError, any_experiment(kubeconfig, raw_experiment(f"{USED}; echo loss=nan")))
    assert "no finite value of loss" in text
    assert "loss=nan" in text


def test_what_trials_printed_that_are_not_kept_is_told_to_be_gone(kubeconfig, run):
    manifest = raw_experiment(f"{USED} && echo nothing")
    manifest["spec"]["trialTemplate"]["retain"] = False
    text = told(run, ExperimentFailedError, any_experiment(kubeconfig, manifest))
    assert "`retain: true`" in text


def test_a_container_without_memory_left_is_told_as_that(kubeconfig, run):
    manifest = raw_experiment(f"{USED}; python3 -c 'import time; x = bytes(range(256)) * (1 << 20); time.sleep(60)'")
    container_of(manifest)["resources"] = {"limits": {"memory": "64Mi"}}
    text = told(run, ExperimentFailedError, any_experiment(kubeconfig, manifest))
    assert text.count("ran out of memory (OOMKilled)") == 1


def test_different_crashes_are_each_told(kubeconfig, run, tmp_path):
    manifest = raw_experiment(f"{USED}; mkdir $MARK 2>/dev/null && echo alpha && exit 3; echo beta; exit 4")
    container_of(manifest)["env"] = [{"name": "MARK", "value": str(tmp_path / "first")}]
    text = told(run, ExperimentFailedError, any_experiment(kubeconfig, manifest))
    assert "alpha" in text
    assert "beta" in text


def test_trials_that_still_run_tell_their_last_words_when_the_time_is_over(kubeconfig, run):
    operator = any_experiment(kubeconfig, raw_experiment(f"{USED}; echo step 7; sleep 60"), timeout=STALL)
    text = told(run, AirflowFailException, operator)
    assert re.search(r"pod \S+: runs since \S+\n +last lines of its log:\n +step 7", text)


def test_of_many_trials_that_still_run_the_one_in_trouble_is_told(kubeconfig, run):
    # One of five asks for more than there is; it may be the newest.
    parameters = [
        {"name": "lr", "parameterType": "discrete", "feasibleSpace": {"list": ["1", "2", "3", "4", "5000000"]}},
        {"name": "layers", "parameterType": "categorical", "feasibleSpace": {"list": ["1"]}},
    ]
    manifest = raw_experiment(
        "sleep 60; echo ${trialParameters.layers}",
        parameters=parameters,
        algorithm={"algorithmName": "grid"},
        maxTrialCount=5,
        parallelTrialCount=5,
    )
    container_of(manifest)["resources"] = {"requests": {"cpu": "${trialParameters.lr}m"}}
    text = told(run, StalledError, any_experiment(kubeconfig, manifest, stall_timeout=STALL))
    assert text.count("no node can take the pod (Unschedulable)") == 1
    assert "'lr': '5000000'" in text
    assert "and 2 more unfinished trials" in text


def test_a_suggestion_that_failed_is_told(kubeconfig, run):
    settings = [{"name": "base_estimator", "value": "none"}]
    algorithm = {"algorithmName": "bayesianoptimization", "algorithmSettings": settings}
    text = told(run, ExperimentFailedError, any_experiment(kubeconfig, raw_experiment(LOSS, algorithm=algorithm)))
    assert "the suggestion of bayesianoptimization failed: Validation failed" in text


def test_an_experiment_that_nobody_has_begun_is_told_as_that(ask):
    obj = {"metadata": {"name": "alone", "namespace": "default"}, "spec": {}}
    told = ask(lambda client: explain_experiment(client, obj))
    assert told == ["Katib has not begun it: does its controller run?"]


def test_a_suggestion_whose_own_pod_cannot_start_is_told(ask):
    """Here the algorithms run inside the control plane; so this Suggestion has no Experiment, and is left alone."""
    name = "solo-0a1b2c3d-1"
    algorithm = {"algorithmName": "random"}
    body = {"apiVersion": "kubeflow.org/v1beta1", "kind": "Suggestion", "metadata": {"name": name}}
    labels = {"katib.kubeflow.org/suggestion": name, "katib.kubeflow.org/experiment": name}
    container = {"name": "suggestion", "image": "registry.example/none:1"}
    service = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{name}-random-5d9f8", "labels": labels}}
    obj = {"metadata": {"name": name, "namespace": "default"}, "spec": {}}
    obj["status"] = {"conditions": [{"type": "Created", "status": "True"}]}

    async def tell(client: KubeflowClient) -> list[str]:
        await client.create(suggestion.KIND, "default", {**body, "spec": {"algorithm": algorithm, "requests": 1}})
        await client.create(pod.KIND, "default", {**service, "spec": {"containers": [container]}})
        while "ImagePullBackOff" not in "\n".join(lines := await explain_experiment(client, obj)):
            await asyncio.sleep(0.05)
        await client.delete(pod.KIND, "default", f"{name}-random-5d9f8")
        await client.delete(suggestion.KIND, "default", name)
        return lines

    trouble, reason = ask(tell)
    assert trouble == "the suggestion of random has no service yet that is ready"
    assert reason.startswith(f"  pod {name}-random-5d9f8: container suggestion cannot start (ImagePullBackOff): ")


def test_what_may_not_be_read_is_told_for_each_kind(plane, kubeconfig, run):
    operator = any_experiment(kubeconfig, raw_experiment(f"{USED}; exit 1"))
    for kind in ("suggestions", "events", "pods"):
        plane.faults.add(f"/{kind}[/?]", method="GET", code=403, message=f"no rights to read {kind}", times=10_000)
    try:
        text = told(run, ExperimentFailedError, operator)
    finally:
        plane.faults.clear()
    assert text.count("its suggestion could not be read") == 1
    assert text.count("its pods could not be read") == 1
    assert text.count("for the same reason") == 1


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[str]:
    """A control plane in which an algorithm without another point stops an Experiment for ever, as in Katib."""
    with ControlPlane(images={"busybox": Path("/usr")}, strict=True) as plane:
        plane.write_kubeconfig(tmp_path / "strict.yaml")
        yield str(tmp_path / "strict.yaml")


def test_an_algorithm_without_another_point_is_told(strict, run):
    parameters = [
        {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.2"}},
        {"name": "layers", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "4"}},
    ]
    settings = [{"name": "r_l", "value": "1"}, {"name": "resource_name", "value": "layers"}]
    algorithm = {"algorithmName": "hyperband", "algorithmSettings": settings}
    manifest = raw_experiment(LOSS, parameters=parameters, algorithm=algorithm, maxTrialCount=4, parallelTrialCount=1)
    text = told(run, StalledError, any_experiment(strict, manifest, stall_timeout=STALL))
    assert re.search(r"the suggestion of hyperband gave \d of \d parameter sets that were asked for", text)
    assert "The response contains unexpected trials" in text


def test_pods_that_no_node_takes_are_told_once(kubeconfig, run):
    manifest = raw_experiment(LOSS)
    container_of(manifest)["resources"] = {"requests": {"cpu": "5000"}}
    text = told(run, StalledError, any_experiment(kubeconfig, manifest, stall_timeout=STALL))
    assert text.count("no node can take the pod (Unschedulable)") == 1
    assert text.count("for the same reason") == 1


def test_a_job_that_waits_in_a_queue_tells_so_itself(kubeconfig, run):
    manifest = raw_experiment(LOSS)
    manifest["spec"]["trialTemplate"]["trialSpec"]["spec"]["suspend"] = True
    text = told(run, StalledError, any_experiment(kubeconfig, manifest, stall_timeout=STALL))
    assert re.search(r"Job \S+: JobSuspended: Job suspended", text)


def test_a_job_that_katib_cannot_create_is_told_by_the_events_of_its_trial(kubeconfig, run):
    """So are the rights that its controller lacks."""
    manifest = raw_experiment(LOSS)
    container_of(manifest)["resources"] = {"requests": {"cpu": "1e1.5"}}
    text = told(run, StalledError, any_experiment(kubeconfig, manifest, stall_timeout=STALL))
    assert re.search(r"event of Trial \S+: ReconcileError: .*is invalid", text)
    assert text.count("is invalid") == 1
