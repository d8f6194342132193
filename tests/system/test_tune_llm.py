"""The example DAG on a real Airflow (api-server, scheduler, dag-processor, triggerer) with the real trainer."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from demo.cluster import phase
from tests.support.airflow_site import Site, running_site, trainers, until

DAG_ID = "tune_llm"
CONF = {"trials": 3, "trial_steps": 4, "epochs": 2.0, "sample_prompt": "What is 3 plus?"}

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_site(tmp_path_factory.mktemp("site"), DAG_ID) as site:
        yield site


def test_the_example_dag_tunes_and_trains_and_waits_without_a_worker(site):
    run_id = site.airflow.trigger(DAG_ID, {**site.sources, **CONF})
    with ThreadPoolExecutor(1) as pool:
        live = pool.submit(_progress_while_deferred, site, run_id)
        state, progress = site.follow(DAG_ID, run_id)
    assert state == "success", site.logs(DAG_ID, run_id)
    tuned = site.airflow.xcom(DAG_ID, run_id, "tune")
    trained = site.airflow.xcom(DAG_ID, run_id, "fine_tune")

    assert site.airflow.xcom(DAG_ID, run_id, "tune", "parameters") == tuned["parameters"]
    assert tuned["counts"]["succeeded"] == 3
    assert 1e-5 <= tuned["parameters"]["learning_rate"] <= 1e-2
    assert trained["metrics"]["eval_loss"] < trained["metrics"]["base_eval_loss"]
    adapter = Path(trained["artifact_uri"])
    assert (adapter / "adapter_model.safetensors").is_file()
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == tuned["parameters"]["lora_r"]

    for task_id in ("tune", "fine_tune"):
        assert "deferred" in [seen.state for seen in progress.transitions if seen.task_id == task_id]
        assert progress.deferred_seconds(task_id) > 0
        # A worker is seen where there is one, so seeing none while deferred says something.
        assert progress.workers[task_id]
    assert progress.workers_while_deferred == set()

    # What has been told of the trials while no worker was there, and what is left of it.
    first = live.result()[0]
    assert 1 <= first["counts"]["succeeded"] < 3
    assert first["best"]["metric"] == "eval_loss"
    assert first["recent"][0]["state"] == "succeeded"
    last = site.airflow.xcom(DAG_ID, run_id, "tune", "progress")
    assert (last["counts"], last["best"]["trial"]) == (tuned["counts"], tuned["trial"])
    lines = [line for line in site.airflow.task_log(DAG_ID, run_id, "tune", 1) if ": trial " in line]
    assert sorted(line.partition(": trial ")[2][:13] for line in lines) == [f"{n}/3 succeeded" for n in (1, 2, 3)]


def test_a_wrong_model_path_fails_the_task_with_that_path_and_nothing_is_left_running(site):
    run_id, state, _ = site.run(DAG_ID, **{**site.sources, **CONF, "model": "/no/such/model"})
    assert state == "failed"
    log = site.logs(DAG_ID, run_id)
    assert "ExperimentFailedError" in log
    assert "/no/such/model" in log
    assert trainers() == []


def test_a_deferred_task_that_a_user_marks_failed_deletes_its_experiment(site):
    run_id = site.airflow.trigger(DAG_ID, {**site.sources, **CONF, "trial_steps": 100_000})
    # Airflow starts a trigger a moment after the task was deferred, and tells only a started one of a kill.
    until(lambda: _tune(site, run_id).get("triggerer_job") is not None and trainers() != [])
    name = next(item["metadata"]["name"] for item in site.cluster.experiments() if phase(item) == "Running")
    path = f"/dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/tune"
    site.airflow.client.patch(path, json={"new_state": "failed"}).raise_for_status()
    until(lambda: name not in [item["metadata"]["name"] for item in site.cluster.experiments()])
    until(lambda: trainers() == [])


def _progress_while_deferred(site: Site, run_id: str) -> list[dict[str, Any]]:
    """Return the values that the XCom had, until the task is resumed."""
    path = f"/dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/tune/xcomEntries/progress"
    values: list[dict[str, Any]] = []
    while (state := _tune(site, run_id)["state"]) not in {"success", "failed"}:
        response = site.airflow.client.get(path, params={"deserialize": True})
        is_new = response.status_code == 200 and response.json()["value"] not in values
        if is_new and state == _tune(site, run_id)["state"] == "deferred":
            values.append(response.json()["value"])
        time.sleep(0.5)
    return values


def _tune(site: Site, run_id: str) -> dict[str, Any]:
    instances = site.airflow.task_instances(DAG_ID, run_id)
    return next(instance for instance in instances if instance["task_id"] == "tune")
