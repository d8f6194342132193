"""Random Experiments against the real admission and controllers.

More cases than usual: ``pytest tests/unit/controlplane/test_experiment_properties.py --hypothesis-profile=thorough``.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_llmtune.controlplane.admission import KatibAdmission
from airflow_llmtune.controlplane.apiserver.errors import ApiError
from airflow_llmtune.controlplane.apiserver.kinds import CONFIG_MAP, EXPERIMENT, NAMESPACE, TRIAL
from airflow_llmtune.controlplane.apiserver.registry import Registry
from airflow_llmtune.controlplane.controllers.conditions import has_condition
from airflow_llmtune.controlplane.controllers.experiment_status import is_restartable
from airflow_llmtune.controlplane.controllers.shipped_runtimes import ship_runtimes
from airflow_llmtune.controlplane.store import Store
from experiments import CONFIG_MAP_WITH_TEMPLATES, experiments, mutated_experiments
from objects import Object
from refusal import DENIED, Refusal
from refusals import REFUSALS
from script import Script, choices
from simulation import Simulation

# The thorough profile takes minutes.
pytestmark = pytest.mark.timeout(1800)

COUNTERS = {
    "runningTrialList": "trialsRunning",
    "pendingTrialList": "trialsPending",
    "failedTrialList": "trialsFailed",
    "succeededTrialList": "trialsSucceeded",
    "killedTrialList": "trialsKilled",
    "earlyStoppedTrialList": "trialsEarlyStopped",
    "metricsUnavailableTrialList": "trialMetricsUnavailable",
}
ORDER = ("Created", "Running", "Restarting", "Succeeded", "Failed")
STALLS = ("could not convert string to float", "The response contains unexpected trials", "which Optuna has not")
"""What keeps a strict search from going on."""

WAITS = ("no matches for kind", "unable to find parameter from ParameterAssignment in TrialParameters")
"""What keeps an Experiment waiting in both modes: the job's kind may yet come, and Katib takes a parameter that the
template does not use.
"""

LONGEST_LIFE = 80
"""Steps in which every Experiment must have ended; each step ends at least one Trial."""

LONG_ENOUGH_TO_GIVE_UP = 6.0
"""Seconds in which a Trial whose job is refused has ended."""


def cases(usual: int) -> settings:
    """The same cases at each run, or ten times as many and others each time."""
    thorough = settings.get_current_profile_name() == "thorough"
    return settings(
        max_examples=usual * 10 if thorough else usual,
        derandomize=not thorough,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


class Witness:
    """Sees every version of the Experiment that a watch shows, and what must hold in each."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self.simulation: Simulation | None = None
        self.values: dict[str, list[str]] = {}
        """By the Trial's uid: one that comes back has the same name."""
        self.seen = 0
        self.has_deleted = False
        self._last: Object = {}
        self._allowed = 0

    def __call__(self, experiment: Object) -> None:
        status = experiment.get("status")
        if not status:
            return
        self.seen += 1
        self._check_counters(status)
        self._check_conditions(status)
        self._check_parallelism(experiment, status)
        if not self._strict:
            assert status.get("trials", 0) <= experiment["spec"].get("maxTrialCount", math.inf)
        if not self._strict and status != self._last:
            self._check_end(experiment, status)
            self._check_optimum(experiment, status)
        self._last = status

    def _check_counters(self, status: Object) -> None:
        names = list(itertools.chain.from_iterable(status.get(field, ()) for field in COUNTERS))
        assert len(names) == len(set(names)) == status.get("trials", 0)
        for field, counter in COUNTERS.items():
            assert len(status.get(field, ())) == status.get(counter, 0)
            assert status.get(counter) != 0
            assert status.get(field) != []

    def _check_parallelism(self, experiment: Object, status: Object) -> None:
        if self._strict and self.has_deleted:
            return  # All that were deleted come back at once.
        spec = experiment["spec"]
        active = status.get("trialsRunning", 0) + status.get("trialsPending", 0)
        # After the parallelism was lowered, what is too much goes at the next look.
        self._allowed = spec["parallelTrialCount"] if active <= spec["parallelTrialCount"] else self._allowed
        assert active <= self._allowed

    def _check_conditions(self, status: Object) -> None:
        conditions = status["conditions"]
        types = [condition["type"] for condition in conditions]
        assert types[0] == "Created"
        assert len(types) == len(set(types))
        assert set(types) <= set(ORDER)
        times = [condition["lastUpdateTime"] for condition in conditions]
        assert times == sorted(times)
        assert all(condition["lastTransitionTime"] <= condition["lastUpdateTime"] for condition in conditions)
        true = [condition["type"] for condition in conditions if condition["status"] == "True"]
        current = set(true) & {"Running", "Succeeded", "Failed"}
        assert len(current) == 1 or true in (["Created"], ["Created", "Restarting"])
        assert current != {"Succeeded"} or types[-1] == "Succeeded"
        assert "lastReconcileTime" not in status

    def _check_end(self, experiment: Object, status: Object) -> None:
        assert self.simulation is not None
        ended, restarted = is_completed(experiment), has_condition(experiment, "Restarting")
        assert (status["completionTime"] is not None) >= ended
        assert ended or restarted or status["completionTime"] is None
        if not ended:
            return
        assert not is_completed({"status": self._last}), "what is completed does not change"
        assert not {"trialsRunning", "trialsPending"} & status.keys()
        suggestion = self.simulation.suggestion()
        if experiment["spec"]["resumePolicy"] != "LongRunning" and suggestion is not None:
            assert has_condition(suggestion, "Succeeded") or has_condition(suggestion, "Failed")

    def _check_optimum(self, experiment: Object, status: Object) -> None:
        """By what was reported, not by what the controllers made of it."""
        assert self.simulation is not None
        objective = experiment["spec"]["objective"]
        trials = [trial for trial in self.simulation.trials() if "observation" in trial.get("status", {})]
        numbers = {
            trial["metadata"]["name"]: expected_value(self.values.get(trial["metadata"]["uid"], ()), objective)
            for trial in trials
        }
        finite = {name: number for name, number in numbers.items() if number is not None}
        optimum = status["currentOptimalTrial"]
        if not finite:
            assert optimum == self._last.get("currentOptimalTrial", {"observation": {}})
            return
        best = (min if objective["type"] == "minimize" else max)(finite.values())
        name = optimum["bestTrialName"]
        assert finite[name] == best
        winner = next(trial for trial in trials if trial["metadata"]["name"] == name)
        assert optimum["parameterAssignments"] == winner["spec"]["parameterAssignments"]
        assert optimum["observation"] == winner["status"]["observation"]


def is_completed(experiment: Object) -> bool:
    return has_condition(experiment, "Succeeded") or has_condition(experiment, "Failed")


def expected_value(values: Sequence[str], objective: Object) -> float | None:
    numbers = [float(value) for value in values if value not in {"", "nan", "inf", "unavailable"}]
    if not numbers:
        return None
    default = "min" if objective["type"] == "minimize" else "max"
    strategy = next((one["value"] for one in objective.get("metricStrategies", ()) if one["name"] == "loss"), default)
    return numbers[-1] if strategy == "latest" else (min if strategy == "min" else max)(numbers)


VALUES = (("0.5",), ("0.75", "0.25"), ("-1",), ("nan",), ("",), ("inf", "1"), ("0.5", ""), ("1e-05",), ())


def end_trial(simulation: Simulation, witness: Witness, script: Script) -> None:
    open_trials = simulation.trials("Running")
    if not open_trials:
        return
    trial = script.pick(open_trials)
    uid, outcome = trial["metadata"]["uid"], script.pick(("succeed", "succeed", "succeed", "fail", "stop early"))
    if outcome == "fail":
        simulation.end_job(trial, "Failed", "BackoffLimitExceeded")
        return
    values = script.pick(VALUES)
    witness.values[uid] = [*witness.values.get(uid, []), *values]
    (simulation.succeed if outcome == "succeed" else simulation.stop_early)(trial, *values)


def disturb(simulation: Simulation, witness: Witness, script: Script) -> None:
    """What a user may do in between; most of the time nothing."""
    match script.pick((None, None, None, None, "trial", "job", "edit")):
        case "trial" if simulation.trials():
            name = script.pick(simulation.trials())["metadata"]["name"]
            witness.has_deleted = True
            simulation.registry.delete(TRIAL, "default", name)
        case "job" if simulation.trials("Running"):
            simulation.delete_job(script.pick(simulation.trials("Running")))
        case "edit":
            edit(simulation, script)


def edit(simulation: Simulation, script: Script) -> None:
    experiment = simulation.experiment()
    trials = experiment.get("status", {}).get("trials", 0)
    most = max(trials + 1, experiment["spec"].get("maxTrialCount", trials) + script.pick((0, 1, 2)))
    failed = experiment["spec"].get("maxFailedTrialCount")
    changed = {"parallelTrialCount": 1 + script.pick(range(min(most, 4))), "maxTrialCount": most}
    if failed is not None:
        changed["maxFailedTrialCount"] = min(failed + script.pick((0, 1)), most)
    is_changed = any(experiment["spec"].get(name) != value for name, value in changed.items())
    if is_changed and is_completed(experiment) and not is_restartable(experiment):
        with pytest.raises(ApiError, match="Experiment can be restarted if"):
            simulation.edit(**changed)
    else:
        simulation.edit(**changed)


def world(volumes: Path, witness: Witness, *, strict: bool = False, seed: int = 0) -> Simulation:
    simulation = witness.simulation = Simulation(volumes, strict=strict, seed=seed, observe=witness)
    simulation.registry.create(CONFIG_MAP, CONFIG_MAP_WITH_TEMPLATES)
    ship_runtimes(simulation.registry)
    return simulation


async def live(
    experiment: Object, script: Script, seed: int, volumes: Path, *, strict: bool = False
) -> tuple[Witness, Simulation]:
    """Until it has ended or, where Katib's faults keep it from that, for long enough."""
    witness = Witness(strict=strict)
    simulation = world(volumes, witness, strict=strict, seed=seed)
    simulation.create(experiment)
    await simulation.settle()
    await go_on(simulation, witness, script)
    if script.pick((True, False)):
        edit(simulation, script)
        await simulation.settle()
        await go_on(simulation, witness, script)
    return witness, simulation


async def go_on(simulation: Simulation, witness: Witness, script: Script) -> None:
    for _ in range(LONGEST_LIFE):
        if is_completed(simulation.experiment()):
            return
        disturb(simulation, witness, script)
        if script.pick((True, True, True, False)):
            await simulation.settle()
        end_trial(simulation, witness, script)
        await simulation.settle()


async def try_out(experiment: Object, volumes: Path) -> Simulation | ApiError:
    witness = Witness(strict=True)  # Which value is the best by an odd objective is not asked.
    simulation = world(volumes, witness)
    try:
        simulation.create(experiment)
    except ApiError as error:
        return error
    await simulation.settle()
    for _ in range(LONGEST_LIFE):
        if is_completed(simulation.experiment()):
            break
        end_trial(simulation, witness, Script(()))
        await simulation.settle(seconds=LONG_ENOUGH_TO_GIVE_UP)
    return simulation


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., Any]]:
    """One loop for all cases: a thread pool for each would take most of the time."""
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as folder:
        yield lambda life, *arguments, **options: runner.run(life(*arguments, Path(folder), **options))


@cases(600)
@given(experiment=experiments(), choices=choices, seed=st.integers(0, 2**16))
def test_every_valid_experiment_is_admitted_and_ends(
    run: Callable[..., Any], experiment: Object, choices: list[int], seed: int
) -> None:
    witness, simulation = run(live, experiment, Script(choices), seed)
    assert is_completed(simulation.experiment())
    assert not simulation.errors
    assert witness.seen >= 2


@cases(150)
@given(experiment=experiments(), choices=choices, seed=st.integers(0, 2**16))
def test_with_katibs_faults_the_status_is_still_in_order(
    run: Callable[..., Any], experiment: Object, choices: list[int], seed: int
) -> None:
    _, simulation = run(live, experiment, Script(choices), seed, strict=True)
    assert all(any(fault in error for fault in STALLS) for error in simulation.errors)


def registry() -> Registry:
    store = Store()
    made = Registry(store, KatibAdmission(store))
    labels = {"katib.kubeflow.org/metrics-collector-injection": "enabled"}
    made.create(NAMESPACE, {"metadata": {"name": "default", "labels": labels}})
    return made


@cases(2500)
@given(experiment=experiments(only_inline_jobs=True), rule=st.sampled_from(REFUSALS))
def test_every_mistake_is_refused_in_katibs_words(experiment: Object, rule: Refusal) -> None:
    broken = copy.deepcopy(experiment)
    rule.change(broken)
    with pytest.raises(ApiError) as caught:
        registry().create(EXPERIMENT, broken)
    assert caught.value.status == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": caught.value.message,
        "code": 400,
    }
    assert caught.value.message.startswith(DENIED)
    assert all(text in caught.value.message for text in rule.texts(broken))


@cases(1200)
@given(experiment=mutated_experiments())
def test_whatever_is_sent_is_refused_with_a_status_or_ends(run: Callable[..., Any], experiment: Object) -> None:
    found = run(try_out, experiment)
    if isinstance(found, ApiError):
        assert found.status["kind"] == "Status"
        assert 400 <= found.code < 500
        assert found.message
    elif not is_completed(found.experiment()):
        assert any(text in found.errors[-1] for text in WAITS)
