"""Operators, hook and triggers over HTTPS against the control plane."""

from __future__ import annotations

import json
import socket

import pytest
import yaml
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from kubeflow_katib_api.models import V1beta1Experiment

from airflow_llmtune.exceptions import (
    ExperimentFailedError,
    KubernetesApiError,
    TrainingFailedError,
)
from airflow_llmtune.operators.trainer import PyTorchJobOperator
from airflow_llmtune.resources import experiment, job, pod, pytorch_job
from tasks import LOSS, any_experiment, fine_tune, mine, raw_experiment, trials_of, tune


@pytest.mark.parametrize("deferrable", [True, False])
def test_tuning_returns_the_typed_best_parameters(kubeconfig, run, deferrable):
    result = run.complete(tune(kubeconfig, deferrable=deferrable, output_uri="/models/out"))
    assert run.deferrals == int(deferrable)
    assert set(result) == {
        "parameters",
        "metrics",
        "trial",
        "experiment",
        "namespace",
        "counts",
        "artifact_uri",
        "partial",
        "manifest",
    }
    assert result["partial"] is False
    assert isinstance(result["parameters"]["learning_rate"], float)
    assert result["parameters"]["lora_r"] in {4, 8}
    assert result["metrics"]["eval_loss"] >= 1.0
    assert result["counts"]["succeeded"] == 3
    assert result["artifact_uri"] == f"/models/out/{result['experiment']}/{result['trial']}"
    assert result["manifest"]["parameters"]["lora_r"] == result["parameters"]["lora_r"]
    json.dumps(result, allow_nan=False)


def test_the_best_trial_is_the_one_with_the_lowest_loss(kubeconfig, run, ask):
    result = run.complete(tune(kubeconfig, max_trial_count=6))
    trials = trials_of(ask, result)
    losses = {trial["metadata"]["name"]: experiment.read_trial(trial)["metrics"]["eval_loss"] for trial in trials}
    assert len(losses) == 6
    assert result["trial"] == min(losses, key=losses.__getitem__)


def test_an_experiment_reaches_its_goal_early(kubeconfig, run):
    result = run.complete(tune(kubeconfig, max_trial_count=50, objective_goal=20.0))
    assert result["counts"]["trials"] < 50


@pytest.mark.parametrize("form", ["dict", "yaml", "json"])
def test_any_manifest_runs_in_any_form(kubeconfig, run, form):
    given = raw_experiment(LOSS)
    value = {"dict": given, "yaml": yaml.safe_dump(given), "json": json.dumps(given)}[form]
    operator = any_experiment(kubeconfig, value)
    result = run.complete(operator)
    assert 0.1 <= result["metrics"]["loss"] <= 0.2
    assert isinstance(result["parameters"]["layers"], int)


def test_a_model_object_of_the_katib_api_package_runs(kubeconfig, run, ask):
    model = V1beta1Experiment.from_dict(raw_experiment(LOSS))
    operator = any_experiment(kubeconfig, model)
    result = run.complete(operator)
    created = ask(lambda client: client.get(experiment.KIND, "default", result["experiment"]))
    assert created["metadata"]["labels"]["team"] == "nlp"
    assert created["metadata"]["labels"]["dag_id"] == "dag"


def test_five_mistakes_are_one_error_before_anything_is_created(kubeconfig, run, ask):
    parameters = {
        "learning_rate": {"type": "double", "min": 1, "max": 0.1},
        "lora_r": {"type": "categorical", "values": []},
        "warmup": {"type": "dubble", "min": 0, "max": 1},
        "seed": {"type": "int", "min": 0.5, "max": 3},
        "decay": {"type": "double", "min": 0, "max": 1, "distribution": "logUniform"},
    }
    with pytest.raises(AirflowFailException) as caught:
        run.complete(tune(kubeconfig, parameters=parameters))
    message = str(caught.value)
    assert "5 mistakes" in message
    assert all(f"parameters.{name}" in message or name in message for name in parameters)
    found, _ = ask(lambda client: client.list_all(experiment.KIND, "default", label_selector=mine(run)))
    assert found == []


def test_a_crashing_trial_fails_the_task_with_the_trainers_own_words(kubeconfig, run, ask):
    with pytest.raises(ExperimentFailedError) as caught:
        run.complete(tune(kubeconfig, trainer_args={"crash": True}))
    message = str(caught.value)
    assert "the model lies nowhere" in message
    assert "Traceback: boom" in message
    pods, _ = ask(lambda client: client.list_all(pod.KIND, "default", label_selector="katib.kubeflow.org/trial"))
    assert not [item for item in pods if item["status"]["phase"] in {"Pending", "Running"}]


def test_trials_without_a_usable_metric_fail_the_task_although_katib_says_succeeded(kubeconfig, run):
    operator = any_experiment(kubeconfig, raw_experiment("echo ${trialParameters.lr} ${trialParameters.layers}"))
    with pytest.raises(ExperimentFailedError, match="unavailable"):
        run.complete(operator)


def test_fine_tuning_returns_the_metrics_and_where_the_adapter_lies(kubeconfig, run):
    operator = fine_tune(kubeconfig, hyperparameters={"learning_rate": 0.01, "lora_r": 8})
    result = run.complete(operator)
    assert result["metrics"] == {"eval_loss": 2.0}
    assert result["artifact_uri"] == "/models/final"


def test_a_failed_fine_tune_names_the_cause(kubeconfig, run):
    operator = fine_tune(kubeconfig, model="/nowhere", trainer_args={"crash": True})
    with pytest.raises(TrainingFailedError, match="the model lies nowhere"):
        run.complete(operator)


def test_a_fine_tune_whose_output_has_no_value_does_not_start(kubeconfig, run, ask):
    with pytest.raises(AirflowFailException, match="`output_uri`=None has no value"):
        run.complete(fine_tune(kubeconfig, output_uri=None))
    assert ask(lambda client: client.list_all(job.KIND, "default", label_selector=mine(run)))[0] == []


def test_a_fine_tune_as_pytorch_job_runs_master_and_worker(kubeconfig, run, ask):
    operator = fine_tune(kubeconfig, trainer_args={"nap": 1}, job_options={"job_kind": "PyTorchJob", "num_nodes": 2})
    trigger = run.defer(operator)
    selector = pytorch_job.pod_selector(trigger.name)
    roles: set[str] = set()
    while roles != {"master", "worker"}:
        pods, _ = ask(lambda client: client.list_all(pod.KIND, "default", label_selector=selector))
        roles = {item["metadata"]["labels"]["training.kubeflow.org/replica-type"] for item in pods}
    result = run.complete(operator)
    assert result["metrics"] == {"eval_loss": 1.0}


def test_any_pytorch_job_runs(kubeconfig, run):
    container = {"name": "pytorch", "image": "busybox", "command": ["sh", "-c", "test $WORLD_SIZE = 1"]}
    master = {"replicas": 1, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}
    manifest = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "spec": {"pytorchReplicaSpecs": {"Master": master}},
    }
    operator = PyTorchJobOperator(
        task_id="torch", pytorch_job=manifest, kubernetes_conn_id=None, config_file=kubeconfig
    )
    result = run.complete(operator)
    assert result["metrics"] == {}


def test_a_manifest_file_is_loaded_and_templated(kubeconfig, run, ask, tmp_path):
    manifest = raw_experiment(LOSS)
    manifest["metadata"]["labels"]["run"] = "{{ run_id }}"
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(manifest))
    with DAG("dag", schedule=None, template_searchpath=[str(tmp_path)]):
        operator = any_experiment(kubeconfig, "experiment.yaml")
    result = run.complete(operator)
    created = ask(lambda client: client.get(experiment.KIND, "default", result["experiment"]))
    assert created["metadata"]["labels"]["run"] == run.run_id


def test_a_manifest_file_that_does_not_exist_is_told(kubeconfig, run):
    operator = any_experiment(kubeconfig, "none.yaml")
    with pytest.raises(AirflowFailException, match=r"none\.yaml.*does not exist"):
        run.complete(operator)


def test_a_manifest_that_is_no_yaml_is_told_without_its_text(kubeconfig, run):
    text = "spec:\n  env: {HF_TOKEN: hf_SECRET\n"
    operator = any_experiment(kubeconfig, text)
    with pytest.raises(AirflowFailException, match=r"neither YAML nor JSON.*line 2") as caught:
        run.complete(operator)
    assert "hf_SECRET" not in str(caught.value)


def test_metadata_that_is_no_mapping_is_told_with_the_other_mistakes(kubeconfig, run):
    manifest = {**raw_experiment(LOSS), "metadata": ["team"], "kind": "Experimant"}
    operator = any_experiment(kubeconfig, manifest)
    with pytest.raises(AirflowFailException, match="has 2 mistakes"):
        run.complete(operator)


def test_a_path_inside_a_manifest_is_no_template_file(kubeconfig, run):
    manifest = raw_experiment("test -n /etc/some.json && " + LOSS)
    container = manifest["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "CONFIG", "value": "/etc/cfg.json"}]
    operator = any_experiment(kubeconfig, manifest)
    assert run.complete(operator)["counts"]["succeeded"] == 2


def test_the_namespace_of_a_manifest_counts_and_must_not_contradict_the_argument(kubeconfig, run):
    manifest = raw_experiment(LOSS)
    manifest["metadata"]["namespace"] = "default"
    operator = any_experiment(kubeconfig, manifest, namespace="other")
    with pytest.raises(AirflowFailException, match="`namespace`='other'"):
        run.complete(operator)


def test_hyperparameters_that_an_upstream_task_did_not_return_are_a_mistake(kubeconfig, run):
    operator = fine_tune(kubeconfig, hyperparameters={"learning_rate": 0.1})
    operator.hyperparameters = None  # what a missing XCom renders to
    with pytest.raises(AirflowFailException, match="`hyperparameters`=None"):
        operator.execute(run.new_try())


def test_an_unreachable_api_server_is_one_clear_error(tmp_path, run):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    config = tmp_path / "kubeconfig.yaml"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t0ken"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    with pytest.raises(KubernetesApiError, match=rf"127\.0\.0\.1:{port} cannot be reached") as caught:
        run.complete(tune(str(config), api_retry_timeout=0.5))
    assert "t0ken" not in str(caught.value)


def test_a_kubeconfig_that_does_not_exist_is_named(run):
    with pytest.raises(KubernetesApiError, match="/no/such/kubeconfig"):
        run.complete(tune("/no/such/kubeconfig"))
