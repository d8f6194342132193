"""Many Experiments at once. Each has one trial, whose Job waits for somebody to take its ``suspend`` away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.sdk import DAG, task

from airflow_llmtune.operators.katib import KatibExperimentOperator

CONTAINER = {
    "name": "main",
    "image": "busybox",
    "command": ["sh", "-c", "echo loss=${trialParameters.index}.5"],
}
POD = {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}
JOB = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"suspend": True, "backoffLimit": 0, "template": POD}}


def experiment(index: int) -> dict[str, Any]:
    """Return one whose only parameter can be nothing but the index: so each result tells whose it is."""
    space = {"list": [str(index)]}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random"},
            "maxTrialCount": 1,
            "parallelTrialCount": 1,
            "parameters": [{"name": "index", "parameterType": "discrete", "feasibleSpace": space}],
            "trialTemplate": {
                "primaryContainerName": "main",
                "trialParameters": [{"name": "index", "reference": "index"}],
                "trialSpec": JOB,
            },
        },
    }


with DAG("waiting", schedule=None, params={"waits": 3}) as dag:

    @task
    def indexes(params: dict[str, Any]) -> list[int]:
        return list(range(params["waits"]))

    @task
    def collect(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what is asked of each result, in the order of the map."""
        return [{key: result[key] for key in ("experiment", "parameters", "metrics", "counts")} for result in results]

    tune = KatibExperimentOperator.partial(task_id="tune").expand(experiment=indexes().map(experiment))
    collect(tune.output)
