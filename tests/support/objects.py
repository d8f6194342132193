"""Objects that tests of more than one file send, and where the API serves them."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

EXPERIMENTS = "/apis/kubeflow.org/v1beta1/namespaces/default/experiments"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
REPLICA_SETS = "/apis/apps/v1/namespaces/default/replicasets"
PODS = "/api/v1/namespaces/default/pods"


def experiment(name: str = "x", **metadata: Any) -> Object:
    """The least a registry without Katib's admission takes; the server fills in version and kind."""
    return {"metadata": {"name": name, **metadata}, "spec": {"maxTrialCount": 3}}


def experiment_manifest(name: str) -> Object:
    """The same as a client sends it."""
    return {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", **experiment(name)}


def tuning_experiment(
    name: str, trial_spec: Object, *, container: str = "main", retain: bool = False, **spec: Any
) -> Object:
    """One that Katib's admission takes and that can run: ``trial_spec`` gets ``${trialParameters.rate}``."""
    space = {"min": "0.1", "max": "0.9"}
    template: Object = {
        "primaryContainerName": container,
        "trialParameters": [{"name": "rate", "reference": "lr"}],
        "trialSpec": trial_spec,
    }
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "objective": {"type": "minimize", "objectiveMetricName": "loss"},
            "algorithm": {"algorithmName": "random"},
            "parallelTrialCount": 2,
            "maxTrialCount": 4,
            "parameters": [{"name": "lr", "parameterType": "double", "feasibleSpace": space}],
            "trialTemplate": template | ({"retain": True} if retain else {}),
            **spec,
        },
    }


def job(*command: str, **spec: Any) -> Object:
    template = {"spec": _run_once(*command)}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"backoffLimit": 0, "template": template, **spec}}


def shell_job(script: str, **spec: Any) -> Object:
    return job("sh", "-c", script, **spec)


def pod(name: str, *command: str) -> Object:
    return {"metadata": {"name": name}, "spec": _run_once(*command)}


def deployment(name: str, *command: str, **spec: Any) -> Object:
    """Its pods have the label ``app`` with its name."""
    labels, container = {"app": name}, {"name": "main", "image": "busybox", "command": list(command)}
    template = {"metadata": {"labels": dict(labels)}, "spec": {"containers": [container]}}
    wanted = {"selector": {"matchLabels": labels}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": wanted}


def _run_once(*command: str) -> Object:
    container = {"name": "main", "image": "busybox", "command": list(command)}
    return {"restartPolicy": "Never", "containers": [container]}
