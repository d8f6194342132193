"""One DAG for each event: a small Experiment, and a task downstream that writes down what it was given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

from tests.chaos.event import Event
from tests.chaos.event_cases import EVENTS
from tests.chaos.first_tries import OPERATORS
from tests.chaos.retry_policy import RETRY_POLICY

# The trial of index 1 comes first, with this seed.
SEED = "5"
# The first trial of each Experiment ends at once; the others wait until the harness makes the file. Katib's collector
# sees what the last command prints.
TRIAL = """\
loss=${trialParameters.index}.5
[ $loss = 1.5 ] || until [ -e {{ params.gate }} ]; do sleep 0.5; done
"""
REPORT = "echo loss=$loss"
PARAMS = {"gate": "", "deliveries": "", "namespace": "default", "config_file": ""}


def experiment(event: Event, indexes: str = "12") -> dict[str, Any]:
    script = TRIAL + (": of try {{ ti.try_number }}\n" if event.first_try == "fails" else "") + (event.trial or REPORT)
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", script]}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    space = {"list": list(indexes)}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "grid", "algorithmSettings": [{"name": "random_state", "value": SEED}]},
            "maxTrialCount": len(indexes),
            "parallelTrialCount": 1,
            "parameters": [{"name": "index", "parameterType": "discrete", "feasibleSpace": space}],
            "trialTemplate": {
                "retain": True,
                "primaryContainerName": "main",
                "trialParameters": [{"name": "index", "reference": "index"}],
                "trialSpec": {"apiVersion": "batch/v1", "kind": "Job", "spec": {"backoffLimit": 0, "template": pod}},
            },
            **event.spec,
        },
    }


def dag_of(event: Event) -> DAG:
    with DAG(event.dag_id, schedule=None, params=PARAMS, max_active_runs=2) as dag:

        @task
        def collect(results: Any, params: Mapping[str, Any]) -> None:
            """Write down each result that this task was given."""
            given = [results] if isinstance(results, dict) else results or []
            with Path(params["deliveries"]).open("a") as file:
                file.writelines(f"{json.dumps(result)}\n" for result in given)

        arguments = {
            "task_id": "tune",
            "namespace": "{{ params.namespace }}",
            "kubernetes_conn_id": None,
            "config_file": "{{ params.config_file }}",
            "retries": event.retries,
            "retry_delay": timedelta(seconds=1),
            **({"retry_policy": RETRY_POLICY} if event.has_retry_policy else {}),
            **event.arguments,
        }
        operator = OPERATORS[event.first_try]
        if event.mapped:
            each = [experiment(event, indexes="123456789"[index % 9]) for index in range(event.mapped)]
            tune = operator.partial(**arguments).expand(experiment=each)
        else:
            tune = operator(experiment=experiment(event), **arguments)
        collect(tune.output)
    return dag


for _event in EVENTS:
    globals()[_event.dag_id] = dag_of(_event)
