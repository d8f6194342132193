"""Whatever is sent as a training job is refused in the API's words or can be worked on: nothing breaks a controller."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import (
    JOB,
    JOB_SET,
    NAMESPACE,
    PYTORCH_JOB,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    Kind,
)
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import utc_now
from airflow_llmtune.controlplane.controllers.job import JobController
from airflow_llmtune.controlplane.controllers.job_set import JobSetController
from airflow_llmtune.controlplane.controllers.pytorch_job import PyTorchJobController
from airflow_llmtune.controlplane.controllers.runtime import Controller
from airflow_llmtune.controlplane.controllers.shipped_runtimes import ship_runtimes
from airflow_llmtune.controlplane.controllers.train_job import TrainJobController
from airflow_llmtune.controlplane.store import Store
from objects import Object

CONTAINER: Object = {
    "name": "node",
    "image": "x",
    "env": [{"name": "A"}],
    "ports": [{"name": "p", "containerPort": 1}],
    "resources": {"requests": {"cpu": "1"}, "limits": {"acme.io/gpu": "2"}},
}
POD: Object = {"restartPolicy": "Never", "containers": [CONTAINER]}
TEMPLATE: Object = {"metadata": {"labels": {"a": "b"}}, "spec": POD}
RULE: Object = {"action": "Count", "onExitCodes": {"operator": "In", "values": [3]}}
INDEXED: Object = {
    "template": TEMPLATE,
    "completionMode": "Indexed",
    "completions": 2,
    "parallelism": 2,
    "backoffLimitPerIndex": 1,
    "maxFailedIndexes": 1,
    "podFailurePolicy": {"rules": [RULE, {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]},
    "successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]},
    "ttlSecondsAfterFinished": 1,
}
STEP: Object = {
    "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
    "spec": {"template": TEMPLATE},
}
JOBS: list[Object] = [
    {"name": "first", "replicas": 1, "template": {"spec": INDEXED}},
    {"name": "node", "template": STEP, "dependsOn": [{"name": "first", "status": "Ready"}]},
]
PATCHED_POD: Object = {"nodeSelector": {"a": "b"}, "containers": [{"name": "node", "volumeMounts": [{"name": "v"}]}]}
PATCHED: Object = {"name": "node", "template": {"spec": {"template": {"spec": PATCHED_POD}}}}
REPLICA: Object = {
    "replicas": 1,
    "restartPolicy": "ExitCode",
    "template": {
        "spec": {
            "containers": [
                {"name": "pytorch", "image": "x", "ports": [{"name": "pytorchjob-port", "containerPort": 1}]}
            ]
        }
    },
}

SPECS: dict[Kind, Object] = {
    JOB: INDEXED,
    JOB_SET: {
        "replicatedJobs": JOBS,
        "network": {"subdomain": "net"},
        "successPolicy": {"operator": "All", "targetReplicatedJobs": ["node"]},
        "failurePolicy": {"maxRestarts": 1, "rules": [{"action": "FailJobSet", "onJobFailureReasons": ["x"]}]},
        "startupPolicy": {"startupPolicyOrder": "AnyOrder"},
        "coordinator": {"replicatedJob": "node", "jobIndex": 0},
    },
    TRAIN_JOB: {
        "runtimeRef": {"name": "torch-distributed"},
        "trainer": {
            "numNodes": 2,
            "image": "x",
            "command": ["a"],
            "env": [{"name": "A", "value": "b"}],
            "resourcesPerNode": {"requests": {"cpu": "2"}},
        },
        "runtimePatches": [
            {
                "manager": "acme.io/queue",
                "trainingRuntimeSpec": {
                    "template": {"metadata": {"labels": {"q": "q"}}, "spec": {"replicatedJobs": [PATCHED]}}
                },
            }
        ],
        "activeDeadlineSeconds": 5,
    },
    TRAINING_RUNTIME: {
        "mlPolicy": {
            "numNodes": 1,
            "torch": {"envInjection": {"targets": [{"jobName": "first", "containerNames": ["node"]}]}},
        },
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"replicatedJobs": JOBS}},
    },
    PYTORCH_JOB: {
        "pytorchReplicaSpecs": {"Master": REPLICA, "Worker": REPLICA},
        "elasticPolicy": {"minReplicas": 1, "rdzvConf": [{"key": "a", "value": "b"}]},
        "runPolicy": {"backoffLimit": 1, "activeDeadlineSeconds": 5, "ttlSecondsAfterFinished": 5},
    },
}


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key within a value."""
    for key, one in list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from places(one)


STRANGE: st.SearchStrategy[Any] = st.sampled_from(
    [None, "", "text", 0, -1, 3, 1.5, True, [], {}, [None], [{}], {"a": None}, {"name": 1}]
)


@st.composite
def almost_right(draw: st.DrawFn) -> tuple[Kind, Object]:
    kind = draw(st.sampled_from(list(SPECS)))
    body = {"metadata": {"name": "job", "namespace": "default"}, "spec": copy.deepcopy(SPECS[kind])}
    for _ in range(draw(st.integers(0, 2))):
        found = list(places(body["spec"]))
        if not found:
            break
        holder, key = draw(st.sampled_from(found))
        if draw(st.booleans()):
            holder[key] = copy.deepcopy(draw(STRANGE))
        else:
            del holder[key]
    return kind, body


def a_registry() -> Registry:
    store = Store()
    registry = Registry(store, KatibAdmission(store), utc_now)
    registry.create(NAMESPACE, {"metadata": {"name": "default"}})
    ship_runtimes(registry)
    return registry


def controllers(registry: Registry) -> list[Controller]:
    return [
        TrainJobController(registry, utc_now),
        JobSetController(registry, utc_now),
        JobController(registry, utc_now),
        PyTorchJobController(registry, utc_now),
    ]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(made=almost_right())
def test_nothing_that_is_taken_breaks_a_controller(made: tuple[Kind, Object]) -> None:
    kind, body = made
    registry = a_registry()
    with pytest.raises(ApiError) if is_refused(registry, kind, body) else contextlib.nullcontext():
        registry.create(kind, body)
    if kind == TRAINING_RUNTIME:
        with contextlib.suppress(ApiError):
            registry.create(TRAIN_JOB, job_of_that_runtime())
    for _ in range(2):
        for controller in controllers(registry):
            for entry in list(registry.entries(controller.kind)):
                # What cannot be made is tried again later; anything else is a fault of the controller.
                with contextlib.suppress(ApiError):
                    asyncio.run(controller.reconcile(*entry.key))


def job_of_that_runtime() -> Object:
    spec = {"runtimeRef": {"name": "job", "kind": "TrainingRuntime"}, "trainer": {"image": "x", "command": ["a"]}}
    return {"metadata": {"name": "job", "namespace": "default"}, "spec": spec}


def is_refused(registry: Registry, kind: Kind, body: Object) -> bool:
    try:
        registry.create(kind, body, dry_run=True)
    except ApiError as error:
        return error.code in {400, 403, 422}
    return False
