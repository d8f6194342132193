"""Indexed Jobs, pod failure policies and success policies: the Job controller on a real registry."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import EVENT, JOB, POD
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock, timestamp
from airflow_llmtune.controlplane.controllers.job import JobController
from airflow_llmtune.controlplane.controllers.job_count import TRACKING_FINALIZER
from airflow_llmtune.controlplane.controllers.job_indexes import (
    INDEX,
    failure_counts,
    format_indexes,
    index_of,
    parse_indexes,
)
from objects import Object
from registries import bind, settle


class World:
    """The test plays the kubelet."""

    def __init__(self, registry: Registry, clock: Any) -> None:
        self.registry = registry
        self.clock = clock
        self.controller = JobController(registry, clock)
        self.delay: float | None = None

    async def start(self, **spec: Any) -> Object:
        containers = [{"name": "main", "image": "x", "command": ["a"]}]
        template = {"spec": {"restartPolicy": "Never", "containers": containers}}
        body = {"template": template, "completionMode": "Indexed", "completions": 3, "parallelism": 3, **spec}
        if body["completionMode"] is None:
            del body["completionMode"]
        self.registry.create(JOB, {"metadata": {"name": "job", "namespace": "default"}, "spec": body})
        return await self.settle()

    async def settle(self) -> Object:
        self.delay = await settle(self.registry, lambda: self.controller.reconcile("default", "job"))
        bind(self.registry)
        return self.registry.get(JOB, "default", "job")

    def active(self) -> dict[int | None, Object]:
        pods, _ = self.registry.list(POD, "default")
        return {index_of(pod): pod for pod in pods if pod["status"]["phase"] == "Pending"}

    async def end(self, pod: Object, phase: str, code: int = 1, **status: Any) -> Object:
        ended = {"exitCode": 0 if phase == "Succeeded" else code, "finishedAt": timestamp(self.clock())}
        container = {"name": "main", "state": {"terminated": ended}}
        body = {"phase": phase, "containerStatuses": [container], **status}
        self.registry.update_status(POD, {**pod, "status": body})
        return await self.settle()

    def confirm_deletions(self) -> None:
        for pod in self.registry.list(POD, "default")[0]:
            if "deletionTimestamp" in pod["metadata"]:
                self.registry.delete(POD, "default", pod["metadata"]["name"], grace_period_seconds=0)


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


def ends(job: Object) -> list[tuple[str, str, str]]:
    conditions = job["status"].get("conditions", [])
    return [(one["type"], one["reason"], one["message"]) for one in conditions]


@pytest.mark.parametrize(
    ("text", "indexes"),
    [("", []), ("3", [3]), ("0,1", [0, 1]), ("1,3-5,7", [1, 3, 4, 5, 7]), ("0-4,9", [0, 1, 2, 3, 4, 9])],
)
def test_indexes_are_told_as_ranges(text: str, indexes: list[int]) -> None:
    assert format_indexes(indexes) == text
    assert sorted(parse_indexes(text, 10)) == indexes
    assert parse_indexes(text, 3) == {one for one in indexes if one < 3}


@pytest.mark.parametrize("text", ["x", "1-", "1--2", "-1"])
def test_what_is_no_list_of_indexes_is_empty(text: str) -> None:
    assert parse_indexes(text, 10) == set()


async def test_each_pod_knows_its_index(world: World) -> None:
    await world.start()
    assert sorted(world.active(), key=str) == [0, 1, 2]
    pod = world.active()[2]
    assert pod["metadata"]["name"].startswith("job-2-")
    assert pod["metadata"]["labels"][INDEX] == pod["metadata"]["annotations"][INDEX] == "2"
    assert pod["spec"]["hostname"] == "job-2"
    field = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
    assert pod["spec"]["containers"][0]["env"] == [{"name": "JOB_COMPLETION_INDEX", "valueFrom": field}]


async def test_an_index_is_done_once_and_a_failed_one_is_tried_again(world: World) -> None:
    await world.start(parallelism=1)
    job = await world.end(world.active()[0], "Succeeded")
    assert job["status"]["completedIndexes"] == "0"
    await world.end(world.active()[1], "Failed")
    assert (world.active(), world.delay) == ({}, 10)
    world.clock.advance(10)
    await world.settle()
    await world.end(world.active()[1], "Succeeded")
    job = await world.end(world.active()[2], "Succeeded")
    assert job["status"]["completedIndexes"] == "0-2"
    assert (job["status"]["succeeded"], job["status"]["failed"]) == (3, 1)
    assert ends(job)[-1] == ("Complete", "CompletionsReached", "Reached expected number of succeeded pods")


async def test_a_job_that_shrinks_drops_the_highest_indexes_without_a_failure(world: World) -> None:
    job = await world.start()
    job["spec"].update(completions=2, parallelism=2)
    world.registry.update(JOB, job)
    job = await world.settle()
    assert job["status"]["active"] == 2
    world.confirm_deletions()
    assert sorted(world.active(), key=str) == [0, 1]
    assert "failed" not in (await world.settle())["status"]


async def test_each_index_has_its_own_limit_and_its_own_delay(world: World) -> None:
    job = await world.start(backoffLimitPerIndex=1, completions=2, parallelism=2)
    assert job["spec"]["backoffLimit"] == 2**31 - 1
    assert failure_counts(world.active()[0]) == (0, 0)
    job = await world.end(world.active()[0], "Failed")
    assert (sorted(world.active(), key=str), world.delay) == ([1], 10)
    assert (job["status"]["failedIndexes"], "failed" in job["status"]) == ("", False)
    world.clock.advance(10)
    job = await world.settle()
    assert failure_counts(world.active()[0]) == (1, 0)
    assert job["status"]["failed"] == 1
    job = await world.end(world.active()[0], "Failed")
    assert job["status"]["failedIndexes"] == "0"
    assert ends(job) == []
    job = await world.end(world.active()[1], "Succeeded")
    assert ends(job)[-1] == ("Failed", "FailedIndexes", "Job has failed indexes")
    assert (job["status"]["completedIndexes"], job["status"]["failed"]) == ("1", 2)


async def test_too_many_failed_indexes_end_the_job_at_once(world: World) -> None:
    await world.start(backoffLimitPerIndex=0, maxFailedIndexes=1)
    assert ends(await world.end(world.active()[0], "Failed")) == []
    await world.end(world.active()[1], "Failed")
    world.confirm_deletions()
    job = await world.settle()
    text = "Job has exceeded the specified maximal number of failed indexes"
    assert ends(job)[-1] == ("Failed", "MaxFailedIndexesExceeded", text)


async def test_a_met_rule_of_the_success_policy_ends_the_job_and_its_other_pods(world: World) -> None:
    await world.start(successPolicy={"rules": [{"succeededIndexes": "1,2", "succeededCount": 1}]})
    job = await world.end(world.active()[0], "Succeeded")
    assert ends(job) == []
    job = await world.end(world.active()[2], "Succeeded")
    assert ends(job) == [("SuccessCriteriaMet", "SuccessPolicy", "Matched rules at index 0")]
    world.confirm_deletions()
    job = await world.settle()
    assert ends(job)[-1] == ("Complete", "SuccessPolicy", "Matched rules at index 0")
    assert (job["status"]["succeeded"], job["status"].get("failed", 0)) == (2, 0)


def policy(action: str, **rule: Any) -> Object:
    return {"rules": [{"action": action, **(rule or {"onExitCodes": {"operator": "In", "values": [42]}})}]}


async def test_an_exit_code_can_fail_the_whole_job(world: World) -> None:
    await world.start(podFailurePolicy=policy("FailJob"))
    pod = world.active()[1]
    await world.end(pod, "Failed", 42)
    world.confirm_deletions()
    job = await world.settle()
    name = pod["metadata"]["name"]
    text = f"Container main for pod default/{name} failed with exit code 42 matching FailJob rule at index 0"
    assert ends(job) == [("FailureTarget", "PodFailurePolicy", text), ("Failed", "PodFailurePolicy", text)]
    assert job["status"]["failed"] == 3


@pytest.mark.parametrize(
    ("rule", "code", "conditions", "failed"),
    [
        ({"onExitCodes": {"operator": "In", "values": [42]}}, 42, [], 0),
        ({"onExitCodes": {"operator": "In", "values": [42]}}, 1, [], 1),
        ({"onExitCodes": {"operator": "NotIn", "values": [42], "containerName": "main"}}, 1, [], 0),
        ({"onExitCodes": {"operator": "NotIn", "values": [42], "containerName": "other"}}, 1, [], 1),
        ({"onPodConditions": [{"type": "DisruptionTarget"}]}, 1, [("DisruptionTarget", "True")], 0),
        ({"onPodConditions": [{"type": "DisruptionTarget"}]}, 1, [("DisruptionTarget", "False")], 1),
    ],
)
async def test_an_ignored_failure_is_tried_again_but_not_counted(
    world: World, rule: Object, code: int, conditions: list[tuple[str, str]], failed: int
) -> None:
    await world.start(completionMode=None, completions=1, podFailurePolicy=policy("Ignore", **rule))
    listed = [{"type": type_, "status": status} for type_, status in conditions]
    job = await world.end(world.active()[None], "Failed", code, conditions=listed)
    assert job["status"].get("failed", 0) == failed
    world.clock.advance(10)
    assert (await world.settle())["status"]["active"] == 1


async def test_an_exit_code_can_fail_its_index_only(world: World) -> None:
    await world.start(backoffLimitPerIndex=5, podFailurePolicy=policy("FailIndex"))
    job = await world.end(world.active()[1], "Failed", 42)
    assert job["status"]["failedIndexes"] == "1"
    assert sorted(world.active(), key=str) == [0, 2]


@pytest.mark.parametrize(("replacement", "active"), [("TerminatingOrFailed", 1), ("Failed", 0)])
async def test_a_deleted_pod_is_replaced_at_once_or_when_it_has_ended(
    world: World, replacement: str, active: int
) -> None:
    await world.start(completionMode=None, completions=1, podReplacementPolicy=replacement)
    world.registry.delete(POD, "default", world.active()[None]["metadata"]["name"])
    world.clock.advance(10)
    job = await world.settle()
    assert job["status"].get("active", 0) == active
    assert job["status"].get("failed", 0) == active
    assert job["status"]["terminating"] == 1


async def test_a_plane_that_dies_between_two_writes_counts_each_pod_once(world: World) -> None:
    await world.start(completionMode=None, completions=2, parallelism=1, backoffLimit=3)
    (pod,) = world.active().values()
    job = world.registry.get(JOB, "default", "job")
    # As it is left behind when the plane ends after the first of the writes of `end`.
    job["status"]["uncountedTerminatedPods"] = {"failed": [pod["metadata"]["uid"]]}
    world.registry.update_status(JOB, job)
    job = await world.end(pod, "Failed")
    assert job["status"]["failed"] == 1
    assert job["status"]["uncountedTerminatedPods"] == {}
    assert TRACKING_FINALIZER not in world.registry.get(POD, "default", pod["metadata"]["name"])["metadata"].get(
        "finalizers", []
    )


async def test_a_job_that_another_manager_runs_is_left_alone(world: World) -> None:
    assert "status" not in await world.start(managedBy="acme.io/queue")
    assert world.active() == {}


async def test_what_is_deleted_is_told(world: World) -> None:
    await world.start(completionMode=None, completions=1, activeDeadlineSeconds=5)
    (pod,) = world.active().values()
    world.clock.advance(5)
    await world.settle()
    told = {(one["reason"], one["message"]) for one in world.registry.list(EVENT, "default")[0]}
    assert ("SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}") in told
