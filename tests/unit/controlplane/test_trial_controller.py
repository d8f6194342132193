from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import EVENT, JOB, POD, TRIAL
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers.trial import TrialController
from airflow_llmtune.controlplane.controllers.trial_template import RenderError, render
from airflow_llmtune.controlplane.db_manager import DBManager, MetricLog
from objects import Object
from registries import settle

Conditions = Callable[[Object], list[tuple[str, str, str]]]

STAMP = "2026-11-22T09:00:00Z"
RUN_SPEC: Object = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "trial", "namespace": "default"},
    "spec": {
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "x", "command": ["a"]}],
            }
        }
    },
}
SPEC: Object = {
    "objective": {
        "type": "minimize",
        "objectiveMetricName": "loss",
        "metricStrategies": [{"name": "loss", "value": "min"}],
    },
    "runSpec": RUN_SPEC,
    "metricsCollector": {"collector": {"kind": "StdOut"}},
    "primaryContainerName": "main",
    "successCondition": 'status.conditions.#(type=="Complete")#|#(status=="True")#',
    "failureCondition": 'status.conditions.#(type=="Failed")#|#(status=="True")#',
}


class World:
    def __init__(self, registry: Registry, clock: Clock) -> None:
        self.registry = registry
        self.db_manager = DBManager()
        self.controller = TrialController(registry, self.db_manager, clock)
        self.delay: float | None = None

    async def settle(self) -> Object:
        self.delay = await settle(self.registry, lambda: self.controller.reconcile("default", "trial"))
        return self.trial()

    def trial(self) -> Object:
        return self.registry.get(TRIAL, "default", "trial")

    async def start(self, **spec: Any) -> Object:
        metadata = {"name": "trial", "namespace": "default"}
        self.registry.create(TRIAL, {"metadata": metadata, "spec": {**SPEC, **spec}})
        return await self.settle()

    def end_job(self, *types: str, reason: str = "", message: str = "") -> None:
        job = self.registry.get(JOB, "default", "trial")
        found = [{"type": one, "status": "True", "reason": reason, "message": message} for one in types]
        self.registry.update_status(JOB, {**job, "status": {"conditions": found}})

    def report(self, *values: str) -> None:
        self.db_manager.report_observation_log("trial", [MetricLog(STAMP, "loss", value) for value in values])

    def events(self) -> list[tuple[str, str, str]]:
        events = self.registry.list(EVENT, "default")[0]
        mine = [one for one in events if one["involvedObject"]["kind"] == "Trial"]
        return [(one["type"], one["reason"], one["message"]) for one in mine]


@pytest.fixture
def world(registry: Registry, clock: Clock) -> World:
    return World(registry, clock)


async def test_a_new_trial_creates_its_job_and_runs_at_once(world: World, conditions: Conditions) -> None:
    trial = await world.start()
    assert conditions(trial) == [("Created", "True", "TrialCreated"), ("Running", "True", "TrialRunning")]
    assert trial["status"]["completionTime"] is None
    assert trial["metadata"]["finalizers"] == ["clean-metrics-in-db"]
    job = world.registry.get(JOB, "default", "trial")
    assert job["metadata"]["ownerReferences"][0]["uid"] == trial["metadata"]["uid"]
    assert world.events() == [("Normal", "JobCreated", "Job trial has been created")]


async def test_a_succeeded_job_with_metrics_ends_the_trial_and_the_job(world: World, conditions: Conditions) -> None:
    await world.start()
    world.report("0.5", "0.25")
    world.end_job("SuccessCriteriaMet", "Complete", reason="CompletionsReached", message="Reached")
    trial = await world.settle()
    assert conditions(trial) == [
        ("Created", "True", "TrialCreated"),
        ("Running", "False", "TrialRunning"),
        ("Succeeded", "True", "TrialSucceeded. Job reason: CompletionsReached"),
    ]
    assert trial["status"]["conditions"][-1]["message"] == "Trial has succeeded. Job message: Reached"
    metric = {"name": "loss", "min": "0.25", "max": "0.5", "latest": "0.25"}
    assert trial["status"]["observation"] == {"metrics": [metric]}
    assert "deletionTimestamp" in world.registry.get(JOB, "default", "trial")["metadata"]
    assert ("Normal", "JobDeleted", "Job trial has been deleted") in world.events()


async def test_a_retained_job_stays(world: World) -> None:
    await world.start(retainRun=True)
    world.report("0.5")
    world.end_job("Complete")
    await world.settle()
    assert "deletionTimestamp" not in world.registry.get(JOB, "default", "trial")["metadata"]


async def test_the_failure_condition_is_asked_first(world: World, conditions: Conditions) -> None:
    await world.start()
    world.end_job("Complete", "Failed", reason="BackoffLimitExceeded", message="limit")
    trial = await world.settle()
    assert conditions(trial)[-1] == ("Failed", "True", "TrialFailed. Job reason: BackoffLimitExceeded")
    assert trial["status"]["conditions"][-1]["message"] == "Trial has failed. Job message: limit"
    assert "observation" not in trial["status"]
    assert trial["status"]["completionTime"]


@pytest.mark.parametrize("values", [[], [""], ["nan", "inf"], ["unavailable"]])
async def test_without_a_finite_objective_the_metrics_are_unavailable(
    world: World, conditions: Conditions, values: list[str]
) -> None:
    await world.start()
    world.report(*values)
    world.end_job("Complete")
    trial = await world.settle()
    assert conditions(trial)[-1] == ("MetricsUnavailable", "True", "MetricsUnavailable")
    metric = {"name": "loss", "min": "unavailable", "max": "unavailable", "latest": "unavailable"}
    assert trial["status"]["observation"] == {"metrics": [metric]}
    assert ("Warning", "MetricsUnavailable", "Metrics are not available for Job trial") in world.events()


async def test_a_collector_that_still_runs_is_waited_for(world: World, conditions: Conditions) -> None:
    await world.start()
    labels = {"katib.kubeflow.org/trial": "trial"}
    metadata = {"name": "pod", "namespace": "default", "labels": labels}
    containers = RUN_SPEC["spec"]["template"]["spec"]["containers"]
    pod = world.registry.create(POD, {"metadata": metadata, "spec": {"containers": containers}})
    world.end_job("Complete")
    assert conditions(await world.settle())[-1] == ("Running", "True", "TrialRunning")
    assert world.delay == 1.0
    world.registry.update_status(POD, {**pod, "status": {"phase": "Failed"}})
    assert conditions(await world.settle())[-1] == ("MetricsUnavailable", "True", "MetricsUnavailable")


async def test_a_deleted_job_of_a_live_trial_is_made_again(world: World) -> None:
    await world.start()
    old = world.registry.delete(JOB, "default", "trial")
    await world.settle()
    assert world.registry.get(JOB, "default", "trial")["metadata"]["uid"] != old["metadata"]["uid"]


async def test_the_job_of_an_earlier_trial_of_the_same_name_says_nothing_about_this_one(
    world: World, conditions: Conditions
) -> None:
    await world.start()
    world.end_job("Complete")
    world.registry.delete(TRIAL, "default", "trial")
    await world.controller.reconcile("default", "trial")
    assert conditions(await world.start()) == [("Created", "True", "TrialCreated")]
    world.registry.delete(JOB, "default", "trial")
    assert conditions(await world.settle())[-1] == ("Running", "True", "TrialRunning")


async def test_deleting_a_trial_forgets_its_metrics(world: World) -> None:
    await world.start()
    world.report("0.5")
    world.registry.delete(TRIAL, "default", "trial")
    await world.controller.reconcile("default", "trial")
    assert world.registry.find(TRIAL, "default", "trial") is None
    assert world.db_manager.get_observation_log("trial") == []


TEMPLATE: Object = {
    "trialSpec": {},
    "trialParameters": [
        {"name": "rate", "reference": "lr"},
        {"name": "who", "reference": "${trialSpec.Name}"},
        {"name": "team", "reference": "${trialSpec.Labels[team]}"},
    ],
}
TEXT = (
    '{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"labels": {"team": "red"}}, '
    '"args": ["${trialParameters.rate}", "${trialParameters.who}/${trialParameters.team}"]}'
)


def test_placeholders_are_replaced_as_text() -> None:
    job = render(TEMPLATE, TEXT, [{"name": "lr", "value": "0.1"}], "trial", "default")
    assert job["args"] == ["0.1", "trial/red"]
    assert job["metadata"] == {"labels": {"team": "red"}, "name": "trial", "namespace": "default"}


def test_a_yaml_template_can_turn_values_into_numbers() -> None:
    template = {"trialParameters": [{"name": "n", "reference": "n"}]}
    text = "spec:\n  parallelism: ${trialParameters.n}\n"
    assert render(template, text, [{"name": "n", "value": "2"}], "t", "d")["spec"] == {"parallelism": 2}


@pytest.mark.parametrize(
    ("assignments", "text"),
    [
        ([], "unable to find parameter: lr"),
        ([{"name": "lr", "value": "1"}, {"name": "x", "value": "1"}], "in TrialParameters"),
        ([{"name": "lr", "value": 'a"b'}], "unable to parse|not an object"),
    ],
)
def test_a_template_that_cannot_be_filled_is_an_error(assignments: list[dict[str, str]], text: str) -> None:
    with pytest.raises(RenderError, match=text):
        render(TEMPLATE, TEXT, assignments, "trial", "default")
