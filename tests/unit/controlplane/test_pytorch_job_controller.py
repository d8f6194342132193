from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import POD, PYTORCH_JOB, SERVICE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers.garbage_collector import GarbageCollector
from airflow_llmtune.controlplane.controllers.pytorch_job import PyTorchJobController
from airflow_llmtune.controlplane.controllers.runtime import owner_reference
from objects import Object
from registries import settle


class World:
    """The PyTorchJob controller on a real registry; the test plays the kubelet."""

    def __init__(self, registry: Registry, clock: Any) -> None:
        self.registry = registry
        self.clock = clock
        self.controller = PyTorchJobController(registry, clock)
        self.delay: float | None = None

    async def start(
        self,
        *,
        workers: int = 1,
        master: bool = True,
        policy: str = "Never",
        container: Object | None = None,
        **spec: Any,
    ) -> Object:
        pytorch = {"name": "pytorch", "image": "x", "command": ["a"], **(container or {})}
        replica = {"restartPolicy": policy, "template": {"spec": {"containers": [pytorch]}}}
        replicas = {"Master": {"replicas": 1, **replica}} if master else {}
        if workers:
            replicas["Worker"] = {"replicas": workers, **replica}
        metadata = {"name": "job", "namespace": "default"}
        body = {"metadata": metadata, "spec": {"pytorchReplicaSpecs": replicas, **spec}}
        self.registry.create(PYTORCH_JOB, body)
        return await self.settle()

    async def settle(self) -> Object:
        self.delay = await settle(self.registry, lambda: self.controller.reconcile("default", "job"))
        return self.registry.find(PYTORCH_JOB, "default", "job") or {}

    async def step(self) -> Object:
        """One call alone; the next may see that all is well again."""
        await self.controller.reconcile("default", "job")
        return self.registry.get(PYTORCH_JOB, "default", "job")

    def pods(self) -> dict[str, Object]:
        return {pod["metadata"]["name"]: pod for pod in self.registry.list(POD, "default")[0]}

    def mark(self, name: str, phase: str, *, code: int = 0, restarts: int = 0) -> None:
        container = {"name": "pytorch", "state": {"terminated": {"exitCode": code}}, "restartCount": restarts}
        status = {"phase": phase, "containerStatuses": [container]}
        self.registry.update_status(POD, {**self.pods()[name], "status": status})

    def confirm_deletions(self) -> None:
        for name, pod in self.pods().items():
            if "deletionTimestamp" in pod["metadata"]:
                self.registry.delete(POD, "default", name, grace_period_seconds=0)


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


def types(job: Object) -> list[tuple[str, str]]:
    return [(one["type"], one["status"]) for one in job["status"]["conditions"]]


def env(pod: Object) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod["spec"]["containers"][0]["env"]}


async def test_pods_and_services_get_the_operators_names_labels_and_environment(world: World) -> None:
    await world.start(workers=2, nprocPerNode="2")
    pods = world.pods()
    assert sorted(pods) == ["job-master-0", "job-worker-0", "job-worker-1"]
    assert [one["metadata"]["name"] for one in world.registry.list(SERVICE, "default")[0]] == sorted(pods)
    assert pods["job-master-0"]["metadata"]["labels"] == {
        "training.kubeflow.org/job-name": "job",
        "training.kubeflow.org/operator-name": "pytorchjob-controller",
        "training.kubeflow.org/replica-type": "master",
        "training.kubeflow.org/replica-index": "0",
        "training.kubeflow.org/job-role": "master",
    }
    assert "training.kubeflow.org/job-role" not in pods["job-worker-1"]["metadata"]["labels"]
    values = env(pods["job-worker-1"])
    port = values["MASTER_PORT"]
    assert {env(pod)["MASTER_PORT"] for pod in pods.values()} == {port}
    assert values == {
        "PYTHONUNBUFFERED": "1",
        "MASTER_ADDR": "job-master-0",
        "PET_MASTER_ADDR": "job-master-0",
        "MASTER_PORT": port,
        "PET_MASTER_PORT": port,
        "WORLD_SIZE": "6",
        "RANK": "2",
        "PET_NODE_RANK": "2",
        "PET_NPROC_PER_NODE": "2",
        "PET_NNODES": "3",
    }


async def test_a_named_port_is_used_as_it_is_and_the_operators_variables_come_last(world: World) -> None:
    ports = [{"name": "pytorchjob-port", "containerPort": 23456}]
    await world.start(container={"ports": ports, "env": [{"name": "WORLD_SIZE", "value": "9"}]})
    pod = world.pods()["job-master-0"]
    assert env(pod)["MASTER_PORT"] == "23456"
    assert [one["value"] for one in pod["spec"]["containers"][0]["env"] if one["name"] == "WORLD_SIZE"] == ["9", "2"]


async def test_a_job_of_workers_only_is_told_neither_ranks_nor_an_address(world: World) -> None:
    await world.start(master=False, workers=2, nprocPerNode="3")
    values = env(world.pods()["job-worker-1"])
    assert values == {"PYTHONUNBUFFERED": "1", "PET_NPROC_PER_NODE": "3", "PET_NNODES": "2"}
    assert world.pods()["job-worker-0"]["metadata"]["labels"]["training.kubeflow.org/job-role"] == "master"


async def test_nothing_that_the_operator_assumes_is_written_into_the_spec(world: World) -> None:
    job = await world.start(workers=1)
    assert set(job["spec"]) == {"pytorchReplicaSpecs"}


async def test_an_elastic_job_gets_a_rendezvous_instead_of_ranks(world: World) -> None:
    policy = {"minReplicas": 1, "maxReplicas": 3, "maxRestarts": 2}
    await world.start(master=False, workers=2, elasticPolicy=policy)
    values = env(world.pods()["job-worker-0"])
    assert values["PET_NNODES"] == "1:3"
    assert values["PET_RDZV_ENDPOINT"].startswith("job-worker-0:")
    assert (values["PET_RDZV_BACKEND"], values["PET_MAX_RESTARTS"]) == ("c10d", "2")
    assert "RANK" not in values
    assert world.pods()["job-worker-0"]["metadata"]["labels"]["training.kubeflow.org/job-role"] == "master"


async def test_the_master_decides_when_the_job_runs_and_has_succeeded(world: World) -> None:
    job = await world.start()
    assert types(job) == [("Created", "True")]
    world.mark("job-worker-0", "Running")
    assert types(await world.settle()) == [("Created", "True")]
    world.mark("job-master-0", "Running")
    job = await world.settle()
    assert types(job) == [("Created", "True"), ("Running", "True")]
    assert job["status"]["replicaStatuses"]["Master"]["active"] == 1
    world.mark("job-master-0", "Succeeded")
    job = await world.settle()
    assert types(job) == [("Created", "True"), ("Running", "False"), ("Succeeded", "True")]
    assert job["status"]["conditions"][-1]["reason"] == "PyTorchJobSucceeded"
    assert job["status"]["conditions"][-1]["message"] == "PyTorchJob job is successfully completed."
    assert job["status"]["replicaStatuses"]["Worker"] == {
        "succeeded": 1,
        "selector": "training.kubeflow.org/job-name=job,training.kubeflow.org/operator-name=pytorchjob-controller,"
        "training.kubeflow.org/replica-type=worker",
    }
    assert job["status"]["completionTime"]


async def test_workers_alone_must_all_succeed(world: World) -> None:
    await world.start(master=False, workers=2)
    world.mark("job-worker-0", "Succeeded")
    assert ("Succeeded", "True") not in types(await world.settle())
    world.mark("job-worker-1", "Succeeded")
    job = await world.settle()
    assert types(job)[-1] == ("Succeeded", "True")
    assert job["status"]["conditions"][-1]["message"] == "PyTorchJob default/job successfully completed."


async def test_one_worker_of_an_elastic_job_is_enough(world: World) -> None:
    await world.start(master=False, workers=2, elasticPolicy={})
    assert env(world.pods()["job-worker-1"])["PET_NNODES"] == "2:2"
    world.mark("job-worker-1", "Succeeded")
    assert types(await world.settle())[-1] == ("Succeeded", "True")


@pytest.mark.parametrize(
    ("policy", "message", "has_ended"),
    [
        ("Never", "PyTorchJob job is failed because 1 Worker replica(s) failed.", True),
        # The operator forgets the time here.
        ("ExitCode", 'job "job" is failing because "Worker" replica(s) failed.', False),
    ],
)
async def test_a_failed_pod_fails_the_job(world: World, policy: str, message: str, has_ended: bool) -> None:
    await world.start(policy=policy, runPolicy={"ttlSecondsAfterFinished": 10})
    assert world.pods()["job-worker-0"]["spec"]["restartPolicy"] == "Never"
    world.mark("job-master-0", "Running")
    world.mark("job-worker-0", "Failed", code=1)
    job = await world.settle()
    assert types(job) == [("Created", "True"), ("Running", "False"), ("Failed", "True")] or not has_ended
    assert types(job)[-1] == ("Failed", "True")
    assert job["status"]["conditions"][-1]["message"] == message
    assert ("completionTime" in job["status"]) is has_ended
    assert world.delay == (10 if has_ended else None)


@pytest.mark.parametrize(("policy", "code"), [("ExitCode", 137), ("OnFailure", 1), ("Always", 1)])
async def test_a_failed_pod_is_made_anew_and_the_job_is_restarting_meanwhile(
    world: World, policy: str, code: int
) -> None:
    await world.start(policy=policy)
    before = world.pods()["job-worker-0"]
    world.mark("job-master-0", "Running")
    assert types(await world.settle())[-1] == ("Running", "True")
    world.mark("job-worker-0", "Failed", code=code)
    job = await world.step()
    assert types(job) == [("Created", "True"), ("Restarting", "True")]
    message = "PyTorchJob job is restarting because 1 Worker replica(s) failed."
    assert job["status"]["conditions"][-1]["message"] == message
    job = await world.settle()
    assert types(job) == [("Created", "True"), ("Running", "True")]
    after = world.pods()["job-worker-0"]
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert env(after)["MASTER_PORT"] == env(before)["MASTER_PORT"]


async def test_a_lost_nodes_pod_that_told_no_exit_code_is_made_anew(world: World) -> None:
    await world.start(policy="ExitCode")
    pod = world.pods()["job-worker-0"]
    world.registry.update_status(POD, {**pod, "status": {"phase": "Failed", "reason": "NodeLost"}})
    assert types(await world.step())[-1] == ("Restarting", "True")


async def test_without_retries_the_first_failed_pod_reaches_the_limit(world: World) -> None:
    await world.start(policy="Never", runPolicy={"backoffLimit": 0})
    world.mark("job-worker-0", "Failed", code=1)
    job = await world.settle()
    message = "Job job has failed because it has reached the specified backoff limit"
    assert job["status"]["conditions"][-1]["message"] == message


async def test_pods_beyond_the_number_of_replicas_are_deleted(world: World) -> None:
    job = await world.start(workers=2)
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = 1
    world.registry.update(PYTORCH_JOB, job)
    await world.settle()
    world.confirm_deletions()
    assert sorted(world.pods()) == ["job-master-0", "job-worker-0"]


async def test_a_job_that_another_manager_runs_is_left_alone(world: World) -> None:
    await world.start(runPolicy={"managedBy": "kueue.x-k8s.io/multikueue"})
    assert world.pods() == {}


@pytest.mark.parametrize(("clean", "left"), [("None", 3), ("Running", 1), ("All", 0)])
async def test_pods_are_cleaned_as_the_policy_says(world: World, clean: str, left: int) -> None:
    await world.start(workers=2, runPolicy={"cleanPodPolicy": clean})
    for name in ("job-worker-0", "job-worker-1"):
        world.mark(name, "Running")
    world.mark("job-master-0", "Succeeded")
    await world.settle()
    world.confirm_deletions()
    assert len(world.pods()) == left


async def test_the_backoff_limit_counts_restarts_of_running_pods(world: World) -> None:
    await world.start(policy="OnFailure", runPolicy={"backoffLimit": 2})
    world.mark("job-worker-0", "Running", restarts=1)
    assert ("Failed", "True") not in types(await world.settle())
    world.mark("job-worker-0", "Running", restarts=2)
    job = await world.settle()
    message = "Job job has failed because it has reached the specified backoff limit"
    assert job["status"]["conditions"][-1]["message"] == message


async def test_the_deadline_and_the_time_to_live_end_the_job(world: World) -> None:
    await world.start(runPolicy={"activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 30})
    assert world.delay == 60
    world.clock.advance(60)
    job = await world.settle()
    assert types(job)[-1] == ("Failed", "True")
    assert "longer than specified deadline" in job["status"]["conditions"][-1]["message"]
    world.clock.advance(30)
    assert await world.settle() == {}


async def test_suspension_removes_the_pods_and_resuming_brings_them_back(world: World) -> None:
    job = await world.start(runPolicy={})
    world.mark("job-master-0", "Running")
    job = await world.settle()
    job["spec"]["runPolicy"]["suspend"] = True
    world.registry.update(PYTORCH_JOB, job)
    job = await world.settle()
    assert types(job) == [("Created", "True"), ("Running", "False"), ("Suspended", "True")]
    world.confirm_deletions()
    assert world.pods() == {}
    assert world.registry.list(SERVICE, "default")[0] == []
    job["spec"]["runPolicy"]["suspend"] = False
    world.registry.update(PYTORCH_JOB, job)
    job = await world.settle()
    assert job["status"]["conditions"][-1]["reason"] == "PyTorchJobResumed"
    assert len(world.pods()) == 2


async def test_a_deleted_service_comes_back_with_the_port_that_the_pods_know(world: World) -> None:
    await world.start(workers=1)
    world.registry.delete(SERVICE, "default", "job-worker-0")
    await world.settle()
    service = world.registry.get(SERVICE, "default", "job-worker-0")
    assert env(world.pods()["job-master-0"])["MASTER_PORT"] == str(service["spec"]["ports"][0]["port"])


async def test_a_job_made_anew_takes_over_what_was_left_without_an_owner(world: World) -> None:
    await world.start()
    before = {name: pod["metadata"]["uid"] for name, pod in world.pods().items()}
    world.registry.delete(PYTORCH_JOB, "default", "job", propagation="Orphan")
    GarbageCollector(world.registry).collect()
    assert [pod for pod in world.pods().values() if pod["metadata"].get("ownerReferences")] == []
    job = await world.start()
    assert {name: pod["metadata"]["uid"] for name, pod in world.pods().items()} == before
    for made in [*world.pods().values(), *world.registry.list(SERVICE, "default")[0]]:
        assert made["metadata"]["ownerReferences"] == [owner_reference(PYTORCH_JOB, job)]


async def test_a_worker_too_many_goes_with_its_service(world: World) -> None:
    job = await world.start(workers=2)
    job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = 1
    world.registry.update(PYTORCH_JOB, job)
    await world.settle()
    world.confirm_deletions()
    names = [service["metadata"]["name"] for service in world.registry.list(SERVICE, "default")[0]]
    assert names == sorted(world.pods()) == ["job-master-0", "job-worker-0"]


async def test_somebody_elses_service_of_a_pods_name_is_not_taken(world: World) -> None:
    metadata = {"name": "job-master-0", "namespace": "default"}
    world.registry.create(SERVICE, {"metadata": metadata, "spec": {"ports": [{"port": 80}]}})
    await world.start()
    assert "ownerReferences" not in world.registry.get(SERVICE, "default", "job-master-0")["metadata"]
