"""Experiments as dicts, and what KatibClient makes of each refusal."""

from __future__ import annotations

import json
from typing import Any

from kubeflow import katib


def experiment(name: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", "echo loss=${trialParameters.rate}"]}
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "grid"},
            "parallelTrialCount": 2,
            "maxTrialCount": 3,
            "parameters": [
                {"name": "lr", "parameterType": "discrete", "feasibleSpace": {"list": ["0.1", "0.2", "0.3"]}}
            ],
            "trialTemplate": {
                "primaryContainerName": "main",
                "retain": True,
                "trialParameters": [{"name": "rate", "reference": "lr"}],
                "trialSpec": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
                },
            },
            **spec,
        },
    }


def objective(parameters):
    print(f"loss={len(parameters['optimizer'])}")


def failure(call: Any, *args: Any, **kwargs: Any) -> dict[str, str]:
    """What a caller sees, and what lies beneath it."""
    try:
        call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 (the SDK raises bare ones)
        cause = error.__context__
        return {"type": type(error).__name__, "text": str(error), "cause": str(getattr(cause, "body", ""))}
    return {"type": "", "text": "", "cause": ""}


def main() -> None:
    client = katib.KatibClient(namespace="team")
    client.create_experiment(experiment("as-dict"))
    client.wait_for_experiment_condition("as-dict", timeout=60, polling_interval=1)
    result = {
        "best": client.get_optimal_hyperparameters("as-dict").parameter_assignments[0].value,
        "again": failure(client.create_experiment, experiment("as-dict")),
        "refused": failure(client.create_experiment, experiment("wrong", parallelTrialCount=9, resumePolicy="Maybe")),
        "absent": failure(client.get_experiment, "absent"),
        "too-small": failure(client.edit_experiment_budget, "as-dict", max_trial_count=1),
        # https://github.com/kubeflow/katib/issues/2625: the list lands in `distribution`.
        "categorical": failure(
            client.tune,
            name="trap",
            objective=objective,
            parameters={"optimizer": katib.search.categorical(["sgd", "adam"])},
            objective_metric_name="loss",
            max_trial_count=3,
        ),
        "elsewhere": [
            each.metadata.name for each in client.list_experiments("default") if "dict" in each.metadata.name
        ],
    }
    client.delete_experiment("as-dict")
    print(json.dumps(result))


main()
