from __future__ import annotations

from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import EXPERIMENT, SUGGESTION
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers.suggestion import ShortfallError, SuggestionController
from objects import Object


@pytest.fixture
def controller(registry: Registry, clock: Clock) -> SuggestionController:
    return SuggestionController(registry, clock)


def ask(registry: Registry, experiment: Object, requests: int, **spec: Any) -> None:
    experiment["spec"].update(spec)
    stored = registry.create(EXPERIMENT, experiment)
    body = {"algorithm": stored["spec"]["algorithm"], "requests": requests}
    metadata = {"name": "exp", "namespace": "default"}
    registry.create(SUGGESTION, {"metadata": metadata, "spec": body})


async def test_exactly_as_many_sets_are_drawn_as_are_requested_in_total(
    registry: Registry, controller: SuggestionController, experiment: Object
) -> None:
    ask(registry, experiment, 2)
    await controller.reconcile("default", "exp")
    first = registry.get(SUGGESTION, "default", "exp")
    assert first["status"]["suggestionCount"] == len(first["status"]["suggestions"]) == 2
    first["spec"]["requests"] = 3
    registry.update(SUGGESTION, first)
    await controller.reconcile("default", "exp")
    second = registry.get(SUGGESTION, "default", "exp")["status"]
    assert second["suggestionCount"] == 3
    assert second["suggestions"][:2] == first["status"]["suggestions"]
    version = registry.resource_version
    await controller.reconcile("default", "exp")
    assert registry.resource_version == version


async def test_a_space_with_too_few_points_never_gives_less_than_asked_for(
    registry: Registry, controller: SuggestionController, experiment: Object
) -> None:
    space = {"list": ["a", "b"]}
    parameters = [{"name": "lr", "parameterType": "categorical", "feasibleSpace": space}]
    algorithm = {"algorithmName": "grid"}
    ask(registry, experiment, 3, parameters=parameters, algorithm=algorithm, maxTrialCount=2)
    with pytest.raises(ShortfallError, match="The response contains unexpected trials"):
        await controller.reconcile("default", "exp")


async def test_a_suggestion_without_its_experiment_waits(registry: Registry, controller: SuggestionController) -> None:
    spec = {"algorithm": {"algorithmName": "random"}, "requests": 1}
    registry.create(SUGGESTION, {"metadata": {"name": "exp", "namespace": "default"}, "spec": spec})
    await controller.reconcile("default", "exp")
    assert "status" not in registry.get(SUGGESTION, "default", "exp")


async def test_a_broken_space_fails_it_with_the_reason(
    registry: Registry, controller: SuggestionController, experiment: Object
) -> None:
    experiment["spec"]["parameters"][0]["feasibleSpace"] = {"min": "9", "max": "1"}
    ask(registry, experiment, 1)
    await controller.reconcile("default", "exp")
    failed = registry.get(SUGGESTION, "default", "exp")["status"]["conditions"][-1]
    assert (failed["type"], failed["reason"]) == ("Failed", "SuggestionFailed")
    assert "feasibleSpace.min 9 is greater than feasibleSpace.max 1" in failed["message"]


async def test_an_experiment_without_parameters_fails_instead_of_waiting(
    registry: Registry, controller: SuggestionController, experiment: Object
) -> None:
    del experiment["spec"]["parameters"]
    experiment["spec"]["trialTemplate"]["trialParameters"][0]["reference"] = "${trialSpec.Name}"
    ask(registry, experiment, 1, nasConfig={"graphConfig": {"numLayers": 1}})
    await controller.reconcile("default", "exp")
    failed = registry.get(SUGGESTION, "default", "exp")["status"]["conditions"][-1]
    assert failed["reason"] == "SuggestionFailed"
    assert "there are no parameters to search" in failed["message"]
