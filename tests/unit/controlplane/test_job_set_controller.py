from __future__ import annotations

import copy
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import EVENT, JOB, JOB_SET, SERVICE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.controllers.job_set import JobSetController
from objects import Object
from registries import refused, settle

POD = {"containers": [{"name": "main", "image": "x", "command": ["a"]}]}


def replicated(name: str, replicas: int = 1, *, pods: int = 1, **fields: Any) -> Object:
    spec = {"template": {"spec": copy.deepcopy(POD)}, "parallelism": pods, "completions": pods}
    return {"name": name, "replicas": replicas, "template": {"spec": spec}, **fields}


def job_set(*jobs: Object, name: str = "set", **spec: Any) -> Object:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"replicatedJobs": list(jobs), **spec}}


class World:
    """The test plays the Job controller."""

    def __init__(self, registry: Registry, clock: Any) -> None:
        self.registry = registry
        self.clock = clock
        self.controller = JobSetController(registry, clock)
        self.delay: float | None = None

    async def start(self, *jobs: Object, **spec: Any) -> Object:
        self.registry.create(JOB_SET, job_set(*jobs, **spec))
        return await self.settle()

    async def settle(self) -> Object:
        self.delay = await settle(self.registry, lambda: self.controller.reconcile("default", "set"))
        return self.registry.find(JOB_SET, "default", "set") or {}

    def jobs(self) -> dict[str, Object]:
        return {job["metadata"]["name"]: job for job in self.registry.list(JOB, "default")[0]}

    async def mark(self, name: str, end: str = "", **counters: int) -> Object:
        status: Object = dict(counters)
        if end:
            condition = {"type": end, "status": "True", "reason": "BackoffLimitExceeded", "message": "it failed"}
            status["conditions"] = [{**condition, "lastTransitionTime": timestamp(self.clock())}]
        self.registry.update_status(JOB, {**self.jobs()[name], "status": status})
        return await self.settle()

    async def confirm_deletions(self) -> Object:
        """What the garbage collector does with a Job whose pods are gone."""
        for job in self.jobs().values():
            if "deletionTimestamp" in job["metadata"]:
                job["metadata"]["finalizers"] = []
                self.registry.update(JOB, job)
        return await self.settle()


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


def conditions(obj: Object) -> list[tuple[str, str, str, str]]:
    found = obj["status"].get("conditions", [])
    return [(one["type"], one["status"], one["reason"], one["message"]) for one in found]


def counters(obj: Object, index: int = 0) -> list[int]:
    names = ("ready", "succeeded", "failed", "active", "suspended")
    return [obj["status"]["replicatedJobsStatus"][index][name] for name in names]


async def test_each_replica_becomes_an_indexed_job_with_the_words_of_the_set(world: World) -> None:
    made = await world.start(replicated("lead"), replicated("node", 2, pods=3))
    assert sorted(world.jobs()) == ["set-lead-0", "set-node-0", "set-node-1"]
    job = world.jobs()["set-node-1"]
    words = {
        "jobset-name": "set",
        "jobset-uid": made["metadata"]["uid"],
        "replicatedjob-name": "node",
        "restart-attempt": "0",
        "replicatedjob-replicas": "2",
        "global-replicas": "3",
        "job-index": "1",
        "job-key": job["metadata"]["labels"]["jobset.sigs.k8s.io/job-key"],
        "job-global-index": "2",
        "group-name": "default",
        "group-replicas": "3",
        "job-group-index": "2",
    }
    expected = {f"jobset.sigs.k8s.io/{key}": value for key, value in words.items()}
    assert len(words["job-key"]) == 40
    assert job["metadata"]["labels"] == job["metadata"]["annotations"] == expected
    template = job["spec"]["template"]
    assert expected.items() <= template["metadata"]["labels"].items()
    assert (template["spec"]["restartPolicy"], template["spec"]["subdomain"]) == ("OnFailure", "set")
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["backoffLimit"]) == ("Indexed", 3, 6)
    (service,) = world.registry.list(SERVICE, "default")[0]
    assert (service["metadata"]["name"], service["spec"]["clusterIP"]) == ("set", "None")
    assert service["spec"]["selector"] == {"jobset.sigs.k8s.io/jobset-name": "set"}


async def test_the_set_is_complete_when_all_its_jobs_are(world: World) -> None:
    made = await world.start(replicated("node", 2, pods=2))
    assert counters(made) == [0, 0, 0, 0, 0]
    made = await world.mark("set-node-0", active=2, ready=1)
    assert counters(made) == [0, 0, 0, 1, 0]
    made = await world.mark("set-node-0", active=2, ready=2)
    assert counters(made) == [1, 0, 0, 1, 0]
    made = await world.mark("set-node-0", "Complete")
    assert conditions(made) == []
    made = await world.mark("set-node-1", "Complete")
    assert conditions(made) == [("Completed", "True", "AllJobsCompleted", "jobset completed successfully")]
    assert (made["status"]["terminalState"], counters(made)) == ("Completed", [0, 2, 0, 0, 0])


async def test_a_success_policy_names_the_jobs_that_count_and_the_others_are_stopped(world: World) -> None:
    policy = {"operator": "Any", "targetReplicatedJobs": ["lead"]}
    await world.start(replicated("lead", 2), replicated("node"), successPolicy=policy)
    assert conditions(await world.mark("set-node-0", "Complete")) == []
    made = await world.mark("set-lead-1", "Complete")
    assert made["status"]["terminalState"] == "Completed"
    await world.confirm_deletions()
    assert sorted(world.jobs()) == ["set-lead-1", "set-node-0"]


async def test_a_failed_job_fails_the_set_and_stops_the_others(world: World) -> None:
    await world.start(replicated("node", 2))
    made = await world.mark("set-node-1", "Failed")
    message = "jobset failed due to one or more job failures (first failed job: set-node-1)"
    assert conditions(made) == [("Failed", "True", "FailedJobs", message)]
    await world.confirm_deletions()
    assert sorted(world.jobs()) == ["set-node-1"]
    told = {(one["type"], one["reason"], one["message"]) for one in world.registry.list(EVENT, "default")[0]}
    assert ("Warning", "FailedJobs", message) in told


async def test_a_failure_policy_makes_all_jobs_anew_so_often(world: World) -> None:
    await world.start(replicated("node", 2), failurePolicy={"maxRestarts": 1})
    made = await world.mark("set-node-1", "Failed")
    message = "applying RestartJobSet failure policy action (first failed job: set-node-1)"
    assert conditions(made) == [("RestartingJobSet", "True", "DefaultFailurePolicy", message)]
    assert (made["status"]["restarts"], made["status"]["restartsCountTowardsMax"]) == (1, 1)
    await world.confirm_deletions()
    assert {job["metadata"]["labels"]["jobset.sigs.k8s.io/restart-attempt"] for job in world.jobs().values()} == {"1"}
    for name in ("set-node-0", "set-node-1"):
        made = await world.mark(name, active=1, ready=1)
    assert conditions(made)[0][:3] == ("RestartingJobSet", "False", "JobsReady")
    made = await world.mark("set-node-0", "Failed")
    message = "jobset failed due to reaching max number of restarts (first failed job: set-node-0)"
    assert conditions(made)[-1] == ("Failed", "True", "ReachedMaxRestarts", message)


@pytest.mark.parametrize(
    ("rule", "reason", "restarts"),
    [
        ({"action": "FailJobSet"}, "FailJobSetFailurePolicyAction", 0),
        ({"action": "RestartJobSetAndIgnoreMaxRestarts", "name": "again"}, "FailurePolicy_again", 1),
        ({"action": "FailJobSet", "onJobFailureReasons": ["DeadlineExceeded"]}, "ReachedMaxRestarts", 0),
        ({"action": "FailJobSet", "onJobFailureMessagePatterns": ["^it f"]}, "FailJobSetFailurePolicyAction", 0),
        ({"action": "FailJobSet", "targetReplicatedJobs": ["lead"]}, "ReachedMaxRestarts", 0),
    ],
)
async def test_the_first_rule_that_a_failed_job_meets_decides(
    world: World, rule: Object, reason: str, restarts: int
) -> None:
    await world.start(replicated("lead"), replicated("node"), failurePolicy={"rules": [rule]})
    made = await world.mark("set-node-0", "Failed")
    assert (conditions(made)[-1][2], made["status"]["restarts"]) == (reason, restarts)


@pytest.mark.parametrize(("needed", "end", "ready"), [("Complete", "Complete", 0), ("Ready", "", 1)])
async def test_a_job_waits_for_those_it_depends_on(world: World, needed: str, end: str, ready: int) -> None:
    dependency = [{"name": "first", "status": needed}]
    await world.start(replicated("first"), replicated("node", dependsOn=dependency))
    await world.mark("set-first-0", active=1)
    assert sorted(world.jobs()) == ["set-first-0"]
    await world.mark("set-first-0", end, ready=ready)
    assert sorted(world.jobs()) == ["set-first-0", "set-node-0"]


async def test_jobs_can_start_in_order(world: World) -> None:
    made = await world.start(replicated("first"), replicated("node"), startupPolicy={"startupPolicyOrder": "InOrder"})
    assert sorted(world.jobs()) == ["set-first-0"]
    assert conditions(made)[0][:2] == ("StartupPolicyInProgress", "True")
    await world.mark("set-first-0", active=1, ready=1)
    made = await world.mark("set-node-0", active=1, ready=1)
    assert [one[:2] for one in conditions(made)] == [
        ("StartupPolicyInProgress", "False"),
        ("StartupPolicyCompleted", "True"),
    ]


async def test_a_held_set_makes_held_jobs_and_sets_them_going_with_what_was_decided_meanwhile(world: World) -> None:
    made = await world.start(replicated("node"), suspend=True)
    assert world.jobs()["set-node-0"]["spec"]["suspend"] is True
    assert conditions(made) == [("Suspended", "True", "SuspendedJobs", "jobset is suspended")]
    made["spec"]["suspend"] = False
    made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["nodeSelector"] = {"zone": "a"}
    world.registry.update(JOB_SET, made)
    made = await world.settle()
    job = world.jobs()["set-node-0"]
    assert (job["spec"]["suspend"], job["spec"]["template"]["spec"]["nodeSelector"]) == (False, {"zone": "a"})
    assert conditions(made) == [("Suspended", "False", "ResumeJobs", "jobset is resumed")]
    made["spec"]["suspend"] = True
    world.registry.update(JOB_SET, made)
    await world.settle()
    assert world.jobs()["set-node-0"]["spec"]["suspend"] is True


async def test_a_finished_set_is_deleted_after_its_time_to_live(world: World) -> None:
    await world.start(replicated("node"), ttlSecondsAfterFinished=30)
    await world.mark("set-node-0", "Complete")
    assert world.delay == 30
    world.clock.advance(30)
    assert "deletionTimestamp" in (await world.settle()).get("metadata", {"deletionTimestamp": ""})


async def test_a_coordinator_is_told_to_all_jobs(world: World) -> None:
    await world.start(replicated("node"), coordinator={"replicatedJob": "node"}, network={"subdomain": "net"})
    label = world.jobs()["set-node-0"]["metadata"]["labels"]["jobset.sigs.k8s.io/coordinator"]
    assert label == "set-node-0-0.net"


async def test_a_set_that_another_manager_runs_is_left_alone(world: World) -> None:
    await world.start(replicated("node"), managedBy="kueue.x-k8s.io/multikueue")
    assert world.jobs() == {}


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (job_set({"name": "node"}), 422, "spec.replicatedJobs[0].template: Required value"),
        (
            job_set(replicated("node", replicas="2")),  # type: ignore[arg-type]
            422,
            'spec.replicatedJobs[0].replicas in body must be of type integer: "string"',
        ),
        (
            job_set(replicated("node"), replicated("node")),
            422,
            'spec.replicatedJobs[1]: Duplicate value: {"name":"node"}',
        ),
        (
            job_set({"name": "node", "template": {"spec": {"parallelism": 2, "template": {"spec": POD}}}}),
            422,
            "spec.replicatedJobs[0].template.spec.completions: Required value: when completion mode is Indexed",
        ),
        (job_set(replicated("node", dependsOn=[])), 403, "DependsOn can't be set for the first ReplicatedJob"),
        (
            job_set(replicated("a"), replicated("b", dependsOn=[{"name": "c", "status": "Ready"}])),
            403,
            "replicatedJob: b cannot depend on replicatedJob: c",
        ),
        (
            job_set(replicated("a"), successPolicy={"operator": "All", "targetReplicatedJobs": ["b"]}),
            403,
            "invalid replicatedJob name 'b' does not appear in .spec.ReplicatedJobs",
        ),
        (job_set(replicated("a"), name="x" * 62), 403, "job names generated for this JobSet will exceed 63 characters"),
        (job_set(replicated("a"), name="x" * 52), 403, "pod names generated for this JobSet will exceed 63 characters"),
        (job_set(replicated("a"), volumeClaimPolicies=[{}]), 400, "spec.volumeClaimPolicies is not supported here"),
        (
            job_set(replicated("a"), failurePolicy={"rules": [{"action": "RestartJob"}]}),
            400,
            "restarting single Jobs or restarting in place is not supported here",
        ),
    ],
)
def test_a_wrong_set_is_refused(registry: Registry, body: Object, code: int, message: str) -> None:
    error = refused(registry.create, JOB_SET, body)
    assert (error.code, message in error.message) == (code, True), error.message


def test_its_jobs_cannot_change(registry: Registry) -> None:
    made = registry.create(JOB_SET, job_set(replicated("node")))
    made["spec"]["replicatedJobs"][0]["replicas"] = 2
    assert "spec.replicatedJobs: Invalid value" in refused(registry.update, JOB_SET, made).message
