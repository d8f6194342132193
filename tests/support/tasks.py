"""Tasks to run against a control plane: the stand-in trainer, any Experiment or TrainJob; and what lies around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_llmtune.hooks.experiment_diagnosis import read_trials
from airflow_llmtune.operators.katib import KatibExperimentOperator, KatibTuneLLMOperator
from airflow_llmtune.operators.trainer import FineTuneLLMOperator, TrainJobOperator
from airflow_llmtune.resources import search_space as search
from airflow_llmtune.resources.companion import VOLUME_CLAIM
from airflow_llmtune.resources.meta import identity_selector
from trainer_image import STAND_IN

SPACE = {"learning_rate": search.log_uniform(1e-5, 1e-1), "lora_r": search.categorical([4, 8])}


def tune(kubeconfig: str, **changes: Any) -> KatibTuneLLMOperator:
    settings: dict[str, Any] = {
        "task_id": "tune",
        "model": "/models/tiny",
        "dataset": "/data",
        "image": STAND_IN,
        "parameters": SPACE,
        "algorithm_name": "random",
        "algorithm_settings": {"random_state": 1},
        "max_trial_count": 3,
        "parallel_trial_count": 2,
        "kubernetes_conn_id": None,
        "config_file": kubeconfig,
    }
    return KatibTuneLLMOperator(**{**settings, **changes})


def fine_tune(kubeconfig: str, **changes: Any) -> FineTuneLLMOperator:
    settings: dict[str, Any] = {
        "task_id": "train",
        "model": "/models/tiny",
        "dataset": "/data",
        "image": STAND_IN,
        "output_uri": "/models/final",
        "kubernetes_conn_id": None,
        "config_file": kubeconfig,
    }
    return FineTuneLLMOperator(**{**settings, **changes})


def any_experiment(kubeconfig: str, experiment: Any, **changes: Any) -> KatibExperimentOperator:
    """Run a manifest in whatever form."""
    return KatibExperimentOperator(
        task_id="any", experiment=experiment, kubernetes_conn_id=None, config_file=kubeconfig, **changes
    )


def raw_experiment(script: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", script]}
    pod_spec = {"containers": [container], "restartPolicy": "Never"}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"labels": {"team": "nlp"}},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random"},
            "maxTrialCount": 2,
            "parallelTrialCount": 2,
            "parameters": [
                {"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.2"}},
                {"name": "layers", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "4"}},
            ],
            "trialTemplate": {
                "retain": True,
                "primaryContainerName": "main",
                "trialParameters": [
                    {"name": "lr", "reference": "lr"},
                    {"name": "layers", "reference": "layers"},
                ],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"backoffLimit": 0, "template": {"spec": pod_spec}},
                },
            },
            **spec,
        },
    }


def one_good_trial(folder: Path, others: str, **spec: Any) -> dict[str, Any]:
    """Return an Experiment of which one trial, whichever comes first, succeeds at once; the others run a script."""
    manifest = raw_experiment(f"if mkdir $MARK; then {LOSS}; else {others}; fi", **spec)
    container = manifest["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "MARK", "value": str(folder / "first")}]
    return manifest


LOSS = "echo loss=${trialParameters.lr} layers ${trialParameters.layers}"


def mine(run: Any) -> str:
    return identity_selector("dag", "task", run.run_id, run.map_index)


def names(found: list[dict[str, Any]]) -> list[str]:
    return [item["metadata"]["name"] for item in found]


def trials_of(ask: Any, result: Any) -> list[dict[str, Any]]:
    """Return the Trials of the Experiment that a tuning's result is of, oldest first."""
    metadata = {"name": result["experiment"], "namespace": result["namespace"]}
    found: list[dict[str, Any]] = ask(lambda client: read_trials(client, {"metadata": metadata}))
    return found


def any_train_job(kubeconfig: str, train_job: Any, **changes: Any) -> TrainJobOperator:
    """Run a manifest in whatever form."""
    return TrainJobOperator(
        task_id="train", train_job=train_job, kubernetes_conn_id=None, config_file=kubeconfig, **changes
    )


def raw_train_job(script: str, runtime: str = "torch-distributed", **spec: Any) -> dict[str, Any]:
    trainer = {"image": "busybox", "command": ["sh", "-c", script]}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"labels": {"team": "nlp"}},
        "spec": {"runtimeRef": {"name": runtime}, "trainer": trainer, **spec},
    }


def make_claim(ask: Any, name: str, **metadata: Any) -> Any:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, **metadata}, "spec": spec}
    return ask(lambda client: client.create(VOLUME_CLAIM, "default", body))
