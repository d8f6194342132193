from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import (
    DEPLOYMENT,
    PERSISTENT_VOLUME_CLAIM,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    SERVICE_ACCOUNT,
    SUGGESTION,
)
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers import suggestion_status
from airflow_llmtune.controlplane.controllers.runtime import owner_reference
from objects import Object, deployment
from suggestion_world import World, algorithm

Conditions = Callable[[Object], list[tuple[str, str, str]]]


def owned_deployment(owner: Object) -> Object:
    made = deployment("exp-random", "sleep", "60")
    made["metadata"]["ownerReferences"] = [owner]
    return made


@pytest.fixture
def world(registry: Registry, clock: Clock, tmp_path: Path) -> World:
    return World(registry, clock, tmp_path)


async def test_its_deployment_and_service_are_there_and_owned(world: World, experiment: Object) -> None:
    world.ask(experiment, 1)
    suggestion = await world.settle()
    deployment, service = world.find(DEPLOYMENT, "exp-random"), world.find(SERVICE, "exp-random")
    assert deployment is not None
    assert service is not None
    for one in (deployment, service):
        (owner,) = one["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Suggestion", suggestion["metadata"]["uid"], True)
    assert deployment["status"]["conditions"][0]["type"] == "Available"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert labels["katib.kubeflow.org/deployment"] == "exp-random"
    assert [(port["name"], port["port"]) for port in service["spec"]["ports"]] == [("suggestion-api", 6789)]
    assert world.find(PERSISTENT_VOLUME_CLAIM, "exp-random") is None
    assert world.find(ROLE, "exp-random") is None


async def test_a_deployment_that_was_deleted_comes_back(world: World, experiment: Object) -> None:
    world.ask(experiment, 1)
    await world.settle()
    world.registry.delete(DEPLOYMENT, "default", "exp-random")
    await world.settle()
    assert world.find(DEPLOYMENT, "exp-random") is not None


async def test_early_stopping_gets_rights_and_a_port(world: World, experiment: Object) -> None:
    world.ask(experiment, 1, earlyStopping=algorithm("medianstop"))
    await world.settle()
    for kind in (SERVICE_ACCOUNT, ROLE, ROLE_BINDING):
        found = world.find(kind, "exp-random")
        assert found is not None
        assert found["metadata"]["ownerReferences"][0]["kind"] == "Suggestion"
    service, deployment = world.find(SERVICE, "exp-random"), world.find(DEPLOYMENT, "exp-random")
    assert service is not None
    assert deployment is not None
    assert [port["port"] for port in service["spec"]["ports"]] == [6789, 6788]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "exp-random"
    assert [container["name"] for container in pod["containers"]] == ["suggestion", "early-stopping"]


async def test_what_an_earlier_suggestion_of_its_name_left_must_go_first(
    world: World, experiment: Object, conditions: Conditions
) -> None:
    earlier = owner_reference(SUGGESTION, {"metadata": {"name": "exp", "uid": "gone"}})
    world.registry.create(DEPLOYMENT, owned_deployment(earlier), "default")
    world.ask(experiment, 1)
    assert conditions(await world.settle())[-1] == ("DeploymentReady", "False", "DeploymentNotReady")
    world.registry.delete(DEPLOYMENT, "default", "exp-random")
    assert conditions(await world.settle())[-1] == ("Running", "True", "SuggestionRunning")


async def test_it_makes_do_with_the_deployment_of_another_and_leaves_it_alone(world: World, experiment: Object) -> None:
    other = owner_reference(SUGGESTION, {"metadata": {"name": "ex", "uid": "other"}})
    made = world.registry.create(DEPLOYMENT, owned_deployment(other), "default")
    available = {"conditions": [{"type": "Available", "status": "True"}]}
    world.registry.update_status(DEPLOYMENT, {**made, "status": available})
    world.ask(experiment, 1)
    suggestion = await world.settle()
    assert suggestion["status"]["suggestionCount"] == 1
    suggestion_status.mark_succeeded(suggestion, "Never", "2026-11-22T09:00:00Z")
    world.registry.update_status(SUGGESTION, suggestion)
    await world.settle()
    assert world.find(DEPLOYMENT, "exp-random") is not None


async def test_nothing_comes_back_while_it_is_being_deleted(world: World, experiment: Object) -> None:
    world.ask(experiment, 1)
    await world.settle()
    world.registry.delete(SUGGESTION, "default", "exp", propagation="Foreground")
    world.registry.delete(DEPLOYMENT, "default", "exp-random")
    await world.settle()
    assert world.find(DEPLOYMENT, "exp-random") is None


@pytest.mark.parametrize("policy", ["Never", "FromVolume"])
async def test_after_the_end_its_deployment_and_service_are_gone_and_its_volume_is_kept(
    world: World, experiment: Object, clock: Clock, policy: str
) -> None:
    world.ask(experiment, 1, resumePolicy=policy)
    suggestion = await world.settle()
    suggestion_status.mark_succeeded(suggestion, policy, "2026-11-22T09:00:00Z")
    world.registry.update_status(SUGGESTION, suggestion)
    await world.settle()
    assert world.find(DEPLOYMENT, "exp-random") is None
    assert world.find(SERVICE, "exp-random") is None
    claim = world.find(PERSISTENT_VOLUME_CLAIM, "exp-random")
    assert (claim is not None) == (policy == "FromVolume")
    if claim is not None:
        assert (claim["status"]["phase"], claim["status"]["capacity"]) == ("Bound", {"storage": "1Gi"})
        assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
