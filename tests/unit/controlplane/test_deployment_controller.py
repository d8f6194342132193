"""Rollouts on a real registry, with both controllers; the test plays the kubelet."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import DEPLOYMENT, NAMESPACE, POD, REPLICA_SET, SUGGESTION
from airflow_llmtune.controlplane.apiserver.patch import MERGE
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.deployment_revisions import (
    DESIRED_REPLICAS,
    HASH_LABEL,
    MAX_REPLICAS,
    REVISION,
    REVISION_HISTORY,
)
from airflow_llmtune.controlplane.controllers.runtime import owner_reference
from deployment_world import NAME, World
from objects import Object, deployment

Clock = Any

CAUTIOUS: Object = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


async def test_a_new_deployment_gets_a_replica_set_with_its_pods(world: World) -> None:
    world.create(replicas=3)
    made = await world.settle()
    (replica_set,) = world.sets()
    letters = replica_set["metadata"]["labels"][HASH_LABEL]
    assert replica_set["metadata"]["name"] == f"{NAME}-{letters}"
    assert replica_set["spec"]["selector"]["matchLabels"] == {"app": NAME, HASH_LABEL: letters}
    notes = replica_set["metadata"]["annotations"]
    assert (notes[REVISION], notes[DESIRED_REPLICAS], notes[MAX_REPLICAS]) == ("1", "3", "4")
    assert made["metadata"]["annotations"][REVISION] == "1"
    assert made["metadata"]["generation"] == 1
    pods = world.pods()
    assert len(pods) == 3
    assert all(pod["metadata"]["name"].startswith(f"{NAME}-{letters}-") for pod in pods)
    assert all(pod["metadata"]["labels"] == {"app": NAME, HASH_LABEL: letters} for pod in pods)
    assert all(pod["spec"]["restartPolicy"] == "Always" for pod in pods)
    assert made["status"] == made["status"] | {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "unavailableReplicas": 3,
    }
    assert "readyReplicas" not in made["status"]
    assert world.condition("Available") == (
        "False",
        "MinimumReplicasUnavailable",
        "Deployment does not have minimum availability.",
    )
    assert world.condition("Progressing") == (
        "True",
        "ReplicaSetUpdated",
        f'ReplicaSet "{NAME}-{letters}" is progressing.',
    )
    assert world.events("ScalingReplicaSet") == [f"Scaled up replica set {NAME}-v1 from 0 to 3"]


async def test_it_is_complete_when_all_its_pods_are_available(world: World) -> None:
    world.create(replicas=2)
    done = await world.roll_out()
    (replica_set,) = world.sets()
    name = replica_set["metadata"]["name"]
    assert done["status"] == done["status"] | {
        "replicas": 2,
        "updatedReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
    }
    assert "unavailableReplicas" not in done["status"]
    assert world.condition("Available")[:2] == ("True", "MinimumReplicasAvailable")
    assert world.condition("Progressing") == (
        "True",
        "NewReplicaSetAvailable",
        f'ReplicaSet "{name}" has successfully progressed.',
    )
    assert world.delay is None


async def test_a_new_template_replaces_the_pods_one_by_one_as_they_become_ready(world: World) -> None:
    world.create(replicas=3)
    await world.roll_out()
    world.change_template("v2")
    for sizes in ({"v1": 3, "v2": 1}, {"v1": 2, "v2": 2}, {"v1": 1, "v2": 3}, {"v1": 0, "v2": 3}):
        await world.settle()
        assert world.sizes() == sizes
        world.run_all()
    done = await world.settle()
    assert [len(world.active("v1")), len(world.active("v2"))] == [0, 3]
    assert world.condition("Progressing")[1] == "NewReplicaSetAvailable"
    assert done["metadata"]["annotations"][REVISION] == "2"
    assert world.events("ScalingReplicaSet") == [
        f"Scaled up replica set {NAME}-v1 from 0 to 3",
        f"Scaled up replica set {NAME}-v2 from 0 to 1",
        f"Scaled down replica set {NAME}-v1 from 3 to 2",
        f"Scaled up replica set {NAME}-v2 from 1 to 2",
        f"Scaled down replica set {NAME}-v1 from 2 to 1",
        f"Scaled up replica set {NAME}-v2 from 2 to 3",
        f"Scaled down replica set {NAME}-v1 from 1 to 0",
    ]


async def test_pods_that_never_become_ready_leave_the_old_ones_running(world: World, clock: Clock) -> None:
    world.create(replicas=2, strategy=CAUTIOUS, progressDeadlineSeconds=60)
    await world.roll_out()
    world.change_template("broken")
    await world.settle()
    assert world.sizes() == {"v1": 2, "broken": 1}
    assert world.delay == 60
    assert world.condition("Available")[0] == "True"
    clock.advance(59)
    await world.settle()
    assert world.condition("Progressing")[1] == "ReplicaSetUpdated"
    clock.advance(1)
    await world.settle()
    name = world.set_of("broken")["metadata"]["name"]
    wanted = ("False", "ProgressDeadlineExceeded", f'ReplicaSet "{name}" has timed out progressing.')
    assert world.condition("Progressing") == wanted
    assert world.delay is None
    assert world.sizes() == {"v1": 2, "broken": 1}


async def test_a_rollout_that_moves_after_its_deadline_goes_on(world: World, clock: Clock) -> None:
    world.create(progressDeadlineSeconds=60)
    await world.settle()
    clock.advance(61)
    await world.settle()
    assert world.condition("Progressing")[0] == "False"
    await world.roll_out()
    assert world.condition("Progressing")[:2] == ("True", "NewReplicaSetAvailable")


async def test_pods_that_fail_after_a_rollout_are_no_lack_of_progress(world: World, clock: Clock) -> None:
    world.create(progressDeadlineSeconds=60)
    await world.roll_out()
    world.set_ready(world.active()[0], ready=False)
    clock.advance(600)
    await world.settle()
    assert world.condition("Progressing")[1] == "NewReplicaSetAvailable"
    assert world.condition("Available")[0] == "False"


async def test_going_back_takes_the_replica_set_of_that_template_again(world: World) -> None:
    world.create(replicas=2)
    await world.roll_out()
    first = world.set_of("v1")["metadata"]["uid"]
    world.change_template("v2")
    await world.roll_out()
    world.change_template("v1")
    done = await world.roll_out()
    again = world.set_of("v1")["metadata"]
    assert again["uid"] == first
    assert (again["annotations"][REVISION], again["annotations"][REVISION_HISTORY]) == ("3", "1")
    assert done["metadata"]["annotations"][REVISION] == "3"
    assert world.sizes() == {"v1": 2, "v2": 0}
    assert world.condition("Progressing")[1] == "NewReplicaSetAvailable"


async def test_going_back_from_a_broken_template_keeps_all_old_pods(world: World) -> None:
    world.create(replicas=2, strategy=CAUTIOUS)
    await world.roll_out()
    before = {pod["metadata"]["uid"] for pod in world.active()}
    world.change_template("broken")
    await world.settle()
    world.change_template("v1")
    await world.settle()
    assert {pod["metadata"]["uid"] for pod in world.active()} == before
    assert world.condition("Progressing")[1] == "NewReplicaSetAvailable"


async def test_a_third_template_in_the_middle_of_a_rollout_ends_both_others(world: World) -> None:
    world.create(replicas=4)
    await world.roll_out()
    world.change_template("v2")
    await world.settle()
    world.change_template("v3")
    await world.settle()
    # What is not available makes room first.
    assert world.sizes()["v2"] == 0
    done = await world.roll_out()
    assert world.sizes() == {"v1": 0, "v2": 0, "v3": 4}
    assert done["metadata"]["annotations"][REVISION] == "3"


async def test_recreate_waits_until_the_old_processes_are_gone(world: World) -> None:
    world.create(replicas=2, strategy={"type": "Recreate"})
    await world.roll_out()
    world.change_template("v2")
    await world.settle()
    assert world.sizes() == {"v1": 0}
    (going, *_) = [pod for pod in world.pods() if "deletionTimestamp" in pod["metadata"]]
    assert list(world.deployments.keys_for(POD, going)) == [("default", NAME)]
    world.confirm_deletions()
    await world.settle()
    assert world.sizes() == {"v1": 0, "v2": 2}
    await world.roll_out()
    assert world.condition("Progressing")[1] == "NewReplicaSetAvailable"


async def test_pods_of_a_rolling_update_do_not_wake_their_deployment(world: World) -> None:
    world.create()
    await world.settle()
    assert list(world.deployments.keys_for(POD, world.pods()[0])) == []
    assert list(world.deployments.keys_for(POD, {"metadata": {"name": "x", "namespace": "default"}})) == []
    assert list(world.deployments.keys_for(REPLICA_SET, world.sets()[0])) == [("default", NAME)]


async def test_a_deployment_made_anew_takes_over_what_it_left(world: World) -> None:
    world.create(replicas=2)
    before = await world.roll_out()
    kept = {pod["metadata"]["uid"] for pod in world.pods()}
    for one in world.sets():
        world.registry.update(REPLICA_SET, one | {"metadata": one["metadata"] | {"ownerReferences": []}})
    world.registry.delete(DEPLOYMENT, "default", NAME)
    world.create(replicas=2)
    assert list(world.deployments.keys_for(REPLICA_SET, world.sets()[0])) == [("default", NAME)]
    after = await world.roll_out()
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert {pod["metadata"]["uid"] for pod in world.pods()} == kept
    assert world.condition("Progressing")[1] == "NewReplicaSetAvailable"


async def test_the_annotations_of_a_deployment_reach_its_new_replica_set(world: World) -> None:
    world.create()
    notes = {"kubernetes.io/change-cause": "first", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    world.registry.patch(DEPLOYMENT, "default", NAME, MERGE, {"metadata": {"annotations": notes}})
    await world.settle()
    found = world.sets()[0]["metadata"]["annotations"]
    assert found["kubernetes.io/change-cause"] == "first"
    assert "kubectl.kubernetes.io/last-applied-configuration" not in found


async def test_a_name_that_is_taken_is_made_anew(world: World) -> None:
    world.create()
    await world.reconcile()
    (taken,) = world.sets()
    labels = {"other": "x"}
    template = taken["spec"]["template"] | {"metadata": {"labels": labels}}
    world.registry.delete(REPLICA_SET, "default", taken["metadata"]["name"])
    spec = {"selector": {"matchLabels": labels}, "template": template}
    world.registry.create(REPLICA_SET, {"metadata": {"name": taken["metadata"]["name"]}, "spec": spec}, "default")
    await world.reconcile()
    assert world.deployment()["status"]["collisionCount"] == 1
    await world.reconcile()
    names = {one["metadata"]["name"] for one in world.sets()}
    assert len(names) == 2
    assert world.deployment()["status"]["collisionCount"] == 1


async def test_a_replica_set_that_is_refused_is_told(world: World) -> None:
    world.create()
    namespace = world.registry.get(NAMESPACE, None, "default")
    world.registry.update(NAMESPACE, namespace | {"metadata": namespace["metadata"] | {"finalizers": ["x/y"]}})
    world.registry.delete(NAMESPACE, None, "default")
    await world.reconcile()
    status, reason, message = world.condition("Progressing")
    assert (status, reason) == ("False", "ReplicaSetCreateError")
    assert message.startswith(f'Failed to create new replica set "{NAME}-')
    assert world.delay == 1.0


async def test_pods_that_are_refused_are_told(world: World) -> None:
    world.create()
    await world.reconcile()
    namespace = world.registry.get(NAMESPACE, None, "default")
    world.registry.update(NAMESPACE, namespace | {"metadata": namespace["metadata"] | {"finalizers": ["x/y"]}})
    world.registry.delete(NAMESPACE, None, "default")
    delay = await world.replica_sets.reconcile("default", world.sets()[0]["metadata"]["name"])
    assert delay == 1.0
    await world.reconcile()
    status, reason, message = world.condition("ReplicaFailure")
    assert (status, reason) == ("True", "FailedCreate")
    assert "because it is being terminated" in message
    assert world.events("FailedCreate")[0].startswith("Error creating: pods")


async def test_the_deployment_of_a_suggestion_is_left_alone(world: World) -> None:
    made = deployment(NAME, "serve", "v1")
    made["metadata"]["ownerReferences"] = [owner_reference(SUGGESTION, {"metadata": {"name": "s", "uid": "u"}})]
    world.registry.create(DEPLOYMENT, made, "default")
    await world.settle()
    assert world.sets() == []
    assert "status" not in world.deployment()


async def test_one_that_is_going_only_counts(world: World) -> None:
    world.create(replicas=2)
    await world.roll_out()
    world.registry.delete(DEPLOYMENT, "default", NAME, propagation="Foreground")
    world.patch(replicas=5)
    done = await world.settle()
    assert world.sizes() == {"v1": 2}
    assert done["status"]["observedGeneration"] == done["metadata"]["generation"]


async def test_one_that_is_going_is_not_looked_at_for_its_deadline(world: World, clock: Clock) -> None:
    world.create(progressDeadlineSeconds=60)
    await world.settle()
    assert world.delay == 60
    world.registry.delete(DEPLOYMENT, "default", NAME, propagation="Foreground")
    clock.advance(61)
    await world.settle()
    assert world.delay is None


async def test_a_changed_strategy_lets_a_scaled_rollout_go_on(world: World) -> None:
    world.create(replicas=4)
    await world.roll_out()
    world.change_template("v2")
    await world.settle()
    world.patch(replicas=5, strategy={"type": "Recreate", "rollingUpdate": None})
    await world.roll_out()
    assert world.sizes() == {"v1": 0, "v2": 5}


async def test_its_selector_stays(world: World) -> None:
    world.create()
    with pytest.raises(ApiError, match=r'spec\.selector: Invalid value: \{"matchLabels":.*field is immutable'):
        world.patch(selector={"matchLabels": {"more": "x"}})
