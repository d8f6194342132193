from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import EVENT, EXPERIMENT, SUGGESTION, TRIAL
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock, utc_now
from airflow_llmtune.controlplane.controllers import suggestion_workload
from airflow_llmtune.controlplane.controllers.conditions import has_condition
from airflow_llmtune.controlplane.controllers.experiment import ExperimentController
from airflow_llmtune.controlplane.controllers.experiment_status import trial_state
from airflow_llmtune.controlplane.controllers.runtime import Manager
from airflow_llmtune.controlplane.controllers.suggestion import SuggestionController
from airflow_llmtune.controlplane.controllers.trial_template import RenderError
from airflow_llmtune.controlplane.db_manager import DBManager
from objects import Object
from registries import settle
from waiting import eventually

Conditions = Callable[[Object], list[tuple[str, str, str]]]


class World:
    """The two controllers on a real registry; the test plays the Trial controller."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.registry = registry
        self.controllers = [
            ExperimentController(registry, clock),
            SuggestionController(registry, clock, DBManager(), Path("no volume is used")),
        ]

    async def settle(self) -> Object:
        await settle(self.registry, self._reconcile)
        return self.experiment()

    async def _reconcile(self) -> None:
        for controller in self.controllers:
            await controller.reconcile("default", "exp")
        for trial in self.trials():
            if "deletionTimestamp" in trial["metadata"]:
                trial["metadata"]["finalizers"] = []
                self.registry.update(TRIAL, trial)

    def experiment(self) -> Object:
        return self.registry.get(EXPERIMENT, "default", "exp")

    def suggestion(self) -> Object:
        return self.registry.get(SUGGESTION, "default", "exp")

    def trials(self) -> list[Object]:
        return self.registry.list(TRIAL, "default")[0]

    def mark(self, trial: Object, state: str, value: str = "0.5") -> None:
        status: Object = {"conditions": [{"type": state, "status": "True", "reason": state, "message": state}]}
        if state in {"Succeeded", "EarlyStopped"}:
            metric = {"name": "loss", "min": value, "max": value, "latest": value}
            status["observation"] = {"metrics": [metric]}
        self.registry.update_status(TRIAL, {**trial, "status": status})

    def end_all(self, state: str, value: str = "0.5") -> None:
        for trial in self.trials():
            if trial_state(trial) in {"Pending", "Running"}:
                self.mark(trial, state, value)


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


@pytest.fixture
def begin(world: World, experiment: Object) -> Callable[..., Object]:
    def create(**spec: Any) -> Object:
        experiment["spec"].update(spec)
        return world.registry.create(EXPERIMENT, experiment)

    return create


async def test_the_first_look_adds_the_finalizer_the_second_says_created(
    world: World, begin: Callable[..., Object], clock: Clock, conditions: Conditions
) -> None:
    begin()
    controller = ExperimentController(world.registry, clock)
    await controller.reconcile("default", "exp")
    assert world.experiment()["metadata"]["finalizers"] == ["update-prometheus-metrics"]
    assert "status" not in world.experiment()
    await controller.reconcile("default", "exp")
    status = world.experiment()["status"]
    assert conditions(world.experiment()) == [("Created", "True", "ExperimentCreated")]
    assert status["startTime"] == "2026-11-22T09:00:00Z"
    assert status["completionTime"] is None
    assert status["currentOptimalTrial"] == {"observation": {}}
    await controller.reconcile("default", "exp")
    assert world.suggestion()["spec"]["requests"] == 2


async def test_trials_are_rendered_labelled_and_owned(world: World, begin: Callable[..., Object]) -> None:
    begin()
    await world.settle()
    trial = world.trials()[0]
    value = trial["spec"]["parameterAssignments"][0]["value"]
    run_spec = trial["spec"]["runSpec"]
    container = run_spec["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["sh", "-c", f"echo loss={value}"]
    assert run_spec["metadata"] == {"name": trial["metadata"]["name"], "namespace": "default"}
    assert trial["metadata"]["labels"] == {"katib.kubeflow.org/experiment": "exp"}
    assert trial["metadata"]["ownerReferences"][0]["kind"] == "Experiment"
    assert trial["metadata"]["name"].startswith("exp-")
    assert set(trial["metadata"]["name"][4:]) <= set("bcdfghjklmnpqrstvwxz2456789")
    assert len(trial["metadata"]["name"]) == 12


async def test_a_finished_experiment_shows_lists_counters_optimum_and_ordered_conditions(
    world: World, begin: Callable[..., Object], conditions: Conditions
) -> None:
    begin()
    await world.settle()
    assert conditions(world.experiment())[-1] == ("Running", "True", "ExperimentRunning")
    world.end_all("Succeeded", "0.5")
    await world.settle()
    first, second = [trial for trial in world.trials() if trial_state(trial) == "Pending"]
    world.mark(first, "Succeeded", "0.25")
    world.mark(second, "Failed")
    status = (await world.settle())["status"]
    assert conditions(world.experiment()) == [
        ("Created", "True", "ExperimentCreated"),
        ("Running", "False", "ExperimentRunning"),
        ("Succeeded", "True", "ExperimentMaxTrialsReached"),
    ]
    assert status["completionTime"] == "2026-11-22T09:00:00Z"
    assert (status["trials"], status["trialsSucceeded"], status["trialsFailed"]) == (4, 3, 1)
    assert "trialsRunning" not in status
    assert "runningTrialList" not in status
    assert status["failedTrialList"] == [second["metadata"]["name"]]
    assert status["currentOptimalTrial"]["bestTrialName"] == first["metadata"]["name"]
    assert status["currentOptimalTrial"]["parameterAssignments"] == first["spec"]["parameterAssignments"]


async def test_the_suggestion_is_settled_when_the_experiment_is(
    world: World, begin: Callable[..., Object], conditions: Conditions
) -> None:
    begin(maxTrialCount=2)
    await world.settle()
    assert conditions(world.suggestion()) == [
        ("Created", "True", "SuggestionCreated"),
        ("DeploymentReady", "True", "DeploymentReady"),
        ("Running", "True", "SuggestionRunning"),
    ]
    world.end_all("Succeeded")
    await world.settle()
    assert conditions(world.suggestion()) == [
        ("Created", "True", "SuggestionCreated"),
        ("Running", "False", "Suggestion is succeeded"),
        ("DeploymentReady", "False", "Suggestion is succeeded"),
        ("Succeeded", "True", "Experiment is succeeded"),
    ]


@pytest.mark.parametrize(
    ("spec", "states", "expected"),
    [
        ({"objective": {"goal": 0.5}, "maxFailedTrialCount": 1}, ["Succeeded", "Failed"], "ExperimentGoalReached"),
        ({"maxFailedTrialCount": 1, "maxTrialCount": 2}, ["Failed", "Failed"], "ExperimentFailed"),
        ({"maxFailedTrialCount": 0}, ["MetricsUnavailable", "Running"], "ExperimentFailed"),
        ({"maxFailedTrialCount": 0, "maxTrialCount": 2}, ["Succeeded"] * 2, "ExperimentMaxTrialsReached"),
        ({"maxTrialCount": 2}, ["Failed", "Failed"], "ExperimentMaxTrialsReached"),
        ({"maxTrialCount": 2}, ["Killed", "EarlyStopped"], "ExperimentMaxTrialsReached"),
        ({"maxTrialCount": 2}, ["MetricsUnavailable"] * 2, "ExperimentMaxTrialsReached"),
    ],
)
async def test_goal_comes_before_failures_and_failures_before_the_budget(
    world: World, experiment: Object, spec: Object, states: list[str], expected: str
) -> None:
    objective = {**experiment["spec"]["objective"], **spec.pop("objective", {})}
    experiment["spec"].update(**spec, objective=objective)
    world.registry.create(EXPERIMENT, experiment)
    await world.settle()
    for trial, state in zip(world.trials(), states, strict=True):
        world.mark(trial, state)
    done = await world.settle()
    assert done["status"]["conditions"][-1]["reason"] == expected
    assert done["status"]["completionTime"]


async def test_a_deleted_trial_comes_back_with_the_same_parameters(world: World, begin: Callable[..., Object]) -> None:
    begin()
    await world.settle()
    trial = world.trials()[0]
    world.registry.delete(TRIAL, "default", trial["metadata"]["name"])
    await world.settle()
    again = world.registry.get(TRIAL, "default", trial["metadata"]["name"])
    assert again["spec"] == trial["spec"]
    assert again["metadata"]["uid"] != trial["metadata"]["uid"]
    assert len(world.trials()) == 2


async def test_nothing_is_taken_over_from_an_earlier_experiment(world: World, begin: Callable[..., Object]) -> None:
    begin()
    await world.settle()
    old = world.trials()
    world.registry.delete(EXPERIMENT, "default", "exp")
    await ExperimentController(world.registry, utc_now).reconcile("default", "exp")
    begin()
    assert "trials" not in (await world.settle())["status"]
    for trial in old:
        world.registry.delete(TRIAL, "default", trial["metadata"]["name"])
    suggestion_workload.remove(world.registry, world.registry.delete(SUGGESTION, "default", "exp"))
    assert (await world.settle())["status"]["trials"] == 2


async def test_lowering_the_parallelism_removes_trials_and_their_suggestions(
    world: World, begin: Callable[..., Object]
) -> None:
    stored = begin(parallelTrialCount=4)
    await world.settle()
    stored = world.experiment()
    stored["spec"]["parallelTrialCount"] = 1
    stored["spec"]["maxTrialCount"] = 5
    world.registry.update(EXPERIMENT, stored)
    await world.settle()
    assert len(world.trials()) == 1
    status = world.suggestion()["status"]
    assert status["suggestionCount"] == len(status["suggestions"]) == 1
    assert world.suggestion()["spec"]["requests"] == 1


async def test_invalid_settings_fail_the_suggestion_and_the_experiment(
    world: World, begin: Callable[..., Object], conditions: Conditions
) -> None:
    begin(algorithm={"algorithmName": "random", "algorithmSettings": [{"name": "seed", "value": "1"}]})
    failed = await world.settle()
    assert conditions(failed)[-1] == ("Failed", "True", "ExperimentFailed")
    assert failed["status"]["conditions"][-1]["message"] == "Suggestion has failed"
    assert failed["status"]["completionTime"]
    assert world.suggestion()["status"]["conditions"][-1]["message"] == (
        "Validation failed: ValidateAlgorithmSettings Error: unknown setting seed for algorithm random"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": {"algorithmName": "random", "algorithmSettings": [{"name": "random_state"}]}},
        {"algorithm": {"algorithmName": "random", "algorithmSettings": [{"value": "1"}]}},
        {"earlyStopping": {"algorithmName": "medianstop", "algorithmSettings": [{"name": "min_trials_required"}]}},
    ],
)
async def test_a_setting_without_a_name_or_a_value_is_an_invalid_one(
    world: World, begin: Callable[..., Object], conditions: Conditions, change: Object
) -> None:
    begin(**change)
    assert conditions(await world.settle())[-1] == ("Failed", "True", "ExperimentFailed")
    assert "Validation failed" in world.suggestion()["status"]["conditions"][-1]["message"]


async def test_an_unused_parameter_makes_every_trial_impossible(
    world: World, begin: Callable[..., Object], experiment: Object
) -> None:
    space = {"min": "1", "max": "2"}
    extra = {"name": "unused", "parameterType": "int", "feasibleSpace": space}
    begin(parameters=[*experiment["spec"]["parameters"], extra])
    with pytest.raises(RenderError, match="unable to find parameter from ParameterAssignment in TrialParameters"):
        await world.settle()


def reconcile_errors(registry: Registry) -> list[str]:
    return [one["message"] for one in registry.list(EVENT, "default")[0] if one["reason"] == "ReconcileError"]


async def test_what_keeps_trials_from_being_made_is_told_in_an_event(
    world: World, begin: Callable[..., Object], experiment: Object
) -> None:
    extra = {"name": "unused", "parameterType": "int", "feasibleSpace": {"min": "1", "max": "2"}}
    begin(parameters=[*experiment["spec"]["parameters"], extra])
    manager = asyncio.create_task(Manager(world.registry, world.controllers).run())
    errors = await eventually(lambda: reconcile_errors(world.registry))
    manager.cancel()
    await asyncio.gather(manager, return_exceptions=True)
    assert errors[0].startswith("Failed to reconcile: unable to find parameter from ParameterAssignment in TrialPar")


@pytest.mark.parametrize(("policy", "settled"), [("FromVolume", "Succeeded"), ("LongRunning", "Running")])
async def test_a_larger_budget_restarts_an_experiment_whose_policy_allows_it(
    world: World, begin: Callable[..., Object], conditions: Conditions, policy: str, settled: str
) -> None:
    begin(maxTrialCount=2, resumePolicy=policy)
    for budget in (3, 5):
        await world.settle()
        world.end_all("Succeeded")
        done = await world.settle()
        assert has_condition(world.suggestion(), settled)
        done["spec"]["maxTrialCount"] = budget
        world.registry.update(EXPERIMENT, done)
        again = await world.settle()
        assert again["status"]["completionTime"] == done["status"]["completionTime"], "it is not taken back"
        assert conditions(again) == [
            ("Created", "True", "ExperimentCreated"),
            ("Restarting", "True", "ExperimentRestarting"),
            ("Running", "True", "ExperimentRunning"),
        ]
    world.end_all("Succeeded")
    assert conditions(await world.settle()) == [
        ("Created", "True", "ExperimentCreated"),
        ("Restarting", "True", "ExperimentRestarting"),
        ("Running", "False", "ExperimentRunning"),
        ("Succeeded", "True", "ExperimentMaxTrialsReached"),
    ]
    assert len(world.trials()) == 5


async def test_what_an_earlier_search_has_told_ends_no_new_experiment(
    world: World, begin: Callable[..., Object], experiment: Object
) -> None:
    del experiment["spec"]["maxTrialCount"]
    parameter = {"name": "lr", "parameterType": "categorical", "feasibleSpace": {"list": ["a"]}}
    begin(parameters=[parameter], algorithm={"algorithmName": "grid"})
    await world.settle()
    world.end_all("Succeeded")
    done = await world.settle()
    assert done["status"]["conditions"][-1]["reason"] == "ExperimentSuggestionEndReached"
    world.registry.delete(EXPERIMENT, "default", "exp")
    await ExperimentController(world.registry, utc_now).reconcile("default", "exp")
    begin()
    assert [one["type"] for one in (await world.settle())["status"]["conditions"]] == ["Created"]


async def test_deletion_releases_the_finalizer(world: World, begin: Callable[..., Object]) -> None:
    begin()
    await world.settle()
    world.registry.delete(EXPERIMENT, "default", "exp")
    await ExperimentController(world.registry, utc_now).reconcile("default", "exp")
    assert world.registry.find(EXPERIMENT, "default", "exp") is None
