from __future__ import annotations

from airflow_llmtune.controlplane.apiserver.kinds import CLUSTER_TRAINING_RUNTIME, TRAIN_JOB, TRAINING_RUNTIME
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.shipped_runtimes import ship_runtimes
from airflow_llmtune.controlplane.controllers.training_runtime import (
    IN_USE,
    ClusterTrainingRuntimeController,
    TrainingRuntimeController,
)
from objects import Object
from registries import settle

NAME = "torch-distributed"


def train_job(name: str = "job") -> Object:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"runtimeRef": {"name": NAME}}}


async def test_a_runtime_goes_only_with_the_last_job_that_uses_it(registry: Registry) -> None:
    ship_runtimes(registry)
    controller = ClusterTrainingRuntimeController(registry)

    async def look() -> Object | None:
        await settle(registry, lambda: controller.reconcile("", NAME))
        return registry.find(CLUSTER_TRAINING_RUNTIME, None, NAME)

    assert "finalizers" not in (await look() or {})["metadata"]
    job = registry.create(TRAIN_JOB, train_job())
    assert list(controller.keys_for(TRAIN_JOB, job)) == [("", NAME)]
    assert (await look() or {})["metadata"]["finalizers"] == [IN_USE]
    registry.delete(CLUSTER_TRAINING_RUNTIME, None, NAME)
    assert "deletionTimestamp" in (await look() or {})["metadata"]
    registry.delete(TRAIN_JOB, "default", "job")
    assert await look() is None


def test_a_job_concerns_only_the_runtime_that_it_names(registry: Registry) -> None:
    ship_runtimes(registry)
    job = registry.create(TRAIN_JOB, train_job())
    assert list(TrainingRuntimeController(registry).keys_for(TRAIN_JOB, job)) == []
    job["spec"]["runtimeRef"]["kind"] = TRAINING_RUNTIME.name
    assert list(TrainingRuntimeController(registry).keys_for(TRAIN_JOB, job)) == [("default", NAME)]
