from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_llmtune.controlplane.apiserver.kinds import EVENT, JOB, POD, TRIAL
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock, timestamp, utc_now
from airflow_llmtune.controlplane.controllers.job import JobController
from airflow_llmtune.controlplane.controllers.job_count import TRACKING_FINALIZER
from airflow_llmtune.controlplane.controllers.job_plan import plan
from airflow_llmtune.controlplane.controllers.runtime import owner_reference
from objects import Object
from registries import bind, settle


class World:
    """The Job controller on a real registry; the test plays the kubelet."""

    def __init__(self, registry: Registry, clock: Any) -> None:
        self.registry = registry
        self.clock = clock
        self.controller = JobController(registry, clock)
        self.delay: float | None = None

    async def start(self, *, restart_policy: str = "Never", **spec: Any) -> Object:
        containers = [{"name": "main", "image": "x", "command": ["a"]}]
        template = {"spec": {"restartPolicy": restart_policy, "containers": containers}}
        metadata = {"name": "job", "namespace": "default"}
        self.registry.create(JOB, {"metadata": metadata, "spec": {"template": template, **spec}})
        return await self.settle()

    async def settle(self) -> Object:
        self.delay = await settle(self.registry, lambda: self.controller.reconcile("default", "job"))
        bind(self.registry)
        return self.registry.find(JOB, "default", "job") or {}

    def pods(self, *phases: str) -> list[Object]:
        pods, _ = self.registry.list(POD, "default")
        return [pod for pod in pods if not phases or pod["status"]["phase"] in phases]

    def end(self, pod: Object, phase: str, restarts: int = 0) -> None:
        ended = {"exitCode": int(phase == "Failed"), "finishedAt": timestamp(self.clock())}
        container = {"name": "main", "state": {"terminated": ended}, "restartCount": restarts}
        status = {"phase": phase, "containerStatuses": [container]}
        self.registry.update_status(POD, {**pod, "status": status})

    def confirm_deletions(self) -> None:
        """What the kubelet does with pods whose processes are gone."""
        for pod in self.pods():
            if "deletionTimestamp" in pod["metadata"] and pod["status"]["phase"] not in {"Succeeded", "Failed"}:
                self.end(pod, "Failed")
                self.registry.delete(POD, "default", pod["metadata"]["name"], grace_period_seconds=0)


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


def types(job: Object) -> list[tuple[str, str]]:
    return [(one["type"], one["reason"]) for one in job["status"].get("conditions", [])]


async def test_a_pod_is_made_with_the_labels_of_a_job(world: World) -> None:
    job = await world.start()
    (pod,) = world.pods()
    uid = job["metadata"]["uid"]
    assert pod["metadata"]["labels"] == {
        "job-name": "job",
        "batch.kubernetes.io/job-name": "job",
        "controller-uid": uid,
        "batch.kubernetes.io/controller-uid": uid,
    }
    assert pod["metadata"]["name"].startswith("job-")
    assert job["status"]["startTime"] == "2026-11-22T09:00:00Z"
    assert job["status"]["active"] == 1


async def test_success_completes_the_job(world: World) -> None:
    await world.start()
    world.end(world.pods()[0], "Succeeded")
    job = await world.settle()
    assert types(job) == [
        ("SuccessCriteriaMet", "CompletionsReached"),
        ("Complete", "CompletionsReached"),
    ]
    assert job["status"]["conditions"][1]["message"] == "Reached expected number of succeeded pods"
    assert job["status"]["succeeded"] == 1
    assert "active" not in job["status"]
    assert job["status"]["completionTime"] == "2026-11-22T09:00:00Z"


async def test_failed_pods_are_replaced_after_doubling_delays_until_the_limit(world: World) -> None:
    await world.start(backoffLimit=2)
    for delay in (10.0, 20.0):
        world.end(world.pods("Pending")[0], "Failed")
        await world.settle()
        assert world.pods("Pending") == []
        assert world.delay == delay
        world.clock.advance(delay)
        await world.settle()
    world.end(world.pods("Pending")[0], "Failed")
    job = await world.settle()
    assert types(job) == [("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded")]
    assert job["status"]["conditions"][1]["message"] == "Job has reached the specified backoff limit"
    assert job["status"]["failed"] == 3
    assert "completionTime" not in job["status"]


async def test_without_retries_the_first_failure_is_the_end(world: World) -> None:
    await world.start(backoffLimit=0)
    world.end(world.pods()[0], "Failed")
    assert types(await world.settle())[-1] == ("Failed", "BackoffLimitExceeded")


@pytest.mark.parametrize(("limit", "restarts", "fails"), [(0, 1, True), (2, 1, False), (2, 2, True)])
async def test_restarts_in_place_count_against_the_limit(world: World, limit: int, restarts: int, fails: bool) -> None:
    await world.start(restart_policy="OnFailure", backoffLimit=limit)
    world.end(world.pods()[0], "Running", restarts)
    job = await world.settle()
    assert (("FailureTarget", "BackoffLimitExceeded") in types(job)) is fails


async def test_the_deadline_stops_the_pods_before_the_job_has_failed(world: World) -> None:
    await world.start(activeDeadlineSeconds=60)
    assert world.delay == 60
    world.clock.advance(60)
    assert types(await world.settle()) == [("FailureTarget", "DeadlineExceeded")]
    assert "deletionTimestamp" in world.pods()[0]["metadata"]
    world.confirm_deletions()
    job = await world.settle()
    assert types(job)[-1] == ("Failed", "DeadlineExceeded")
    assert job["status"]["conditions"][-1]["message"] == "Job was active longer than specified deadline"
    assert world.pods() == []


async def test_parallelism_and_completions_are_kept(world: World) -> None:
    await world.start(parallelism=2, completions=3)
    assert len(world.pods("Pending")) == 2
    for _ in range(3):
        world.end(world.pods("Pending")[0], "Succeeded")
        job = await world.settle()
    assert job["status"]["succeeded"] == 3
    assert types(job)[-1][0] == "Complete"
    assert len(world.pods()) == 3


async def test_suspension_stops_the_pods_without_counting_failures(world: World) -> None:
    job = await world.start(backoffLimit=0)
    job["spec"]["suspend"] = True
    world.registry.update(JOB, job)
    await world.settle()
    world.confirm_deletions()
    job = await world.settle()
    assert types(job) == [("Suspended", "JobSuspended")]
    assert "startTime" not in job["status"]
    assert world.pods() == []
    job["spec"]["suspend"] = False
    world.registry.update(JOB, job)
    job = await world.settle()
    assert types(job) == [("Suspended", "JobResumed")]
    assert len(world.pods()) == 1


async def test_a_finished_job_is_deleted_after_its_time_to_live(world: World) -> None:
    await world.start(ttlSecondsAfterFinished=30)
    world.end(world.pods()[0], "Succeeded")
    await world.settle()
    assert world.delay == 30
    world.clock.advance(30)
    job = await world.settle()
    assert "deletionTimestamp" in job["metadata"]


async def test_a_deleted_running_pod_counts_as_failed(world: World) -> None:
    await world.start(backoffLimit=0)
    world.registry.delete(POD, "default", world.pods()[0]["metadata"]["name"])
    world.confirm_deletions()
    job = await world.settle()
    assert job["status"]["failed"] == 1
    assert types(job)[-1] == ("Failed", "BackoffLimitExceeded")


async def test_pods_of_a_deleted_job_are_let_go(world: World) -> None:
    await world.start()
    world.registry.delete(JOB, "default", "job")
    world.end(world.pods()[0], "Succeeded")
    await world.settle()
    assert "finalizers" not in world.pods()[0]["metadata"] or world.pods()[0]["metadata"]["finalizers"] == []


PHASES = st.lists(st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]), max_size=6)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(phases=PHASES, parallelism=st.integers(0, 4), completions=st.none() | st.integers(1, 5), limit=st.integers(0, 4))
def test_a_plan_never_runs_more_pods_than_allowed(
    phases: list[str], parallelism: int, completions: int | None, limit: int
) -> None:
    now = utc_now()
    pods = [
        {
            "metadata": {
                "name": f"p{i}",
                "uid": f"u{i}",
                "creationTimestamp": timestamp(now),
                "finalizers": [TRACKING_FINALIZER],
            },
            "status": {"phase": phase},
        }
        for i, phase in enumerate(phases)
    ]
    spec: Object = {"parallelism": parallelism, "backoffLimit": limit, "template": {"spec": {}}}
    if completions is not None:
        spec["completions"] = completions
    result = plan({"spec": spec}, pods, now, 0.0)
    active = sum(phase in {"Pending", "Running"} for phase in phases)
    removed = len(result.delete) + len(result.drop)
    assert active + len(result.create) - removed <= max(parallelism, active)
    assert not result.create or active + len(result.create) <= parallelism
    uncounted = result.status["uncountedTerminatedPods"]
    ends_badly = any(one["type"] == "FailureTarget" for one in result.status.get("conditions", []))
    assert len(uncounted.get("succeeded", [])) == phases.count("Succeeded")
    assert len(uncounted.get("failed", [])) == phases.count("Failed") + (active if ends_badly else 0)
    if phases.count("Failed") > limit:
        assert not result.create
        assert len(result.delete) == active


async def test_a_pod_that_is_refused_is_told_and_tried_again(world: World) -> None:
    metadata = {"name": "job", "namespace": "default"}
    trial_spec = {"primaryContainerName": "other", "objective": {}, "metricsCollector": {}}
    trial = world.registry.create(TRIAL, {"metadata": metadata, "spec": trial_spec})
    containers = [{"name": "main", "image": "x", "command": ["a"]}]
    owned = {**metadata, "ownerReferences": [owner_reference(TRIAL, trial)]}
    template = {"spec": {"restartPolicy": "Never", "containers": containers}}
    world.registry.create(JOB, {"metadata": owned, "spec": {"template": template}})
    delays = [await world.controller.reconcile("default", "job") for _ in range(3)]
    assert delays == [1, 2, 4]
    assert "active" not in world.registry.get(JOB, "default", "job")["status"]
    (event,) = world.registry.list(EVENT, "default")[0]
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "FailedCreate", 3)
    assert event["message"].startswith('Error creating: admission webhook "mutator.pod.katib.kubeflow.org"')


async def test_pods_of_an_earlier_job_of_the_same_name_are_let_go(world: World) -> None:
    await world.start()
    (left,) = world.pods()
    world.registry.delete(JOB, "default", "job")
    await world.start()
    assert world.registry.get(POD, "default", left["metadata"]["name"])["metadata"].get("finalizers", []) == []
    (own,) = [pod for pod in world.pods() if pod["metadata"]["uid"] != left["metadata"]["uid"]]
    assert own["metadata"]["finalizers"] == [TRACKING_FINALIZER]


async def test_a_deadline_may_be_farther_than_any_date(world: World) -> None:
    job = await world.start(activeDeadlineSeconds=2**63 - 1)
    assert job["status"]["active"] == 1


async def test_a_pod_that_lost_its_owner_is_taken_back(world: World) -> None:
    job = await world.start()
    (pod,) = world.pods()
    pod["metadata"]["ownerReferences"] = []
    pod = world.registry.update(POD, pod)
    assert list(world.controller.keys_for(POD, pod)) == [("default", "job")]
    await world.settle()
    (pod,) = world.pods()
    assert pod["metadata"]["ownerReferences"] == [owner_reference(JOB, job)]
    world.end(pod, "Succeeded")
    assert types(await world.settle())[-1] == ("Complete", "CompletionsReached")
