"""What may be changed of a Deployment beside its template: its size, a pause, its limits."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.deployment_revisions import REVISION, REVISION_HISTORY, annotate
from deployment_world import World
from objects import Object

Clock = Any

CAUTIOUS: Object = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


async def test_min_ready_seconds_hold_a_rollout_back(world: World, clock: Clock) -> None:
    world.create(replicas=2, minReadySeconds=30, strategy=CAUTIOUS)
    await world.settle()
    world.run_all()
    assert (await world.settle())["status"]["unavailableReplicas"] == 2
    clock.advance(30)
    assert (await world.settle())["status"]["availableReplicas"] == 2
    world.change_template("v2")
    await world.settle()
    world.run_all()
    await world.settle()
    assert world.sizes() == {"v1": 2, "v2": 1}
    delay = await world.replica_sets.reconcile("default", world.set_of("v2")["metadata"]["name"])
    assert delay == 30
    clock.advance(30)
    await world.settle()
    assert world.sizes() == {"v1": 1, "v2": 2}


async def test_another_min_ready_seconds_makes_no_new_replica_set(world: World) -> None:
    world.create()
    await world.roll_out()
    world.patch(minReadySeconds=5)
    await world.settle()
    assert [one["spec"]["minReadySeconds"] for one in world.sets()] == [5]


async def test_it_is_scaled_without_a_rollout(world: World) -> None:
    world.create(replicas=1)
    await world.roll_out()
    world.patch(replicas=3)
    done = await world.roll_out()
    assert (world.sizes(), done["status"]["availableReplicas"]) == ({"v1": 3}, 3)
    world.patch(replicas=0)
    done = await world.roll_out()
    assert world.pods() == []
    assert world.condition("Available")[0] == "True"
    assert "replicas" not in done["status"]


async def test_scaling_in_the_middle_of_a_rollout_is_shared(world: World) -> None:
    world.create(replicas=10, strategy={"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}})
    await world.roll_out()
    world.change_template("v2")
    await world.settle()
    assert world.sizes() == {"v1": 8, "v2": 5}
    world.patch(replicas=15)
    await world.reconcile()
    assert world.sizes() == {"v1": 11, "v2": 7}
    await world.roll_out()
    assert world.sizes() == {"v1": 0, "v2": 15}


async def test_a_paused_deployment_is_scaled_but_not_rolled_out(world: World) -> None:
    world.create(replicas=2)
    await world.roll_out()
    world.patch(paused=True, replicas=3)
    world.change_template("v2")
    await world.settle()
    assert world.sizes() == {"v1": 3}
    assert world.condition("Progressing") == ("Unknown", "DeploymentPaused", "Deployment is paused")
    assert world.delay is None
    world.patch(paused=False)
    await world.reconcile()
    assert world.condition("Progressing")[1] == "NewReplicaSetCreated"
    await world.roll_out()
    assert world.sizes() == {"v1": 0, "v2": 3}


async def test_a_pause_after_all_new_pods_are_available_still_ends_the_old_ones(world: World) -> None:
    world.create(replicas=3)
    await world.roll_out()
    world.change_template("v2")
    for _ in range(2):
        await world.settle()
        world.run_all()
    await world.settle()
    assert world.sizes() == {"v1": 1, "v2": 3}
    world.run_all()
    await world.settle_sets()
    world.patch(paused=True)
    await world.settle()
    assert world.sizes() == {"v1": 0, "v2": 3}


async def test_a_paused_deployment_without_pods_grows_on_its_latest_template(world: World) -> None:
    world.create(replicas=0)
    await world.settle()
    world.patch(paused=True, replicas=2)
    world.change_template("v2")
    await world.settle()
    assert world.sizes() == {"v1": 2}


async def test_the_list_of_earlier_revisions_does_not_grow_for_ever(world: World) -> None:
    world.create()
    await world.settle()
    (replica_set,) = world.sets()
    notes = replica_set["metadata"]["annotations"]
    notes |= {REVISION: "700", REVISION_HISTORY: ",".join(map(str, range(100, 600)))}
    annotate(world.deployment(), replica_set, 701)
    history = replica_set["metadata"]["annotations"][REVISION_HISTORY]
    assert len(history) <= 2000
    assert history.startswith("101,")
    assert history.endswith(",599,700")


async def test_a_pause_without_a_change_is_told_when_it_ends(world: World, clock: Clock) -> None:
    world.create(progressDeadlineSeconds=60)
    await world.settle()
    world.patch(paused=True)
    await world.settle()
    clock.advance(600)
    world.patch(paused=False)
    await world.settle()
    assert world.condition("Progressing") == ("Unknown", "DeploymentResumed", "Deployment is resumed")
    assert world.delay == 60


async def test_revisions_beyond_the_limit_go_the_earliest_first(world: World) -> None:
    world.create(revisionHistoryLimit=1)
    for version in ("v2", "v3", "v4"):
        await world.roll_out()
        world.change_template(version)
    await world.roll_out()
    assert world.sizes() == {"v3": 0, "v4": 1}


async def test_without_a_deadline_it_says_nothing_of_progress(world: World) -> None:
    no_limit = 2**31 - 1
    world.create(progressDeadlineSeconds=no_limit, revisionHistoryLimit=no_limit)
    await world.roll_out()
    world.change_template("v2")
    await world.roll_out()
    assert world.condition("Progressing") == ("", "", "")
    assert len(world.sets()) == 2
