"""Each example DAG on a real Airflow, with the real trainer and the real model server."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from airflow_llmtune.resources.defaults import TRAINER_VERSION
from tests.support.airflow_site import ROOT, Site, running_site, trainers, until, write_rows, write_surprising_rows

QUICK = {"trials": 2, "trial_steps": 4, "epochs": 2.0}
PROMPT = "What is 3 plus?"
CHAT = [{"role": "user", "content": PROMPT}]

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_site(tmp_path_factory.mktemp("site"), "tune_train_serve") as site:
        yield site


# --- tune_train_serve -----------------------------------------------------------------------------------------------


def test_a_model_is_tuned_trained_compared_served_and_promoted_and_the_same_again_is_not_deployed(site):
    run_id, state, progress = site.run("tune_train_serve", **site.sources, **QUICK, prompt=PROMPT)
    assert state == "success", site.logs("tune_train_serve", run_id)
    tuned, deployed, promoted = (
        site.airflow.xcom("tune_train_serve", run_id, task) for task in ("tune", "deploy", "promote")
    )
    assert deployed["smoke_test"]["prompt"] == PROMPT
    assert promoted["parameters"] == tuned["parameters"]
    assert progress.deferred_seconds("deploy") > 0
    assert progress.workers_while_deferred == set()
    trained = site.airflow.xcom("tune_train_serve", run_id, "fine_tune")
    assert _models(site, deployed["url"]) >= {deployed["served_model_name"]}
    assert _ask(site, deployed) == _greedy(site, trained["artifact_uri"])

    again, state, _ = site.run("tune_train_serve", **site.sources, **QUICK, prompt=PROMPT)
    assert state == "success"
    states = site.states("tune_train_serve", again)
    assert (states["fine_tune"], states["compare"], states["deploy"], states["promote"]) == (
        "success",
        "skipped",
        "skipped",
        "skipped",
    )
    decision = site.airflow.xcom("tune_train_serve", again, "compare", "decision")
    assert decision["promote"] is False
    assert _models(site, deployed["url"]) >= {deployed["served_model_name"]}


def _ask(site: Site, deployed: dict[str, Any]) -> str:
    body = {"model": deployed["served_model_name"], "messages": CHAT, "max_tokens": 16, "temperature": 0}
    response = httpx.post(
        f"{deployed['url']}/openai/v1/chat/completions", json=body, headers=_bearer(site), timeout=60, trust_env=False
    )
    response.raise_for_status()
    return str(response.json()["choices"][0]["message"]["content"])


def _greedy(site: Site, adapter: str) -> str:
    """Return what the model says with this adapter, without a server: the same, if it is this one that is served."""
    folder = Path(site.sources["model"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries deprecate each other's options
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter).eval()
    inputs = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(tokens, skip_special_tokens=True))


def _models(site: Site, url: str) -> set[str]:
    response = httpx.get(f"{url}/openai/v1/models", headers=_bearer(site), timeout=60, trust_env=False)
    response.raise_for_status()
    return {model["id"] for model in response.json()["data"]}


def _bearer(site: Site) -> dict[str, str]:
    return {"Authorization": f"Bearer {site.cluster.token}"}


# --- tune_deploy ----------------------------------------------------------------------------------------------------


def test_the_best_trial_is_served_without_another_training_and_the_trials_share_a_cache(site):
    cache = site.home / "cache"
    conf = {**site.sources, "trials": 2, "epochs": 1.0, "prompt": PROMPT, "cache": f"node://{cache}"}
    run_id, state, _ = site.run("tune_deploy", **conf)
    assert state == "success", site.logs("tune_deploy", run_id)
    tuned, deployed = (site.airflow.xcom("tune_deploy", run_id, task) for task in ("tune", "deploy"))
    folder = Path(tuned["artifact_uri"])
    assert folder.parts[-2:] == (tuned["experiment"], tuned["trial"])
    assert (folder / "adapter_model.safetensors").is_file()
    assert len(list(folder.parent.iterdir())) == 2
    assert tuned["manifest"]["parameters"]["learning_rate"] == tuned["parameters"]["learning_rate"]
    assert tuned["manifest"]["trainer_version"] == TRAINER_VERSION
    assert any(cache.iterdir())
    assert _ask(site, deployed) == _greedy(site, tuned["artifact_uri"])


# --- retune_weekly --------------------------------------------------------------------------------------------------


def test_a_weekly_retune_asks_a_human_and_does_nothing_where_nothing_changed(site):
    dag_id = "retune_weekly"
    conf = {**site.sources, **QUICK}
    first = site.airflow.trigger(dag_id, conf)
    until(lambda: _asks_a_human(site, dag_id, first), seconds=240)
    _respond(site, dag_id, first, "Approve")
    state, _ = site.follow(dag_id, first)
    assert state == "success", site.logs(dag_id, first)
    champion = site.airflow.xcom(dag_id, first, "promote")

    experiments = len(site.cluster.experiments())
    second, state, _ = site.run(dag_id, **conf)
    assert state == "success", site.logs(dag_id, second)
    assert site.seconds(dag_id, second) < 30
    assert len(site.cluster.experiments()) == experiments
    assert trainers() == []
    assert site.airflow.xcom(dag_id, second, "tune", "parameters") == champion["parameters"]
    assert site.airflow.xcom(dag_id, second, "fine_tune", "artifact_uri") == champion["artifact_uri"]
    assert site.states(dag_id, second)["deploy"] == "skipped"

    write_rows(site.home / "changed", offset=2)
    third = site.airflow.trigger(dag_id, {**conf, "dataset": str(site.home / "changed")})
    until(lambda: site.states(dag_id, third).get("compare") in {"success", "skipped"}, seconds=240)
    assert any("champion" in line for line in site.airflow.task_log(dag_id, third, "tune", 1))
    assert len(site.cluster.experiments()) == experiments + 1
    if site.states(dag_id, third)["compare"] == "success":
        until(lambda: _asks_a_human(site, dag_id, third))
        _respond(site, dag_id, third, "Reject")
    state, _ = site.follow(dag_id, third)
    assert state == "success"
    assert site.states(dag_id, third)["deploy"] == "skipped"


def _asks_a_human(site: Site, dag_id: str, run_id: str) -> bool:
    """
    Tell whether the task waits, and Airflow's scheduler has heard that its worker is done, some seconds later.

    An answer before that, faster than any human's, makes the scheduler take the task for lost.
    """
    if site.states(dag_id, run_id).get("approve") != "awaiting_input":
        return False
    log = (site.processes.log_dir / "airflow-scheduler.log").read_text(encoding="utf-8", errors="replace")
    heard = f"state success for task instance TaskInstanceKey(dag_id='{dag_id}', task_id='approve', run_id='{run_id}'"
    return heard in log


def _respond(site: Site, dag_id: str, run_id: str, option: str) -> None:
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
    site.airflow.client.patch(path, json={"chosen_options": [option], "params_input": {}}).raise_for_status()


# --- retune_on_new_data, detect_drift ---------------------------------------------------------------------------------


def test_new_data_and_drift_start_a_retune(site):
    conf = {**site.sources, "trials": 2, "trial_steps": 4}
    run_id, state, _ = site.run("retune_on_new_data", **conf)
    assert state == "success", site.logs("retune_on_new_data", run_id)
    assert site.states("retune_on_new_data", run_id)["promote"] == "success"

    same, state, _ = site.run("detect_drift", **conf)
    assert state == "success", site.logs("detect_drift", same)
    assert site.states("detect_drift", same)["detect"] == "skipped"

    write_surprising_rows(site.home / "drifted")
    drifted, state, _ = site.run("detect_drift", **{**conf, "dataset": str(site.home / "drifted")})
    assert state == "success", site.logs("detect_drift", drifted)
    assert site.states("detect_drift", drifted)["detect"] == "success"
    until(lambda: _has_one_event(site, "support-model-drift"))
    _stop_what_an_asset_has_started(site, "retune_on_new_data", runs=1)
    asset = _asset(site, "support-answers")
    site.airflow.client.post("/assets/events", json={"asset_id": asset, "extra": {}}).raise_for_status()
    until(lambda: _has_one_event(site, "support-answers"))
    _stop_what_an_asset_has_started(site, "retune_on_new_data", runs=2)


def _stop_what_an_asset_has_started(site: Site, dag_id: str, *, runs: int) -> None:
    """Wait for the run; it has the DAG's own parameters, whose model and data are not here."""

    def started() -> list[str]:
        found = site.airflow.client.get(f"/dags/{dag_id}/dagRuns").json()["dag_runs"]
        return [run["dag_run_id"] for run in found if run["run_type"] == "asset_triggered"]

    until(lambda: len(started()) == runs)
    for run_id in started():
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        site.airflow.client.patch(path, json={"state": "failed"}).raise_for_status()


def _asset(site: Site, name: str) -> int:
    found = site.airflow.client.get("/assets", params={"name_pattern": name}).json()["assets"]
    return int(next(asset["id"] for asset in found if asset["name"] == name))


def _has_one_event(site: Site, name: str) -> bool:
    response = site.airflow.client.get("/assets/events", params={"asset_id": _asset(site, name)})
    # Airflow answers 500 as long as a run that the event has created has not started.
    return response.status_code == 200 and response.json()["total_entries"] == 1


# --- tune_many_models -------------------------------------------------------------------------------------------------


def test_several_models_are_tuned_by_mapped_tasks_and_the_best_is_trained(site):
    sources = site.sources
    model = sources.pop("model")
    run_id, state, _ = site.run("tune_many_models", **sources, models=[model, model], trials=2, trial_steps=4)
    assert state == "success", site.logs("tune_many_models", run_id)
    mapped = [item for item in site.airflow.task_instances("tune_many_models", run_id) if item["task_id"] == "tune"]
    assert sorted(item["map_index"] for item in mapped) == [0, 1]
    trained = site.airflow.xcom("tune_many_models", run_id, "fine_tune")
    assert Path(trained["artifact_uri"], "adapter_model.safetensors").is_file()


# --- tune_classifier --------------------------------------------------------------------------------------------------


@pytest.fixture
def classifier(site):
    """Return model and data of the tiny encoder, and where to."""
    builder = ROOT / "tests" / "support" / "tiny_encoder.py"
    sources = {name: str(site.home / "classifier" / name) for name in ("model", "dataset")}
    subprocess.run([sys.executable, str(builder), *sources.values()], check=True, capture_output=True)
    return {**sources, "output_uri": str(site.home / "classifier" / "out")}


def test_a_classifier_is_tuned_by_f1_and_trained_with_the_best_values(site, classifier):
    run_id, state, _ = site.run("tune_classifier", **classifier, trials=2, trial_steps=10)
    assert state == "success", site.logs("tune_classifier", run_id)
    tuned, trained = (site.airflow.xcom("tune_classifier", run_id, task) for task in ("tune", "fine_tune"))
    assert {"learning_rate", "per_device_train_batch_size", "weight_decay"} == set(tuned["parameters"])
    assert tuned["metrics"].keys() >= {"eval_f1", "eval_accuracy", "eval_loss"}
    # The best is the one with the largest F1, of all trials.
    observed = [trial["status"]["observation"]["metrics"] for trial in site.cluster.trials()]
    scores = [float(metric["latest"]) for metrics in observed for metric in metrics if metric["name"] == "eval_f1"]
    assert len(scores) == 2
    assert tuned["metrics"]["eval_f1"] == pytest.approx(max(scores))
    config = json.loads(Path(trained["artifact_uri"], "config.json").read_text())
    assert config["label2id"] == {"negative": 0, "neutral": 1, "positive": 2}
    assert Path(trained["artifact_uri"], "model.safetensors").is_file()


# --- tune_s3_to_s3 ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(site):
    """A bucket with model and data, whose keys only Airflow's connection knows; returns the client of S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "llmtune-id", "aws_secret_access_key": "llmtune-secret"}
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    s3.create_bucket(Bucket="llm")
    for folder in ("model", "dataset"):
        for file in (site.home / folder).iterdir():
            s3.upload_file(str(file), "llm", f"{folder}/{file.name}")
    connection = {"connection_id": "aws_default", "conn_type": "aws", "extra": json.dumps({"endpoint_url": endpoint})}
    connection |= {"login": keys["aws_access_key_id"], "password": keys["aws_secret_access_key"]}
    site.airflow.client.post("/connections", json=connection).raise_for_status()
    yield s3
    site.airflow.client.delete("/connections/aws_default").raise_for_status()
    s3.close()
    server.stop()


def test_model_and_data_come_from_s3_the_adapter_goes_there_and_no_secret_is_told(site, bucket):
    run_id, state, _ = site.run("tune_s3_to_s3", bucket="s3://llm", trials=2, trial_steps=4)
    assert state == "success", site.logs("tune_s3_to_s3", run_id)
    tuned = site.airflow.xcom("tune_s3_to_s3", run_id, "tune")
    assert tuned["artifact_uri"].startswith("s3://llm/adapters/")
    prefix = tuned["artifact_uri"].removeprefix("s3://llm/")
    found = {item["Key"] for item in bucket.list_objects_v2(Bucket="llm", Prefix=prefix)["Contents"]}
    assert f"{prefix}/adapter_model.safetensors" in found
    assert site.airflow.xcom("tune_s3_to_s3", run_id, "evaluate")["metrics"]["eval_loss"] == pytest.approx(
        tuned["metrics"]["eval_loss"], rel=1e-4
    )
    told = json.dumps([tuned, site.cluster.experiments(), site.cluster.trials()])
    told += "".join(
        line
        for item in site.airflow.task_instances("tune_s3_to_s3", run_id)
        for line in site.airflow.task_log("tune_s3_to_s3", run_id, item["task_id"], item["try_number"])
    )
    assert "llmtune-secret" not in told
