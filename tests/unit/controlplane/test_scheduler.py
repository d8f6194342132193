"""Pods wait until the node has room for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import bad_request
from airflow_llmtune.controlplane.apiserver.kinds import EVENT, NODE, POD, Kind
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.scheduler import Scheduler
from airflow_llmtune.controlplane.kubelet.node import ResourceError, all_resources, node_labels, node_status
from objects import Object
from registries import AdmitAll
from waiting import eventually


class Cluster:
    """One node of four CPUs, and a scheduler that runs. No kubelet: pods end when the test says so."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        registry.create(NODE, {"metadata": {"name": "n1", "labels": node_labels()}})
        resources = all_resources({"cpu": "4", "memory": "4Gi", "nvidia.com/gpu": "1"})
        node = registry.get(NODE, None, "n1")
        registry.update_status(NODE, {**node, "status": node_status(resources, {}, "2026-11-22T09:00:00Z")})

    def create(self, name: str, cpu: str = "1", limits: Object | None = None, **spec: Any) -> None:
        asked = {"resources": {"requests": {"cpu": cpu}, "limits": limits or {}}}
        container = {"name": "main", "image": "x", "command": ["true"], **asked}
        body = {"restartPolicy": "Never", "containers": [container], **spec}
        self.registry.create(POD, {"metadata": {"name": name, "namespace": "default"}, "spec": body})

    def pod(self, name: str) -> Object:
        return self.registry.get(POD, "default", name)

    def end(self, name: str) -> None:
        self.registry.update_status(POD, {**self.pod(name), "status": {"phase": "Succeeded"}})

    async def bound(self, *names: str) -> None:
        await eventually(lambda: all(self.pod(name)["spec"].get("nodeName") == "n1" for name in names))

    async def held(self, name: str) -> Object:
        """Its condition, when it has been told that it has to wait."""
        conditions = await eventually(lambda: self.pod(name)["status"].get("conditions"))
        assert "nodeName" not in self.pod(name)["spec"]
        found: Object = conditions[0]
        return found

    def events(self, name: str) -> list[tuple[str, str]]:
        events = self.registry.list(EVENT, "default")[0]
        return [(one["reason"], one["message"]) for one in events if one["involvedObject"]["name"] == name]


@pytest.fixture
async def cluster(registry: Registry) -> AsyncIterator[Cluster]:
    async with scheduling(registry) as made:
        yield made


@contextlib.asynccontextmanager
async def scheduling(registry: Registry) -> AsyncIterator[Cluster]:
    made = Cluster(registry)
    task = asyncio.create_task(Scheduler(registry).run())
    try:
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_pod_that_fits_is_bound_at_once(cluster: Cluster) -> None:
    cluster.create("a")
    await cluster.bound("a")
    assert cluster.events("a") == [("Scheduled", "Successfully assigned default/a to n1")]


async def test_a_pod_that_does_not_fit_waits_and_says_why(cluster: Cluster) -> None:
    cluster.create("big", cpu="3")
    cluster.create("late", cpu="2")
    cluster.create("small", cpu="1")
    await cluster.bound("big", "small")
    condition = await cluster.held("late")
    message = (
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: "
        "1 No preemption victims found for incoming pod."
    )
    assert (condition["type"], condition["status"]) == ("PodScheduled", "False")
    assert (condition["reason"], condition["message"]) == ("Unschedulable", message)
    assert cluster.events("late") == [("FailedScheduling", message)]
    assert cluster.pod("late")["status"]["phase"] == "Pending"
    cluster.end("big")
    await cluster.bound("late")


async def test_the_oldest_comes_first_when_room_is_made(cluster: Cluster, clock: Any) -> None:
    cluster.create("big", cpu="4")
    await cluster.bound("big")
    for name in ("z-first", "a-second"):
        cluster.create(name, cpu="3")
        await cluster.held(name)
        clock.advance(1)
    cluster.registry.delete(POD, "default", "big", grace_period_seconds=0)
    await cluster.bound("z-first")
    await cluster.held("a-second")


async def test_a_pod_that_is_being_deleted_is_not_bound_any_more(cluster: Cluster) -> None:
    cluster.create("big", cpu="4")
    await cluster.bound("big")
    cluster.create("held", cpu="4")
    await cluster.held("held")
    held = cluster.pod("held")
    cluster.registry.update(POD, {**held, "metadata": {**held["metadata"], "finalizers": ["example.com/held"]}})
    cluster.registry.delete(POD, "default", "held")
    cluster.create("next", cpu="4")
    cluster.end("big")
    await cluster.bound("next")
    assert "nodeName" not in cluster.pod("held")["spec"]


class AdmitAllButOne(AdmitAll):
    def admit(self, operation: str, kind: Kind, obj: Object, old: Object | None, namespace: Object | None) -> Object:
        if operation == "UPDATE" and obj["metadata"]["name"] == "refused":
            raise bad_request("not this one")
        return super().admit(operation, kind, obj, old, namespace)


async def test_a_pod_that_cannot_be_bound_is_told_and_holds_up_no_other(registry: Registry) -> None:
    async with scheduling(Registry(registry.store, AdmitAllButOne())) as cluster:
        for name in ("refused", "other"):
            cluster.create(name)
        await cluster.bound("other")
        assert cluster.events("refused") == [("FailedScheduling", "not this one")]


async def test_a_node_that_cannot_be_read_is_left_out(cluster: Cluster) -> None:
    node = cluster.registry.get(NODE, None, "n1")
    broken = {**node["status"], "allocatable": {"cpu": "much"}}
    cluster.registry.update_status(NODE, {**node, "status": broken})
    cluster.create("a")
    assert (await cluster.held("a"))["message"] == "no nodes available to schedule pods"
    healthy = cluster.registry.get(NODE, None, "n1")
    cluster.registry.update_status(NODE, {**healthy, "status": node["status"]})
    await cluster.bound("a")


async def test_a_gpu_is_given_to_one_pod_at_a_time(cluster: Cluster) -> None:
    for name in ("a", "b"):
        cluster.create(name, limits={"nvidia.com/gpu": 1})
    await cluster.bound("a")
    assert "1 Insufficient nvidia.com/gpu." in (await cluster.held("b"))["message"]
    assert cluster.pod("b")["spec"]["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] == 1


async def test_a_selector_that_no_node_matches_holds_the_pod(cluster: Cluster) -> None:
    cluster.create("a", nodeSelector={"kubernetes.io/hostname": "llmtune-node"})
    cluster.create("b", nodeSelector={"gpu": "big"})
    await cluster.bound("a")
    assert "didn't match Pod's node affinity/selector" in (await cluster.held("b"))["message"]


async def test_gates_and_other_schedulers_are_respected(cluster: Cluster) -> None:
    cluster.create("gated", schedulingGates=[{"name": "wait"}])
    cluster.create("foreign", schedulerName="volcano")
    condition = await cluster.held("gated")
    assert (condition["reason"], condition["message"]) == (
        "SchedulingGated",
        "Scheduling is blocked due to non-empty scheduling gates",
    )
    pod = cluster.pod("gated")
    pod["spec"]["schedulingGates"] = []
    cluster.registry.update(POD, pod)
    await cluster.bound("gated")
    assert "nodeName" not in cluster.pod("foreign")["spec"]


async def test_a_cordoned_node_takes_no_pods_until_it_is_uncordoned(cluster: Cluster) -> None:
    cluster.registry.update(NODE, {**cluster.registry.get(NODE, None, "n1"), "spec": {"unschedulable": True}})
    cluster.create("a")
    message = (await cluster.held("a"))["message"]
    assert message.startswith("0/1 nodes are available: 1 node(s) were unschedulable. ")
    cluster.registry.update(NODE, {**cluster.registry.get(NODE, None, "n1"), "spec": {}})
    await cluster.bound("a")


async def test_without_a_node_nothing_runs(cluster: Cluster) -> None:
    cluster.registry.delete(NODE, None, "n1")
    cluster.create("a")
    assert (await cluster.held("a"))["message"] == "no nodes available to schedule pods"


async def test_pods_that_were_bound_before_count(cluster: Cluster) -> None:
    cluster.create("fixed", cpu="3", nodeName="n1")
    cluster.create("late", cpu="2")
    await cluster.held("late")


async def test_a_pod_that_waits_is_deleted_at_once(cluster: Cluster) -> None:
    cluster.create("late", cpu="5")
    await cluster.held("late")
    cluster.registry.delete(POD, "default", "late")
    assert cluster.registry.find(POD, "default", "late") is None


async def test_changes_that_went_unseen_are_looked_up(cluster: Cluster) -> None:
    cluster.create("big", cpu="4")
    await cluster.bound("big")
    cluster.registry.delete(POD, "default", "big", grace_period_seconds=0)
    cluster.create("next", cpu="4")
    cluster.registry.store.compact()
    await cluster.bound("next")


def test_the_node_has_what_the_machine_has_unless_it_is_told() -> None:
    found = all_resources({})
    assert int(found["cpu"]) >= 1
    assert found["memory"].endswith("Ki")
    assert "nvidia.com/gpu" not in found
    assert all_resources({"cpu": "500m", "nvidia.com/gpu": "2"}) == {**found, "cpu": "500m", "nvidia.com/gpu": "2"}
    for quantity in ("4 cores", "-1"):
        with pytest.raises(ResourceError, match=r"node resource cpu: .* is no quantity such as 4, 500m or 8Gi"):
            all_resources({"cpu": quantity})
