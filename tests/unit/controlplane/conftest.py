"""A registry with the real admission, a clock that the test moves, and an Experiment to start from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.apiserver.kinds import NAMESPACE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.store import Store

Object = dict[str, Any]

EXPERIMENT: Object = {
    "apiVersion": "kubeflow.org/v1beta1",
    "kind": "Experiment",
    "metadata": {"name": "exp", "namespace": "default"},
    "spec": {
        "objective": {"type": "minimize", "objectiveMetricName": "loss"},
        "algorithm": {"algorithmName": "random"},
        "parallelTrialCount": 2,
        "maxTrialCount": 4,
        "parameters": [{"name": "lr", "parameterType": "double", "feasibleSpace": {"min": "0.1", "max": "0.9"}}],
        "trialTemplate": {
            "primaryContainerName": "main",
            "trialParameters": [{"name": "rate", "reference": "lr"}],
            "trialSpec": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "spec": {
                    "backoffLimit": 0,
                    "template": {
                        "spec": {
                            "restartPolicy": "Never",
                            "containers": [
                                {
                                    "name": "main",
                                    "image": "busybox",
                                    "command": ["sh", "-c", "echo loss=${trialParameters.rate}"],
                                }
                            ],
                        }
                    },
                },
            },
        },
    },
}


class MovableClock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def registry(clock: MovableClock) -> Registry:
    store = Store()
    made = Registry(store, KatibAdmission(store), clock)
    labels = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
    made.create(NAMESPACE, {"metadata": {"name": "default", "labels": labels}})
    made.create(NAMESPACE, {"metadata": {"name": "plain"}})
    return made


@pytest.fixture
def experiment() -> Object:
    """A valid one; each test changes what it is about."""
    return copy.deepcopy(EXPERIMENT)


@pytest.fixture
def conditions() -> Callable[[Object], list[tuple[str, str, str]]]:
    """Type, status and reason of an object's conditions, in order."""

    def read(obj: Object) -> list[tuple[str, str, str]]:
        return [(one["type"], one["status"], one["reason"]) for one in obj["status"].get("conditions", [])]

    return read
