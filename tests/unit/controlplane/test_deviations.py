"""Katib's faults in both modes: shown when strict, repaired otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_llmtune.controlplane.apiserver.kinds import TRIAL
from airflow_llmtune.controlplane.controllers.conditions import has_condition
from airflow_llmtune.controlplane.deviations import DEVIATIONS
from both_modes import both_modes
from objects import Object
from simulation import Simulation

TESTS = Path(__file__).parents[2]

Begin = Callable[..., Simulation]
Conditions = Callable[[Object], list[tuple[str, str, str]]]


@pytest.fixture
def begin(tmp_path: Path, experiment: Object, strict: bool) -> Begin:
    def start(**spec: Any) -> Simulation:
        experiment["spec"]["objective"].update(spec.pop("objective", {}))
        experiment["spec"].update(spec)
        simulation = Simulation(tmp_path, strict=strict)
        simulation.create(experiment)
        return simulation

    return start


def state(simulation: Simulation, trial: Object) -> Object:
    return simulation.registry.get(TRIAL, "default", trial["metadata"]["name"])


def test_each_deviation_has_a_test_in_both_modes() -> None:
    marked = {
        name for path in TESTS.rglob("test_*.py") for name in re.findall(r'@both_modes\("(.+?)"\)', path.read_text())
    }
    assert marked == {deviation.id for deviation in DEVIATIONS}


@both_modes("not-a-number-is-best")
async def test_a_value_that_is_no_number(begin: Begin, strict: bool) -> None:
    simulation = begin()
    await simulation.settle()
    bad, good = simulation.trials()
    simulation.succeed(good, "0.5")
    simulation.succeed(bad, "0.9", "")
    await simulation.settle()
    observation = state(simulation, bad)["status"]["observation"]["metrics"][0]
    assert observation == {"name": "loss", "min": "0.9", "max": "0.9"} | ({} if strict else {"latest": "0.9"})


@both_modes("not-a-number-is-best")
async def test_a_trial_that_reports_no_number_at_all(begin: Begin, strict: bool, conditions: Conditions) -> None:
    simulation = begin()
    await simulation.settle()
    bad, good = simulation.trials()
    simulation.succeed(good, "0.5")
    simulation.succeed(bad, "")
    await simulation.settle(seconds=5)
    best = simulation.experiment()["status"]["currentOptimalTrial"]["bestTrialName"]
    if strict:
        assert conditions(state(simulation, bad))[-1][0] == "Succeeded"
        assert best == bad["metadata"]["name"]
        assert len(simulation.trials()) == 2, "the next suggestions cannot be made of such a value"
        assert any("float" in error for error in simulation.errors)
    else:
        assert conditions(state(simulation, bad))[-1][0] == "MetricsUnavailable"
        assert best == good["metadata"]["name"]
        assert len(simulation.trials()) == 4


@both_modes("not-a-number-is-best")
async def test_a_first_nan_is_never_displaced(begin: Begin, strict: bool) -> None:
    simulation = begin(objective={"goal": 0.1})
    await simulation.settle()
    first, second = sorted(simulation.trials(), key=lambda trial: trial["metadata"]["name"])
    simulation.succeed(first, "nan")
    simulation.succeed(second, "0.2")
    await simulation.settle()
    best = simulation.experiment()["status"]["currentOptimalTrial"]["bestTrialName"]
    assert best == (first if strict else second)["metadata"]["name"]


@both_modes("metrics-never-reported")
async def test_a_job_that_succeeds_without_metrics(begin: Begin, strict: bool, conditions: Conditions) -> None:
    simulation = begin()
    await simulation.settle()
    silent = simulation.trials()[0]
    simulation.succeed(silent)
    await simulation.settle(seconds=60)
    assert conditions(state(simulation, silent))[-1][0] == ("Running" if strict else "MetricsUnavailable")
    if strict:
        simulation.report(silent, ["0.5"])
        await simulation.settle()
        assert conditions(state(simulation, silent))[-1][0] == "Succeeded"


@both_modes("early-stopped-observation-lost")
async def test_the_metrics_of_an_early_stopped_trial(begin: Begin, strict: bool) -> None:
    simulation = begin(earlyStopping={"algorithmName": "medianstop"})
    await simulation.settle()
    stopped, other = simulation.trials()
    simulation.stop_early(stopped, "0.1")
    simulation.succeed(other, "0.5")
    await simulation.settle(seconds=10)
    assert simulation.job(stopped) is None
    assert ("observation" in state(simulation, stopped)["status"]) is not strict
    best = simulation.experiment()["status"]["currentOptimalTrial"]["bestTrialName"]
    assert best == (other if strict else stopped)["metadata"]["name"]
    assert len(simulation.trials()) == (3 if strict else 4), "a Trial without its metrics holds a new one back"


@both_modes("early-stopped-observation-lost")
async def test_a_retained_job_keeps_the_metrics_of_an_early_stopped_trial(
    begin: Begin, strict: bool, experiment: Object
) -> None:
    experiment["spec"]["trialTemplate"]["retain"] = True
    simulation = begin()
    await simulation.settle()
    stopped = simulation.trials()[0]
    simulation.stop_early(stopped, "0.1")
    simulation.end_job(stopped, "Complete")
    await simulation.settle()
    assert state(simulation, stopped)["status"]["observation"]["metrics"][0]["latest"] == "0.1"
    assert simulation.job(stopped) is not None
    assert simulation.experiment()["status"]["earlyStoppedTrialList"] == [stopped["metadata"]["name"]]


@both_modes("unavailable-not-counted")
async def test_trials_without_metrics_and_the_budget(begin: Begin, strict: bool, conditions: Conditions) -> None:
    simulation = begin(maxTrialCount=3, parallelTrialCount=2, maxFailedTrialCount=None)
    await simulation.settle()
    for _ in range(3):
        simulation.succeed(simulation.trials("Running")[0], "unavailable")
        await simulation.settle()
    status = simulation.experiment()["status"]
    assert conditions(simulation.experiment())[-1][2] == "ExperimentMaxTrialsReached"
    assert (status["trials"], status.get("trialsRunning", 0)) == ((4, 1) if strict else (3, 0))


@both_modes("deleted-trials-return-together")
async def test_several_deleted_trials(begin: Begin, strict: bool) -> None:
    simulation = begin(maxTrialCount=6)
    await simulation.settle()
    for trial in simulation.trials():
        simulation.succeed(trial, "0.5")
    await simulation.settle()
    for trial in simulation.trials("Succeeded"):
        simulation.registry.delete(TRIAL, "default", trial["metadata"]["name"])
    await simulation.settle()
    most: list[int] = []
    simulation.observe = lambda seen: most.append(seen["status"].get("trials", 0))
    simulation.succeed(simulation.trials("Running")[0], "0.5")
    await simulation.settle()
    assert max(most) == (4 if strict else 3)


@both_modes("only-trial-deleted")
async def test_the_only_trial_is_deleted(begin: Begin, strict: bool) -> None:
    simulation = begin(parallelTrialCount=1)
    await simulation.settle()
    name = simulation.trials()[0]["metadata"]["name"]
    simulation.registry.delete(TRIAL, "default", name)
    await simulation.settle(seconds=60)
    assert [trial["metadata"]["name"] for trial in simulation.trials()] == ([] if strict else [name])


@both_modes("leftovers-run-on")
@pytest.mark.parametrize("retain", [False, True])
async def test_what_runs_when_the_goal_is_reached(
    begin: Begin, strict: bool, retain: bool, experiment: Object, conditions: Conditions
) -> None:
    experiment["spec"]["trialTemplate"]["retain"] = retain
    simulation = begin(objective={"goal": 0.5})
    await simulation.settle()
    first, second = simulation.trials()
    simulation.succeed(first, "0.5")
    await simulation.settle()
    done = simulation.experiment()
    assert conditions(done)[-1][2] == "ExperimentGoalReached"
    left = state(simulation, second)
    if strict:
        assert done["status"]["trialsRunning"] == 1
        assert conditions(left)[-1][0] == "Running"
        simulation.succeed(second, "0.1")
        await simulation.settle()
        late = simulation.experiment()["status"]
        assert late["currentOptimalTrial"]["bestTrialName"] == second["metadata"]["name"]
        assert late["completionTime"] == done["status"]["completionTime"]
    else:
        assert done["status"]["killedTrialList"] == [second["metadata"]["name"]]
        assert done["status"]["trialsKilled"] == 1
        assert conditions(left)[-2:] == [("Running", "False", "TrialRunning"), ("Killed", "True", "TrialKilled")]
        assert left["status"]["completionTime"]
        assert simulation.job(second) is None


@both_modes("leftovers-run-on")
async def test_what_has_not_begun_when_too_much_has_failed(begin: Begin, strict: bool, conditions: Conditions) -> None:
    simulation = begin(maxFailedTrialCount=1, parallelTrialCount=3)
    await simulation.settle()
    failed, waiting, _ = simulation.trials()
    fresh = {name: value for name, value in state(simulation, waiting).items() if name != "status"}
    simulation.registry.update_status(TRIAL, fresh)
    simulation.end_job(failed, "Failed")
    await simulation.settle()
    assert conditions(simulation.experiment())[-1] == ("Failed", "True", "ExperimentFailed")
    assert conditions(state(simulation, waiting))[-1][0] == ("Running" if strict else "Killed")


@both_modes("suggestion-failed-without-completion-time")
async def test_an_experiment_whose_suggestion_fails(begin: Begin, strict: bool, conditions: Conditions) -> None:
    settings = [{"name": "seed", "value": "1"}]
    simulation = begin(algorithm={"algorithmName": "random", "algorithmSettings": settings})
    await simulation.settle()
    failed = simulation.experiment()
    assert conditions(failed)[-1] == ("Failed", "True", "ExperimentFailed")
    assert (failed["status"]["completionTime"] is None) is strict


@both_modes("completed-without-limit-restarts")
async def test_a_completed_experiment_without_a_limit(begin: Begin, strict: bool, conditions: Conditions) -> None:
    simulation = begin(objective={"goal": 0.5}, maxTrialCount=None)
    await simulation.settle()
    simulation.succeed(simulation.trials()[0], "0.5")
    await simulation.settle()
    types = [type_ for type_, _, _ in conditions(simulation.experiment())]
    assert types == ["Created", "Running", *(["Restarting"] if strict else []), "Succeeded"]


@both_modes("job-cannot-be-created")
async def test_a_job_that_the_server_refuses(begin: Begin, strict: bool, experiment: Object) -> None:
    experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["backoffLimit"] = -1
    simulation = begin(parallelTrialCount=1, maxFailedTrialCount=1)
    await simulation.settle()
    assert not simulation.trials("Failed"), "it may pass"
    await simulation.settle(seconds=10)
    refusal = simulation.errors[0]
    assert "spec.backoffLimit: Invalid value: -1" in refusal
    assert has_condition(simulation.experiment(), "Failed") is not strict
    (trial,) = simulation.trials()
    last = trial["status"]["conditions"][-1]
    assert last["reason"] == ("TrialCreated" if strict else "TrialFailed")
    assert strict or last["message"] == f"Trial has failed. Job message: {refusal}"
