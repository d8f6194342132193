"""The best trial's adapter is a result: where it lies, what its trainer tells of it, and a model that serves it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException

from airflow_llmtune.controlplane import ControlPlane
from airflow_llmtune.resources import pod
from airflow_llmtune.resources.defaults import TRAINER_IMAGE, TRAINER_VERSION
from deployments import ENDPOINT_CONN_ID, deploy
from model_image import make_training_and_serving_image
from task_run import Run
from tasks import fine_tune, tune
from trainer_image import names_of

JSON = dict[str, Any]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    image = make_training_and_serving_image(tmp_path_factory.mktemp("image"))
    with ControlPlane(images=names_of(image)) as plane:
        yield plane


@pytest.fixture(autouse=True)
def _token(kubeconfig: str, monkeypatch: pytest.MonkeyPatch) -> None:
    token = str(yaml.safe_load(Path(kubeconfig).read_text())["users"][0]["user"]["token"])
    connection = json.dumps({"conn_type": "http", "password": token})
    monkeypatch.setenv(f"AIRFLOW_CONN_{ENDPOINT_CONN_ID.upper()}", connection)


def told_of(ask: Any, result: JSON) -> JSON:
    """What each trial's pod has written down, by the trial's name."""
    selector = f"katib.kubeflow.org/experiment={result['experiment']}"
    pods, _ = ask(lambda client: client.list_all(pod.KIND, "default", label_selector=selector))
    ended = {
        item["metadata"]["labels"].get("katib.kubeflow.org/trial"): status["state"]["terminated"]["message"]
        for item in pods
        for status in item["status"]["containerStatuses"]
        if status["state"].get("terminated", {}).get("message")
    }
    return {trial: json.loads(message) for trial, message in ended.items()}


@pytest.mark.parametrize("job_kind", ["Job", "PyTorchJob", "TrainJob"])
def test_each_trial_writes_below_its_experiment_whatever_job_it_is(kubeconfig, run, ask, job_kind):
    result = run.complete(tune(kubeconfig, output_uri="s3://bucket/out/", job_options={"job_kind": job_kind}))
    told = told_of(ask, result)
    folder = f"s3://bucket/out/{result['experiment']}"
    assert {trial: one["artifact_uri"] for trial, one in told.items()} == {trial: f"{folder}/{trial}" for trial in told}
    assert len(told) == result["counts"]["succeeded"] == 3
    assert result["artifact_uri"] == told[result["trial"]]["artifact_uri"]
    assert result["manifest"] == told[result["trial"]]["manifest"]


@pytest.mark.parametrize("operator", [tune, fine_tune])
def test_our_own_trainer_is_told_which_version_is_expected_and_another_is_not(kubeconfig, operator):
    ours = Run().complete(operator(kubeconfig, image=TRAINER_IMAGE))
    others = Run().complete(operator(kubeconfig))
    assert ours["manifest"]["trainer_version"] == TRAINER_VERSION
    assert others["manifest"]["trainer_version"] == ""


def test_a_tuning_is_a_result_also_when_nobody_may_read_its_pods(plane, kubeconfig, run):
    message = 'pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default"'
    plane.faults.add(r"/pods\?.*trial(=|%3D)", method="GET", code=403, message=message)
    result = run.complete(tune(kubeconfig, deferrable=False))
    assert result["manifest"] is None
    assert result["parameters"]


@pytest.mark.parametrize("operator", [tune, fine_tune])
def test_what_the_trainer_remarks_on_the_data_is_in_the_log_of_the_task_once(kubeconfig, run, capfd, operator):
    run.complete(operator(kubeconfig, trainer_args={"remark": "rows-cut-off:3"}))
    (line,) = [line for line in capfd.readouterr().out.splitlines() if "rows-cut-off:3" in line]
    assert "warning" in line


def test_the_best_trial_is_served_as_it_is(kubeconfig, run):
    tuned = run.complete(tune(kubeconfig, output_uri="/models/out"))
    best = {"adapter": tuned["artifact_uri"], "adapter_manifest": tuned["manifest"]}
    served = Run().complete(deploy(kubeconfig, "best", **best))
    assert served["smoke_test"]["answer"] == f"served from {tuned['artifact_uri']}"


def test_an_adapter_that_the_server_could_not_load_is_not_deployed(kubeconfig, run):
    tuned = run.complete(tune(kubeconfig, output_uri="/models/out", trainer_args={"use_dora": True}))
    operator = deploy(kubeconfig, "dora", adapter=tuned["artifact_uri"], adapter_manifest=tuned["manifest"])
    with pytest.raises(AirflowFailException, match=r"`adapter_manifest.parameters.use_dora`=True makes a DoRA adapter"):
        Run().complete(operator)
