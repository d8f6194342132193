"""ReplicaSets on a real registry; the test plays the kubelet."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import EVENT, POD, REPLICA_SET
from airflow_llmtune.controlplane.apiserver.patch import MERGE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.runtime import is_controlled_by
from deployment_world import World
from objects import Object, deployment

Clock = Any

LABELS = {"app": "web"}


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


def create(world: World, name: str = "rs", **spec: Any) -> Object:
    wanted = deployment("web", "serve", "v1")["spec"] | spec
    return world.registry.create(REPLICA_SET, {"metadata": {"name": name}, "spec": wanted}, "default")


def pod(name: str, **metadata: Any) -> Object:
    container = {"name": "main", "image": "x", "command": ["serve", "other"]}
    made = {"name": name, "labels": LABELS, **metadata}
    return {"metadata": made, "spec": {"containers": [container]}}


def relabel(world: World, name: str, labels: Object) -> None:
    world.registry.patch(POD, "default", name, MERGE, {"metadata": {"labels": labels}})


def replica_set(world: World, name: str = "rs") -> Object:
    return world.registry.get(REPLICA_SET, "default", name)


async def test_it_has_as_many_pods_as_it_should(world: World) -> None:
    create(world, replicas=2)
    await world.settle_sets()
    assert replica_set(world)["status"] == {"replicas": 2, "fullyLabeledReplicas": 2, "observedGeneration": 1}
    world.run_all()
    await world.settle_sets()
    status = replica_set(world)["status"]
    assert (status["readyReplicas"], status["availableReplicas"]) == (2, 2)
    reasons = [one["reason"] for one in world.registry.list(EVENT, "default")[0]]
    assert reasons == ["SuccessfulCreate"] * 2


async def test_a_pod_that_ends_or_is_deleted_is_replaced(world: World) -> None:
    create(world, replicas=2)
    await world.settle_sets()
    failed, deleted = world.active()
    world.registry.update_status(POD, {**failed, "status": {"phase": "Failed"}})
    world.registry.delete(POD, "default", deleted["metadata"]["name"])
    await world.settle_sets()
    names = {one["metadata"]["name"] for one in world.active()}
    assert len(names) == 2
    assert not names & {failed["metadata"]["name"], deleted["metadata"]["name"]}


async def test_of_pods_that_have_failed_the_last_few_stay(world: World, clock: Clock) -> None:
    create(world)
    failed = []
    for _ in range(12):
        await world.settle_sets()
        (pod,) = world.active()
        failed.append(pod["metadata"]["name"])
        world.registry.update_status(POD, {**pod, "status": {"phase": "Failed", "reason": "Evicted"}})
        clock.advance(1)
    await world.settle_sets()
    world.confirm_deletions()
    (active,) = world.active()
    assert {one["metadata"]["name"] for one in world.pods()} == {*failed[2:], active["metadata"]["name"]}


async def test_a_large_one_is_made_in_portions(world: World) -> None:
    create(world, replicas=45)
    for made in (20, 40, 45):
        await world.reconcile_set("rs")
        assert len(world.active()) == made
    world.registry.patch(REPLICA_SET, "default", "rs", MERGE, {"spec": {"replicas": 0}})
    await world.settle_sets()
    assert world.active() == []
    assert replica_set(world)["status"] == {"replicas": 0, "observedGeneration": 2}


async def test_those_that_are_not_ready_go_first(world: World) -> None:
    create(world, replicas=3)
    await world.settle_sets()
    for one in world.active()[1:]:
        world.set_ready(one)
    kept = {one["metadata"]["name"] for one in world.active()[1:]}
    world.registry.patch(REPLICA_SET, "default", "rs", MERGE, {"spec": {"replicas": 2}})
    await world.settle_sets()
    assert {one["metadata"]["name"] for one in world.active()} == kept


async def test_it_takes_in_pods_without_a_controller_that_it_selects(world: World) -> None:
    create(world, replicas=1)
    world.registry.create(POD, pod("orphan"), "default")
    world.registry.create(POD, pod("other", labels={"app": "else"}), "default")
    assert list(world.replica_sets.keys_for(POD, world.pods()[0])) == [("default", "rs")]
    await world.settle_sets()
    assert {one["metadata"]["name"] for one in world.active()} == {"orphan", "other"}
    orphan = world.registry.get(POD, "default", "orphan")
    assert is_controlled_by(orphan, replica_set(world))
    assert replica_set(world)["status"]["replicas"] == 1


async def test_it_lets_go_what_it_does_not_select_any_more(world: World) -> None:
    create(world, replicas=1)
    await world.settle_sets()
    (one,) = world.active()
    name = one["metadata"]["name"]
    assert list(world.replica_sets.keys_for(POD, one)) == [("default", "rs")]
    relabel(world, name, {"app": "debug"})
    await world.settle_sets()
    assert len(world.active()) == 2
    assert "ownerReferences" not in world.registry.get(POD, "default", name)["metadata"]


async def test_pods_of_others_and_those_that_are_going_stay_where_they_are(world: World) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "u", "controller": True}
    world.registry.create(POD, pod("theirs", ownerReferences=[owner]), "default")
    going = pod("going", finalizers=["x/y"])
    world.registry.create(POD, going, "default")
    world.registry.delete(POD, "default", "going")
    create(world, replicas=1)
    await world.settle_sets()
    assert replica_set(world)["status"]["replicas"] == 1
    assert "ownerReferences" not in world.registry.get(POD, "default", "going")["metadata"]


async def test_one_that_is_going_makes_and_takes_no_pods(world: World) -> None:
    create(world, replicas=1)
    await world.settle_sets()
    world.registry.create(POD, pod("orphan"), "default")
    world.registry.delete(REPLICA_SET, "default", "rs", propagation="Foreground")
    for one in world.active():
        world.registry.delete(POD, "default", one["metadata"]["name"])
    await world.settle_sets()
    assert replica_set(world)["status"]["replicas"] == 0
    assert len(world.pods()) == 1


async def test_a_pod_is_available_when_it_has_been_ready_for_long_enough(world: World, clock: Clock) -> None:
    create(world, replicas=1, minReadySeconds=10)
    await world.settle_sets()
    clock.advance(5)
    world.run_all()
    assert await world.replica_sets.reconcile("default", "rs") == 10
    assert "availableReplicas" not in replica_set(world)["status"]
    clock.advance(10)
    assert await world.replica_sets.reconcile("default", "rs") is None
    assert replica_set(world)["status"]["availableReplicas"] == 1


async def test_one_that_is_gone_is_nothing_to_do(world: World) -> None:
    assert await world.replica_sets.reconcile("default", "rs") is None
