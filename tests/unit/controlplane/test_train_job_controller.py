from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import (
    CLUSTER_TRAINING_RUNTIME,
    CONFIG_MAP,
    EVENT,
    JOB_SET,
    TRAIN_JOB,
    TRAINING_RUNTIME,
)
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.controllers.shipped_runtimes import ship_runtimes
from airflow_llmtune.controlplane.controllers.train_job import TrainJobController
from objects import Object
from registries import settle


class World:
    """The test plays the JobSet controller."""

    def __init__(self, registry: Registry, clock: Any) -> None:
        self.registry = registry
        self.clock = clock
        self.controller = TrainJobController(registry, clock)
        self.delay: float | None = None
        ship_runtimes(registry)

    async def start(self, runtime: Object | None = None, **spec: Any) -> Object:
        reference = runtime or {"name": "torch-distributed"}
        body = {"runtimeRef": reference, "trainer": {"image": "x", "command": ["torchrun"]}, **spec}
        self.registry.create(TRAIN_JOB, {"metadata": {"name": "job", "namespace": "default"}, "spec": body})
        return await self.settle()

    async def settle(self) -> Object:
        self.delay = await settle(self.registry, lambda: self.controller.reconcile("default", "job"))
        return self.registry.get(TRAIN_JOB, "default", "job")

    async def update(self, **spec: Any) -> Object:
        job = self.registry.get(TRAIN_JOB, "default", "job")
        job["spec"].update(spec)
        self.registry.update(TRAIN_JOB, job)
        return await self.settle()

    def job_set(self) -> Object:
        return self.registry.get(JOB_SET, "default", "job")

    async def mark(self, type_: str = "", reason: str = "", message: str = "", **counters: int) -> Object:
        job_set = self.job_set()
        names = ("ready", "succeeded", "failed", "active", "suspended")
        job_set["status"] = {
            "restarts": 0,
            "replicatedJobsStatus": [{"name": "node", **{name: counters.get(name, 0) for name in names}}],
        }
        if type_:
            found = {"type": type_, "status": "True", "reason": reason, "message": message}
            job_set["status"]["conditions"] = [{**found, "lastTransitionTime": timestamp(self.clock())}]
        self.registry.update_status(JOB_SET, job_set)
        return await self.settle()


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


def conditions(job: Object) -> list[tuple[str, str, str, str]]:
    found = job.get("status", {}).get("conditions", [])
    return [(one["type"], one["status"], one["reason"], one["message"]) for one in found]


def own_runtime(registry: Registry, **job: Any) -> Object:
    pod = {"containers": [{"name": "node", "image": "x"}], "restartPolicy": "Never"}
    labels = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    template = {"metadata": {"labels": labels}, "spec": {"template": {"spec": pod}, **job}}
    spec = {
        "mlPolicy": {"torch": {}},
        "template": {"spec": {"replicatedJobs": [{"name": "node", "template": template}]}},
    }
    return registry.create(TRAINING_RUNTIME, {"metadata": {"name": "own", "namespace": "default"}, "spec": spec})


async def test_the_shipped_runtime_is_known_by_its_label_and_makes_a_job_set(world: World) -> None:
    runtime = world.registry.get(CLUSTER_TRAINING_RUNTIME, None, "torch-distributed")
    assert runtime["metadata"]["labels"] == {"trainer.kubeflow.org/framework": "torch"}
    job = await world.start()
    assert "conditions" not in job.get("status", {})
    (replicated,) = world.job_set()["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    assert (replicated["name"], spec["completions"], "backoffLimit" in spec) == ("node", 1, False)
    assert spec["template"]["spec"]["restartPolicy"] == "OnFailure"


async def test_the_status_follows_the_job_set(world: World) -> None:
    await world.start()
    job = await world.mark(active=1, ready=1)
    assert job["status"] == {
        "jobsStatus": [{"name": "node", "ready": 1, "succeeded": 0, "failed": 0, "active": 1, "suspended": 0}]
    }
    world.clock.advance(5)
    job = await world.mark("Completed", "AllJobsCompleted", "jobset completed successfully", succeeded=1)
    assert conditions(job) == [("Complete", "True", "AllJobsCompleted", "jobset completed successfully")]
    assert job["status"]["conditions"][0]["lastTransitionTime"] == "2026-11-22T09:00:05Z"


async def test_a_failed_job_stays_failed_also_when_its_job_set_goes(world: World) -> None:
    await world.start()
    job = await world.mark("Failed", "FailedJobs", "it failed", failed=1)
    assert conditions(job) == [("Failed", "True", "FailedJobs", "it failed")]
    world.registry.delete(JOB_SET, "default", "job")
    assert conditions(await world.settle()) == [("Failed", "True", "FailedJobs", "it failed")]
    assert world.registry.find(JOB_SET, "default", "job") is None


async def test_a_job_set_that_goes_before_its_end_is_made_again(world: World) -> None:
    await world.start()
    world.registry.delete(JOB_SET, "default", "job")
    await world.settle()
    assert world.job_set()


async def test_the_users_own_runtime_decides_how_often_a_crash_is_tried_again(world: World) -> None:
    own_runtime(world.registry, backoffLimit=0)
    await world.start({"name": "own", "kind": "TrainingRuntime"})
    spec = world.job_set()["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (spec["backoffLimit"], spec["template"]["spec"]["restartPolicy"]) == (0, "Never")


async def test_a_runtime_that_changes_later_does_not_concern_the_job(world: World) -> None:
    runtime = own_runtime(world.registry)
    await world.start({"name": "own", "kind": "TrainingRuntime"})
    snapshot = world.registry.get(CONFIG_MAP, "default", "job-runtime-snapshot")
    assert "name: own" in snapshot["data"]["runtime"]
    runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["backoffLimit"] = 3
    world.registry.update(TRAINING_RUNTIME, runtime)
    world.registry.delete(JOB_SET, "default", "job")
    await world.settle()
    assert "backoffLimit" not in world.job_set()["spec"]["replicatedJobs"][0]["template"]["spec"]


async def test_what_cannot_be_made_is_told_by_an_event_only(world: World) -> None:
    own_runtime(world.registry)
    metadata = {"name": "job", "namespace": "default"}
    reference = {"name": "own", "kind": "TrainingRuntime"}
    world.registry.create(TRAIN_JOB, {"metadata": metadata, "spec": {"runtimeRef": reference}})
    world.registry.delete(TRAINING_RUNTIME, "default", "own")
    delays = [await world.controller.reconcile("default", "job") for _ in range(3)]
    assert delays == [1, 2, 4]
    assert "status" not in world.registry.get(TRAIN_JOB, "default", "job")
    (event,) = world.registry.list(EVENT, "default")[0]
    assert (event["type"], event["reason"]) == ("Warning", "TrainJobResourcesCreationFailed")
    assert event["message"] == (
        "TrainJob resources reconciliation failed: TrainingRuntime specified in TrainJob is not found: "
        'trainingruntimes.trainer.kubeflow.org "own" not found'
    )
    own_runtime(world.registry)
    await world.settle()
    assert world.job_set()


async def test_a_held_job_keeps_its_job_set_held_and_is_resumed_with_the_same_port(world: World) -> None:
    job = await world.start(suspend=True)
    assert conditions(job) == [("Suspended", "True", "Suspended", "TrainJob is suspended")]
    held = world.job_set()
    assert held["spec"]["suspend"] is True
    world.clock.advance(5)
    job = await world.update(suspend=False)
    assert conditions(job) == [("Suspended", "False", "Resumed", "TrainJob is resumed")]
    assert job["status"]["conditions"][0]["lastTransitionTime"] == "2026-11-22T09:00:05Z"
    assert world.job_set()["spec"] == {**held["spec"], "suspend": False}


async def test_a_held_job_can_be_patched(world: World) -> None:
    await world.start(suspend=True)
    pod = {"nodeSelector": {"zone": "a"}}
    node = {"name": "node", "template": {"spec": {"template": {"spec": pod}}}}
    template = {"spec": {"replicatedJobs": [node]}, "metadata": {"labels": {"queue": "q"}}}
    await world.update(
        suspend=False, runtimePatches=[{"manager": "acme.io/queue", "trainingRuntimeSpec": {"template": template}}]
    )
    made = world.job_set()
    assert made["metadata"]["labels"] == {"queue": "q"}
    (replicated,) = made["spec"]["replicatedJobs"]
    assert replicated["template"]["spec"]["template"]["spec"]["nodeSelector"] == {"zone": "a"}


async def test_a_job_that_takes_too_long_fails_and_loses_its_job_set(world: World) -> None:
    await world.start(activeDeadlineSeconds=60)
    assert world.delay == 60
    world.clock.advance(60)
    job = await world.settle()
    assert conditions(job) == [("Failed", "True", "DeadlineExceeded", "TrainJob exceeded its active deadline")]
    assert world.registry.find(JOB_SET, "default", "job") is None


async def test_the_deadline_starts_anew_when_the_job_is_resumed(world: World) -> None:
    await world.start(activeDeadlineSeconds=60, suspend=True)
    world.clock.advance(100)
    await world.update(suspend=False)
    assert world.delay == 60


async def test_what_a_trainer_tells_of_its_progress_stays_in_the_status(world: World) -> None:
    job = await world.start()
    progress = {"progressPercentage": 40, "lastUpdatedTime": "2026-11-22T09:00:00Z"}
    world.registry.update_status(TRAIN_JOB, {**job, "status": {"trainerStatus": progress}})
    job = await world.mark(active=1)
    assert job["status"]["trainerStatus"] == progress


async def test_a_job_that_another_manager_runs_is_left_alone(world: World) -> None:
    await world.start(managedBy="kueue.x-k8s.io/multikueue")
    assert world.registry.find(JOB_SET, "default", "job") is None


async def test_a_quantity_that_only_the_definition_takes_is_told_in_an_event(world: World) -> None:
    spec = {
        "runtimeRef": {"name": "torch-distributed"},
        "trainer": {"resourcesPerNode": {"requests": {"cpu": "1e1.5"}}},
    }
    world.registry.create(TRAIN_JOB, {"metadata": {"name": "job", "namespace": "default"}, "spec": spec})
    assert await world.controller.reconcile("default", "job") == 1
    (event,) = [one for one in world.registry.list(EVENT, "default")[0] if one["type"] == "Warning"]
    assert event["reason"] == "TrainJobResourcesCreationFailed"
    assert "quantities must match the regular expression" in event["message"]
