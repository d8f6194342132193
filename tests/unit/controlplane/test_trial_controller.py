from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import CUSTOM_RESOURCE_DEFINITION, EVENT, JOB, POD, TRIAL, Kind
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.clock import Clock
from airflow_llmtune.controlplane.controllers.trial import TrialController, UnknownKindError
from airflow_llmtune.controlplane.controllers.trial_status import is_final_refusal
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
    assert sorted(world.events()) == [
        ("Normal", "JobCreated", "Job trial has been created"),
        ("Normal", "JobRunning", "Job trial is running"),
    ]


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


@pytest.mark.parametrize(
    ("code", "message", "is_final"),
    [
        (400, 'admission webhook "x" denied the request: no', True),
        (422, "Job.batch is invalid", True),
        (403, 'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: no', True),
        (403, 'jobs.batch "trial" is forbidden: exceeded quota', False),
        (404, 'namespaces "default" not found', False),
        (409, 'jobs.batch "trial" already exists', False),
        (500, "Internal error occurred", False),
    ],
)
def test_only_what_lies_in_the_job_itself_is_final(code: int, message: str, is_final: bool) -> None:
    assert is_final_refusal(code, message) is is_final


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


async def test_a_pushed_metric_that_never_came_is_stored_as_unavailable(world: World, conditions: Conditions) -> None:
    await world.start(metricsCollector={"collector": {"kind": "Push"}})
    world.end_job("Complete")
    trial = await world.settle()
    assert conditions(trial)[-1] == ("MetricsUnavailable", "True", "MetricsUnavailable")
    assert "observation" not in trial["status"]
    assert world.db_manager.get_observation_log("trial") == [MetricLog("0001-01-01T00:00:00Z", "loss", "unavailable")]


@pytest.mark.parametrize(
    ("found", "message"),
    [({"reason": "DeadlineExceeded", "message": "late"}, "late DeadlineExceeded"), ({}, "")],
)
async def test_the_event_of_a_failed_job_tells_why(world: World, found: dict[str, str], message: str) -> None:
    await world.start()
    world.end_job("Failed", **found)
    await world.settle()
    assert ("Normal", "JobFailed", f"Job trial has failed{'. ' + message if message else ''}") in world.events()


@pytest.mark.parametrize("selected", ["status.conditions.#.type", "status.numbers"])
async def test_a_condition_that_selects_no_object_says_nothing(
    world: World, conditions: Conditions, selected: str
) -> None:
    await world.start(successCondition=selected)
    job = world.registry.get(JOB, "default", "trial")
    found = [{"type": "Complete", "status": "True"}]
    world.registry.update_status(JOB, {**job, "status": {"conditions": found, "numbers": [1]}})
    assert conditions(await world.settle())[-1] == ("Running", "True", "TrialRunning")


WORKFLOW: Object = {
    "runSpec": {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "trial", "namespace": "default"},
        "spec": {"entrypoint": "main"},
    },
    "successCondition": 'status.[@this].#(phase=="Succeeded")#',
    "failureCondition": 'status.[@this].#(phase=="Failed")#',
}


def define_workflows(registry: Registry) -> Kind:
    """What Argo's own CustomResourceDefinition does."""
    names = {"plural": "workflows", "singular": "workflow", "kind": "Workflow", "listKind": "WorkflowList"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1alpha1", "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
    spec = {"group": "argoproj.io", "names": names, "scope": "Namespaced", "versions": [version]}
    registry.create(CUSTOM_RESOURCE_DEFINITION, {"metadata": {"name": "workflows.argoproj.io"}, "spec": spec})
    kind = registry.kinds.find("argoproj.io/v1alpha1", "Workflow")
    assert kind is not None
    return kind


@pytest.mark.parametrize(("phase", "state"), [("Succeeded", "Succeeded"), ("Failed", "Failed")])
async def test_a_trial_can_be_of_any_kind(world: World, conditions: Conditions, phase: str, state: str) -> None:
    workflow = define_workflows(world.registry)
    assert conditions(await world.start(**WORKFLOW))[-1] == ("Running", "True", "TrialRunning")
    assert world.delay is None, "the controller is told of changes of custom kinds"
    world.report("0.5")
    stored = world.registry.get(workflow, "default", "trial")
    assert stored["metadata"]["ownerReferences"][0]["kind"] == "Trial"
    world.registry.update_status(workflow, {**stored, "status": {"phase": phase, "message": "done"}})
    trial = await world.settle()
    assert conditions(trial)[-1] == (state, "True", f"Trial{state}")
    assert trial["status"]["conditions"][-1]["message"].endswith(". Job message: done")
    assert "deletionTimestamp" in world.registry.get(workflow, "default", "trial")["metadata"]


async def test_a_kind_that_is_not_there_is_waited_for(world: World, conditions: Conditions) -> None:
    with pytest.raises(
        UnknownKindError, match=re.escape('no matches for kind "Workflow" in version "argoproj.io/v1alpha1"')
    ):
        await world.start(**WORKFLOW)
    assert conditions(world.trial()) == [("Created", "True", "TrialCreated")]
    define_workflows(world.registry)
    assert conditions(await world.settle())[-1] == ("Running", "True", "TrialRunning")


async def test_a_bare_pod_can_be_a_trial(world: World, conditions: Conditions) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": RUN_SPEC["spec"]["template"]["spec"]}
    await world.start(**{**WORKFLOW, "runSpec": {**WORKFLOW["runSpec"], **pod}})
    assert world.delay == 1.0, "nobody tells the controller of changes of pods"
    world.report("0.5")
    stored = world.registry.get(POD, "default", "trial")
    world.registry.update_status(POD, {**stored, "status": {"phase": "Succeeded"}})
    assert conditions(await world.settle())[-1] == ("Succeeded", "True", "TrialSucceeded")
