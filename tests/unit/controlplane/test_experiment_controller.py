from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.apiserver.kinds import EXPERIMENT, NAMESPACE, SUGGESTION, TRIAL
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock, utc_now
from airflow_llmtune.controlplane.controllers.experiment import ExperimentController
from airflow_llmtune.controlplane.controllers.experiment_status import trial_state
from airflow_llmtune.controlplane.controllers.suggestion import SuggestionController
from airflow_llmtune.controlplane.controllers.trial_template import RenderError
from airflow_llmtune.controlplane.store import Store
from objects import Object
from registries import settle

Conditions = Callable[[Object], list[tuple[str, str, str]]]

ENDED = ("Succeeded", "Failed", "MetricsUnavailable", "EarlyStopped", "Killed")


class World:
    """The two controllers on a real registry; the test plays the Trial controller."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.registry = registry
        self._controllers = [ExperimentController(registry, clock), SuggestionController(registry, clock)]

    async def settle(self) -> Object:
        await settle(self.registry, self._reconcile)
        return self.experiment()

    async def _reconcile(self) -> None:
        for controller in self._controllers:
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
        status: Object = {"conditions": [{"type": state, "status": "True", "reason": state}]}
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


async def test_running_trials_are_still_counted_after_the_end(world: World, begin: Callable[..., Object]) -> None:
    begin(objective={"type": "minimize", "objectiveMetricName": "loss", "goal": 0.5})
    await world.settle()
    first, second = world.trials()
    world.mark(first, "Succeeded", "0.5")
    world.mark(second, "Running")
    done = await world.settle()
    assert done["status"]["trialsRunning"] == 1
    world.mark(world.registry.get(TRIAL, "default", second["metadata"]["name"]), "Succeeded", "0.1")
    late = await world.settle()
    assert late["status"]["currentOptimalTrial"]["bestTrialName"] == second["metadata"]["name"]
    assert late["status"]["conditions"] == done["status"]["conditions"]
    assert len(world.trials()) == 2


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
    world.registry.delete(SUGGESTION, "default", "exp")
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
    assert failed["status"]["completionTime"] is None
    assert world.suggestion()["status"]["conditions"][-1]["message"] == (
        "Validation failed: ValidateAlgorithmSettings Error: unknown setting seed for algorithm random"
    )


async def test_an_unused_parameter_makes_every_trial_impossible(
    world: World, begin: Callable[..., Object], experiment: Object
) -> None:
    space = {"min": "1", "max": "2"}
    extra = {"name": "unused", "parameterType": "int", "feasibleSpace": space}
    begin(parameters=[*experiment["spec"]["parameters"], extra])
    with pytest.raises(RenderError, match="unable to find parameter from ParameterAssignment in TrialParameters"):
        await world.settle()


async def test_a_larger_budget_restarts_an_experiment_whose_policy_allows_it(
    world: World, begin: Callable[..., Object], conditions: Conditions
) -> None:
    begin(maxTrialCount=2, resumePolicy="FromVolume")
    await world.settle()
    world.end_all("Succeeded")
    stored = await world.settle()
    stored["spec"]["maxTrialCount"] = 3
    world.registry.update(EXPERIMENT, stored)
    await world.settle()
    assert ("Restarting", "True", "ExperimentRestarting") in conditions(world.experiment())
    world.end_all("Succeeded")
    assert conditions(await world.settle()) == [
        ("Created", "True", "ExperimentCreated"),
        ("Restarting", "True", "ExperimentRestarting"),
        ("Running", "False", "ExperimentRunning"),
        ("Succeeded", "True", "ExperimentMaxTrialsReached"),
    ]
    assert len(world.trials()) == 3


async def test_deletion_releases_the_finalizer(world: World, begin: Callable[..., Object]) -> None:
    begin()
    await world.settle()
    world.registry.delete(EXPERIMENT, "default", "exp")
    await ExperimentController(world.registry, utc_now).reconcile("default", "exp")
    assert world.registry.find(EXPERIMENT, "default", "exp") is None


def _check_invariants(world: World, parallel: int, most: int) -> None:
    status = world.experiment().get("status", {})
    states = [trial_state(trial) for trial in world.trials()]
    active = sum(state in {"Pending", "Running"} for state in states)
    assert active <= parallel
    assert len(states) <= most
    counters = {name: value for name, value in status.items() if name.startswith("trial") and name != "trials"}
    assert sum(counters.values()) == status.get("trials", 0) == len(states)
    assert 0 not in counters.values()
    true = [one["type"] for one in status["conditions"] if one["status"] == "True"]
    assert sum(type_ in {"Running", "Succeeded", "Failed"} for type_ in true) == 1


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), parallel=st.integers(1, 4), extra=st.integers(0, 4), failures=st.none() | st.integers(0, 2))
def test_no_order_of_events_breaks_the_budget(
    experiment: Object, data: st.DataObject, parallel: int, extra: int, failures: int | None
) -> None:
    most = parallel + extra
    store = Store()
    registry = Registry(store, KatibAdmission(store), utc_now)
    labels = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
    registry.create(NAMESPACE, {"metadata": {"name": "default", "labels": labels}})
    world = World(registry, utc_now)
    wanted = copy.deepcopy(experiment)
    wanted["spec"].update(parallelTrialCount=parallel, maxTrialCount=most)
    if failures is not None:
        wanted["spec"]["maxFailedTrialCount"] = min(failures, most)
    registry.create(EXPERIMENT, wanted)

    async def play() -> Object:
        current = await world.settle()
        while not (current["status"]["completionTime"]):
            _check_invariants(world, parallel, most)
            open_trials = [one for one in world.trials() if trial_state(one) in {"Pending", "Running"}]
            trial = open_trials[data.draw(st.integers(0, len(open_trials) - 1))]
            state = data.draw(st.sampled_from((*ENDED, "Running")))
            world.mark(trial, state, data.draw(st.sampled_from(("1", "nan"))))
            current = await world.settle()
        _check_invariants(world, parallel, most)
        return current

    done = asyncio.run(asyncio.wait_for(play(), 60))
    if failures is None:
        assert done["status"]["conditions"][-1]["reason"] == "ExperimentMaxTrialsReached"
        assert done["status"]["trials"] == most
