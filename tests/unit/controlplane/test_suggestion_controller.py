from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_llmtune.controlplane.algorithms.library_warnings import unheard
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import DEPLOYMENT, EXPERIMENT, NAMESPACE, SUGGESTION, TRIAL
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers import suggestion_status
from airflow_llmtune.controlplane.controllers.suggestion import ShortfallError
from both_modes import both_modes
from objects import Object
from suggestion_world import World, algorithm, stepped

Conditions = Callable[[Object], list[tuple[str, str, str]]]


@pytest.fixture
def world(registry: Registry, clock: Clock, tmp_path: Path) -> World:
    return World(registry, clock, tmp_path)


async def test_exactly_as_many_sets_are_drawn_as_are_requested_in_total(world: World, experiment: Object) -> None:
    world.ask(experiment, 2)
    first = await world.settle()
    assert first["status"]["suggestionCount"] == len(first["status"]["suggestions"]) == 2
    world.request(3)
    second = (await world.settle())["status"]
    assert second["suggestionCount"] == 3
    assert second["suggestions"][:2] == first["status"]["suggestions"]
    version = world.registry.resource_version
    await world.settle()
    assert world.registry.resource_version == version


async def test_searches_that_wait_for_each_other_leave_threads_to_the_others(world: World, experiment: Object) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(3))
    world.ask(experiment, 1, algorithm=algorithm("sobol"))
    await world.settle()
    world.request(2)
    with unheard():
        draws = [asyncio.ensure_future(world.controller.reconcile("default", "exp")) for _ in range(4)]
        await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.to_thread(int), timeout=10)
    await asyncio.gather(*draws, return_exceptions=True)
    assert len(world.suggestions()) == 2


async def test_lowered_requests_take_nothing_away(world: World, experiment: Object) -> None:
    world.ask(experiment, 3)
    before = await world.settle()
    world.request(1)
    assert (await world.settle())["status"] == before["status"]


async def test_it_is_created_then_its_deployment_gets_ready_then_it_runs(
    world: World, experiment: Object, conditions: Conditions
) -> None:
    world.ask(experiment, 1)
    seen = []
    for _ in range(3):
        await world.controller.reconcile("default", "exp")
        seen.append(conditions(world.suggestion()))
    created = ("Created", "True", "SuggestionCreated")
    assert seen == [
        [created],
        [created, ("DeploymentReady", "False", "DeploymentNotReady")],
        [created, ("DeploymentReady", "True", "DeploymentReady"), ("Running", "True", "SuggestionRunning")],
    ]
    messages = [one["message"] for one in world.suggestion()["status"]["conditions"]]
    assert messages == ["Suggestion is created", "Deployment is ready", "Suggestion is running"]


async def test_a_restart_from_its_volume_makes_it_run_again(
    world: World, experiment: Object, conditions: Conditions
) -> None:
    world.ask(experiment, 1, resumePolicy="FromVolume")
    suggestion = await world.settle()
    suggestion_status.mark_succeeded(suggestion, "FromVolume", "2026-11-22T09:00:00Z")
    suggestion = world.registry.update_status(SUGGESTION, suggestion)
    await world.settle()
    suggestion = world.suggestion()
    suggestion_status.mark_restarting(suggestion, "2026-11-22T09:00:00Z")
    world.registry.update_status(SUGGESTION, suggestion)
    world.request(2)
    restarted = await world.settle()
    assert conditions(restarted) == [
        ("Created", "True", "SuggestionCreated"),
        ("DeploymentReady", "True", "DeploymentReady"),
        ("Running", "True", "SuggestionRunning"),
    ]
    assert restarted["status"]["suggestionCount"] == 2
    assert world.find(DEPLOYMENT, "exp-random") is not None


@both_modes("search-end-hangs")
async def test_a_space_with_too_few_points(
    registry: Registry, clock: Clock, tmp_path: Path, experiment: Object, conditions: Conditions, strict: bool
) -> None:
    world = World(registry, clock, tmp_path, strict=strict)
    space = {"list": ["a", "b"]}
    parameters = [{"name": "lr", "parameterType": "categorical", "feasibleSpace": space}]
    world.ask(experiment, 3, parameters=parameters, algorithm=algorithm("grid"), maxTrialCount=2)
    if not strict:
        ended = await world.settle()
        assert suggestion_status.search_ended(ended)
        assert (ended["status"]["suggestionCount"], ended["spec"]["requests"]) == (2, 3)
        return
    with pytest.raises(ShortfallError, match=r"^The response contains unexpected trials$"):
        await world.settle()
    # What was reached before the shortfall shows; only the parameter sets are missing.
    assert conditions(world.suggestion())[-1] == ("Running", "True", "SuggestionRunning")
    assert "suggestions" not in world.suggestion()["status"]


async def test_a_search_that_had_ended_goes_on_when_sets_were_dropped(world: World, experiment: Object) -> None:
    world.ask(experiment, 10, parameters=[stepped()], algorithm=algorithm("grid"), maxTrialCount=9)
    ended = await world.settle()
    assert suggestion_status.search_ended(ended)
    ended["status"]["suggestions"] = ended["status"]["suggestions"][:6]
    ended["status"]["suggestionCount"] = 6
    world.registry.update_status(SUGGESTION, ended)
    world.request(8)
    again = await world.settle()
    assert again["status"]["suggestionCount"] == 8
    assert not suggestion_status.search_ended(again)
    assert "algorithmSettings" not in again["status"]


async def test_a_suggestion_without_its_experiment_waits(registry: Registry, world: World) -> None:
    spec = {"algorithm": {"algorithmName": "random"}, "requests": 1}
    registry.create(SUGGESTION, {"metadata": {"name": "exp", "namespace": "default"}, "spec": spec})
    await world.controller.reconcile("default", "exp")
    assert "status" not in world.suggestion()


async def test_the_suggestion_of_an_earlier_experiment_does_nothing(world: World, experiment: Object) -> None:
    world.ask(experiment, 1)
    world.registry.delete(EXPERIMENT, "default", "exp")
    experiment["metadata"] = {"name": "exp", "namespace": "default"}
    world.registry.create(EXPERIMENT, experiment)
    assert "status" not in await world.settle()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"algorithm": algorithm("random", seed="1")},
            "ValidateAlgorithmSettings Error: unknown setting seed for algorithm random",
        ),
        (
            {"earlyStopping": algorithm("medianstop", start_step="0")},
            "ValidateEarlyStoppingSettings Error: start_step must be greater or equal than one (>=1)",
        ),
    ],
)
async def test_bad_settings_fail_it_with_the_reason(
    world: World, experiment: Object, change: Object, text: str
) -> None:
    world.ask(experiment, 1, **change)
    status = (await world.settle())["status"]
    failed = status["conditions"][-1]
    assert (failed["type"], failed["reason"]) == ("Failed", "SuggestionFailed")
    assert failed["message"] == f"Validation failed: {text}"
    assert "suggestions" not in status


async def test_a_broken_space_fails_it_with_the_reason(world: World, experiment: Object) -> None:
    experiment["spec"]["parameters"][0]["feasibleSpace"] = {"min": "9", "max": "1"}
    world.ask(experiment, 1)
    failed = (await world.settle())["status"]["conditions"][-1]
    assert (failed["type"], failed["reason"]) == ("Failed", "SuggestionFailed")
    assert "feasibleSpace.min 9 is greater than feasibleSpace.max 1" in failed["message"]


HYPERBAND = algorithm("hyperband", r_l="3", resource_name="lr", eta="3")


async def test_hyperband_waits_for_its_rung_shows_its_state_and_ends(world: World, experiment: Object) -> None:
    world.ask(experiment, 3, algorithm=HYPERBAND, parallelTrialCount=3, maxTrialCount=20)
    state = {one["name"]: one["value"] for one in (await world.settle())["status"]["algorithmSettings"]}
    assert (state["current_s"], state["current_i"], state["n"]) == ("1", "0", "3")
    first = world.suggestions()
    world.end_trial(first[0], "0.3")
    world.request(6)
    assert (await world.settle())["status"]["suggestionCount"] == 3
    for assignment, value in zip(first[1:], ("0.1", "0.2"), strict=True):
        world.end_trial(assignment, value)
    assert (await world.settle())["status"]["suggestionCount"] == 6
    budgets = [one["parameterAssignments"][0]["value"] for one in world.suggestions()]
    assert budgets == ["1", "1", "1", "3", "3", "3"]
    world.request(7)
    assert suggestion_status.search_ended(await world.settle())


@both_modes("hyperband-stops-at-the-second-rung")
async def test_a_rung_promotes_fewer_sets_than_are_requested(
    registry: Registry, clock: Clock, tmp_path: Path, experiment: Object, strict: bool
) -> None:
    world = World(registry, clock, tmp_path, strict=strict)
    world.ask(experiment, 3, algorithm=HYPERBAND, parallelTrialCount=3, maxTrialCount=20)
    await world.settle()
    for assignment in world.suggestions():
        world.end_trial(assignment, "0.3")
    world.request(9)
    if strict:
        with pytest.raises(ShortfallError):
            await world.settle()
    else:
        assert (await world.settle())["status"]["suggestionCount"] == 6


async def test_a_rung_waits_for_the_metrics_of_a_trial_that_was_stopped_early(world: World, experiment: Object) -> None:
    world.ask(experiment, 3, algorithm=HYPERBAND, parallelTrialCount=3, maxTrialCount=20)
    await world.settle()
    first = world.suggestions()
    world.end_trial(first[0], "none", state="EarlyStopped")
    for assignment in first[1:]:
        world.end_trial(assignment, "none", state="MetricsUnavailable")
    world.request(6)
    assert (await world.settle())["status"]["suggestionCount"] == 3
    trial = world.registry.get(TRIAL, "default", first[0]["name"])
    metric = {"name": "loss", "min": "0.5", "max": "0.5", "latest": "0.5"}
    trial["status"]["observation"] = {"metrics": [metric]}
    world.registry.update_status(TRIAL, trial)
    # Of the first rung only this one has a value; the next bracket follows its promotion.
    assert (await world.settle())["status"]["suggestionCount"] == 6
    budgets = [one["parameterAssignments"][0]["value"] for one in world.suggestions()]
    assert budgets == ["1", "1", "1", "3", "3", "3"]


async def test_the_end_of_a_trial_wakes_a_suggestion_that_has_given_too_little(
    world: World, experiment: Object
) -> None:
    world.ask(experiment, 3, algorithm=HYPERBAND, parallelTrialCount=3, maxTrialCount=20)
    await world.settle()
    world.end_trial(world.suggestions()[0], "0.3")
    (trial,) = world.registry.list(TRIAL, "default")[0]
    assert list(world.controller.keys_for(TRIAL, trial)) == []
    world.request(4)
    assert list(world.controller.keys_for(TRIAL, trial)) == [("default", "exp")]
    assert list(world.controller.keys_for(TRIAL, {"metadata": {"name": "t", "namespace": "default"}})) == []
    deployment = world.find(DEPLOYMENT, "exp-hyperband")
    assert deployment is not None
    assert list(world.controller.keys_for(DEPLOYMENT, deployment)) == [("default", "exp")]


@both_modes("namespaces-mixed")
async def test_trials_of_an_experiment_of_the_same_name_elsewhere(
    registry: Registry, clock: Clock, tmp_path: Path, experiment: Object, strict: bool
) -> None:
    world = World(registry, clock, tmp_path, strict=strict)
    registry.create(NAMESPACE, {"metadata": {"name": "other"}})
    world.ask(experiment, 1, parameters=[stepped()], algorithm=algorithm("grid"), maxTrialCount=9)
    await world.settle()
    foreign = [{"name": "lr", "value": f"0.{digit}"} for digit in range(1, 10)]
    own = world.suggestions()[0]["parameterAssignments"][0]["value"]
    for index, one in enumerate(one for one in foreign if one["value"] != own):
        world.end_trial({"name": f"exp-{index}", "parameterAssignments": [one]}, "0.5", namespace="other")
    world.request(2)
    if strict:
        # As if they were its own, no combination is left.
        with pytest.raises(ShortfallError):
            await world.settle()
    else:
        assert (await world.settle())["status"]["suggestionCount"] == 2


@both_modes("not-a-number-is-best")
async def test_an_objective_that_is_no_number_stalls_the_search(
    registry: Registry, clock: Clock, tmp_path: Path, experiment: Object, strict: bool
) -> None:
    world = World(registry, clock, tmp_path, strict=strict)
    world.ask(experiment, 1)
    await world.settle()
    world.end_trial(world.suggestions()[0], "")
    world.request(2)
    if strict:
        with pytest.raises(Exception, match="could not convert string to float: ''"):
            await world.settle()
    else:
        assert (await world.settle())["status"]["suggestionCount"] == 2


async def test_requests_that_grow_while_the_algorithm_is_at_work_do_not_undo_its_work(
    world: World, experiment: Object
) -> None:
    world.ask(experiment, 2)
    await world.settle()
    world.request(3)
    work = asyncio.create_task(world.controller.reconcile("default", "exp"))
    await asyncio.sleep(0)
    world.request(5)
    await work
    assert world.suggestion()["status"]["suggestionCount"] == 3
    assert (await world.settle())["status"]["suggestionCount"] == 5


async def test_requests_that_shrink_while_the_algorithm_is_at_work_do(world: World, experiment: Object) -> None:
    world.ask(experiment, 2)
    await world.settle()
    world.request(3)
    work = asyncio.create_task(world.controller.reconcile("default", "exp"))
    await asyncio.sleep(0)
    world.request(2)
    with pytest.raises(ApiError, match="the object has been modified"):
        await work
    assert (await world.settle())["status"]["suggestionCount"] == 2
